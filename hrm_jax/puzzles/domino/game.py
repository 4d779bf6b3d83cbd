"""Dominoes with the double-six set: tiles, moves and whole games of two to four players.

The rules, where they differ between houses: each player gets seven tiles; seat 0 opens, with any
tile; play goes round by seat. Who cannot lay a tile draws until one fits or the boneyard is empty
(drawing), or draws nothing (passing), and then passes. The game ends when a hand is empty, or in a
block, when nobody can lay a tile. The winner has the empty hand or, in a block, the fewest pips;
a tie for the fewest has no winner. The winner scores the pips that the others still hold.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import NamedTuple

from hrm_jax.data.errors import DataError

Tile = tuple[int, int]

TILES: tuple[Tile, ...] = tuple((a, b) for a in range(7) for b in range(a, 7))
HAND_SIZE = 7
LEFT, RIGHT, FIRST = 1, 2, 3
END_NAMES = {LEFT: "left", RIGHT: "right", FIRST: "first"}


class Move(NamedTuple):
    """A tile as it will lie, A left of B, and its end of the table: `LEFT`, `RIGHT` or `FIRST`.

    The first tile lies with A ≤ B.
    """

    a: int
    b: int
    end: int

    @property
    def tile(self) -> Tile:
        """The tile with its smaller half first, as in `TILES`."""
        return (self.a, self.b) if self.a <= self.b else (self.b, self.a)


class Position(NamedTuple):
    """What the player to move sees."""

    table: tuple[Tile, ...]  # from left to right, turned as they lie, so that neighbours match
    hand: tuple[Tile, ...]  # order and direction mean nothing


def legal_moves(position: Position) -> list[Move]:
    """All moves, in the order of the hand, left before right; empty where none fits."""
    if not position.table:
        return [Move(min(tile), max(tile), FIRST) for tile in position.hand]
    left, right = position.table[0][0], position.table[-1][1]
    moves = []
    for a, b in position.hand:
        if left in (a, b):
            moves.append(Move(a + b - left, left, LEFT))
        if right in (a, b):
            moves.append(Move(right, a + b - right, RIGHT))
    return moves


def best_move(position: Position) -> Move:
    """The move that labels show: the heaviest tile that fits, left before right.

    Only one tile of given pips fits a given end, so ties remain on an empty table alone; there the
    tile with the larger half is taken (6-2 before 5-3 before 4-4).
    """
    moves = legal_moves(position)
    if not moves:
        raise DataError(f"no tile of the hand {position.hand} fits the table {position.table}")
    return max(moves, key=lambda move: (move.a + move.b, -move.end, max(move.a, move.b)))


class Game:
    """A game in which somebody can always lay a tile, until it is over.

    Drawing and passing happen by themselves: after each move the turn goes to the next player who
    can lay a tile. The last tile of the boneyard is drawn next; after drawing a hand may hold more
    than seven. A game that is over was `blocked` if nobody could lay a tile.
    """

    def __init__(self, players: int, random: Random, *, drawing: bool = True) -> None:
        """Shuffles with `random`, the only chance in a game, and deals to two to four players.

        With `drawing` a player without a move draws; with four players nothing is left to draw.
        """
        if not 2 <= players <= 4:
            raise DataError(f"players is {players}, expected 2 to 4")
        tiles = list(TILES)
        random.shuffle(tiles)
        self.hands = [tiles[i * HAND_SIZE : (i + 1) * HAND_SIZE] for i in range(players)]
        self.boneyard = tiles[players * HAND_SIZE :]
        self.table: deque[Tile] = deque()
        self.drawing = drawing
        self.turn = 0
        self.over = False
        self.blocked = False

    def position(self) -> Position:
        """What the player to move sees."""
        return Position(tuple(self.table), tuple(self.hands[self.turn]))

    def play(self, move: Move) -> None:
        """Lays a tile for the player to move and finds who moves next."""
        if self.over:
            raise DataError("the game is over")
        position = self.position()
        if move not in legal_moves(position):
            raise DataError(
                f"{move} is not legal with the hand {position.hand} and the table {position.table}"
            )
        hand = self.hands[self.turn]
        hand.remove(move.tile)
        if move.end == LEFT:
            self.table.appendleft((move.a, move.b))
        else:
            self.table.append((move.a, move.b))
        self.over = not hand
        if not self.over:
            self._pass_turn()

    def winner(self) -> int | None:
        """The seat that won, None for a block with a tie; of a game that is over."""
        if not self.over:
            raise DataError("the game is not over")
        pips = self.pips()
        if not self.blocked:
            return self.turn
        return pips.index(min(pips)) if pips.count(min(pips)) == 1 else None

    def pips(self) -> list[int]:
        """The pips that each seat holds."""
        return [sum(a + b for a, b in hand) for hand in self.hands]

    def _pass_turn(self) -> None:
        """Gives the turn to the next player who can lay a tile, after drawing if need be."""
        ends = (self.table[0][0], self.table[-1][1])
        for _ in self.hands:
            self.turn = (self.turn + 1) % len(self.hands)
            hand = self.hands[self.turn]
            while not any(a in ends or b in ends for a, b in hand):
                if not (self.drawing and self.boneyard):
                    break
                hand.append(self.boneyard.pop())
            else:
                return
        self.over = self.blocked = True

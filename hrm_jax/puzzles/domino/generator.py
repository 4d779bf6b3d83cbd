"""Positions from whole games of dominoes, and splits that share none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable
from random import Random

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.fields import require
from hrm_jax.puzzles.base import PuzzleData, only
from hrm_jax.puzzles.domino.encoding import VOCAB_SIZE, encode, encode_move
from hrm_jax.puzzles.domino.game import HAND_SIZE, Game, Position, Tile, best_move, legal_moves

Key = tuple[tuple[Tile, ...], tuple[Tile, ...]]

_IDLE_GAMES = 20_000  # games without a new position before giving up


@dataclasses.dataclass(frozen=True, kw_only=True)
class DominoData(PuzzleData):
    """Which positions: a data set folder, or else games that are played.

    Attributes:
        players: Numbers of players; each game draws one of them.
        drawing: Share of games in which players draw; in the others they pass.
        greedy: Probability that a seat lays its best tile, not a random one; drawn for each seat.
        choice: Least share of positions with two or more legal moves.
        per_game: Most positions of one game, chosen at random, whoever's turn it is.
    """

    num_train: int = only("draw", 10_000)
    players: tuple[int, ...] = (2, 3, 4)
    drawing: float = 0.5
    greedy: float = 0.5
    choice: float = 0.5
    per_game: int = 4

    def __post_init__(self) -> None:
        require(
            bool(self.players) and all(2 <= number <= 4 for number in self.players),
            f"data.players is {self.players}, expected numbers from 2 to 4",
        )
        for name in ("drawing", "greedy", "choice"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"data.{name} is {value}, expected 0 to 1")
        require(self.per_game >= 1, f"data.per_game is {self.per_game}, expected at least 1")


def position_key(position: Position) -> Key:
    """What positions share that differ by the hand's order or the mirror image alone."""
    mirrored = tuple((b, a) for a, b in reversed(position.table))
    hand = tuple(sorted((min(tile), max(tile)) for tile in position.hand))
    return min(position.table, mirrored), hand


def generate(
    data: DominoData, count: int, *, stream: int = 0, exclude: Collection[Key] = frozenset()
) -> dict[Key, Position]:
    """Generates positions by `position_key`, with a legal move and at most seven tiles in hand.

    Game number i is drawn from (seed, stream, i), so the same arguments give the same positions on
    every machine. Positions with the keys `exclude` do not occur.

    Raises:
        DataError: Arguments out of range, or too few distinct positions found.
    """
    seed = data.seed
    if count < 1 or seed < 0:
        raise DataError(
            f"{count} positions from seed {seed}: expected at least 1 position, a seed from 0"
        )
    forced_left = count - math.ceil(data.choice * count)
    found: dict[Key, Position] = {}
    number, idle = 0, 0
    while len(found) < count:
        random = Random(f"domino/{seed}/{stream}/{number}")  # of text: by SHA-512, everywhere
        before = len(found)
        for position in _positions(data, random):
            key, forced = position_key(position), len(legal_moves(position)) == 1
            new = len(found) < count and key not in found and key not in exclude
            if new and (forced_left or not forced):
                forced_left -= forced
                found[key] = position
        idle = 0 if len(found) > before else idle + 1
        if idle == _IDLE_GAMES:
            raise DataError(
                f"only {len(found)} of {count} positions found, none in the last {idle} games; "
                f"ask for fewer, or lower `choice`"
            )
        number += 1
    return found


def to_puzzle_set(positions: Iterable[Position]) -> PuzzleSet:
    """Positions as tokens with their best moves; the rating is the number of legal moves."""
    positions = list(positions)
    return PuzzleSet.simple(
        np.stack([encode(position) for position in positions]),
        np.stack([encode_move(best_move(position)) for position in positions]),
        VOCAB_SIZE,
        0,
        np.array([len(legal_moves(position)) for position in positions], np.int32),
    )


def _positions(data: DominoData, random: Random) -> list[Position]:
    """Plays a game and returns some of its positions, in the order of play."""
    players = random.choice(data.players)
    drawing = random.random() < data.drawing
    greedy = [random.random() < data.greedy for _ in range(players)]
    game = Game(players, random, drawing=drawing)
    seen = []
    while not game.over:
        position, greedily = game.position(), greedy[game.turn]
        seen.append(position)
        game.play(best_move(position) if greedily else random.choice(legal_moves(position)))
    whole = [position for position in seen if len(position.hand) <= HAND_SIZE]
    chosen = random.sample(range(len(whole)), min(data.per_game, len(whole)))
    return [whole[index] for index in sorted(chosen)]

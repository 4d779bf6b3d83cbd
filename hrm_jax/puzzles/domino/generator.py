"""Positions from whole games of dominoes, and splits that share none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from random import Random

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.fields import require
from hrm_jax.puzzles.base import Array, PuzzleData, only
from hrm_jax.puzzles.domino.encoding import encode, encode_move
from hrm_jax.puzzles.domino.game import (
    HAND_SIZE,
    Game,
    Position,
    Tile,
    best_move,
    legal_moves,
)

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


@dataclasses.dataclass(frozen=True)
class DominoPositions:
    """E distinct positions, each with at least one legal move and at most seven tiles in hand.

    Attributes:
        inputs: Tokens, uint8 [E, 72]; see `encoding`.
        labels: The best move, uint8 [E, 72].
        moves: Number of legal moves, int32 [E].
        keys: `position_key` of each.
    """

    inputs: Array
    labels: Array
    moves: Array
    keys: tuple[Key, ...]

    def __len__(self) -> int:
        """Number of positions, E."""
        return len(self.inputs)


def position_key(position: Position) -> Key:
    """Returns what positions share that differ by the hand's order or the mirror image alone."""
    mirrored = tuple((b, a) for a, b in reversed(position.table))
    hand = tuple(sorted((min(tile), max(tile)) for tile in position.hand))
    return min(position.table, mirrored), hand


def generate(
    data: DominoData, count: int, *, stream: int = 0, exclude: Collection[Key] = frozenset()
) -> DominoPositions:
    """Generates positions that differ by more than the hand's order or the mirror image.

    Game number i is drawn from (seed, stream, i), so the same arguments give the same positions on
    every machine.

    Args:
        data: Kinds of games, and their seed.
        count: Number of positions.
        stream: Independent sequence of games under the same seed.
        exclude: Keys of positions that must not occur.

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
    moves: list[int] = []
    number, idle = 0, 0
    while len(found) < count:
        random = Random(f"domino/{seed}/{stream}/{number}")  # of text: by SHA-512, everywhere
        before = len(found)
        for position in _positions(data, random):
            key, options = position_key(position), len(legal_moves(position))
            forced = options == 1
            if len(found) == count or key in found or key in exclude:
                continue
            if forced and not forced_left:
                continue
            forced_left -= forced
            found[key] = position
            moves.append(options)
        idle = 0 if len(found) > before else idle + 1
        if idle == _IDLE_GAMES:
            raise DataError(
                f"only {len(found)} of {count} positions found, none in the last {idle} games; "
                f"ask for fewer, or lower `choice`"
            )
        number += 1
    positions = list(found.values())
    return DominoPositions(
        np.stack([encode(position) for position in positions]),
        np.stack([encode_move(best_move(position)) for position in positions]),
        np.array(moves, np.int32),
        tuple(found),
    )


def generate_split(data: DominoData) -> tuple[DominoPositions, DominoPositions]:
    """Generates training and test positions from different games.

    No test position is a training position, not even up to the hand's order or the mirror image.

    Raises:
        DataError: See `generate`.
    """
    train = generate(data, data.num_train)
    test = generate(data, data.num_test, stream=1, exclude=frozenset(train.keys))
    return train, test


def _positions(data: DominoData, random: Random) -> list[Position]:
    """Plays a game and returns some of its positions, in the order of play."""
    players = random.choice(data.players)
    drawing = random.random() < data.drawing
    greedy = [random.random() < data.greedy for _ in range(players)]
    game = Game(players, random, drawing=drawing)
    seen = []
    while not game.over:
        position = game.position()
        seen.append(position)
        greedily = greedy[game.turn]
        game.play(best_move(position) if greedily else random.choice(legal_moves(position)))
    whole = [position for position in seen if len(position.hand) <= HAND_SIZE]
    chosen = random.sample(range(len(whole)), min(data.per_game, len(whole)))
    return [whole[index] for index in sorted(chosen)]

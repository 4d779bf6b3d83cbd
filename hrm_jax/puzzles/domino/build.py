"""Builds domino data sets in a folder of `.npy` files."""

from __future__ import annotations

import dataclasses
import os

from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import PuzzleSet, write_npy
from hrm_jax.data.output_folder import output_folder
from hrm_jax.puzzles.domino.encoding import VOCAB_SIZE
from hrm_jax.puzzles.domino.generator import DominoPositions, GameMix, generate_split

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class DominoSource:
    """Which positions.

    Attributes:
        num_train: Training positions.
        num_test: Test positions, none of them in training.
        players: Numbers of players; each game draws one of them.
        drawing: Share of games in which players draw; in the others they pass.
        greedy: Probability that a seat lays its best tile, not a random one.
        choice: Least share of positions with two or more legal moves.
        per_game: Most positions of one game.
        seed: Seed of the games.
    """

    num_train: int = 10_000
    num_test: int = 1000
    players: tuple[int, ...] = GameMix.players
    drawing: float = GameMix.drawing
    greedy: float = GameMix.greedy
    choice: float = GameMix.choice
    per_game: int = GameMix.per_game
    seed: int = 0


def load_domino(source: DominoSource) -> tuple[PuzzleSet, PuzzleSet]:
    """Plays games until there are enough positions.

    Returns:
        Train and test examples of 72 tokens, 0 to 7; pad, ignore label and blank identifier are 0.
        The rating is the number of legal moves.

    Raises:
        DataError: Values out of range, or too few distinct positions found.
    """
    mix = GameMix(source.players, source.drawing, source.greedy, source.choice, source.per_game)
    train, test = generate_split(source.num_train, source.num_test, source.seed, mix)
    return _to_puzzle_set(train), _to_puzzle_set(test)


def build_domino(
    output: str | os.PathLike[str], source: DominoSource, *, overwrite: bool = False
) -> Identity:
    """Builds a data set folder; it appears under its name only when it is complete.

    Args:
        output: Folder to make.
        source: What to build.
        overwrite: Replace a data set that stands there, one of ours.

    Returns:
        What identifies the data; it is written to `identity.json` too.

    Raises:
        DataError: Values out of range, or a folder in the way.
        OSError: The folder cannot be written.
    """
    with output_folder(output, overwrite) as folder:
        train, test = load_domino(source)
        for split, part in (("train", train), ("test", test)):
            write_npy(folder, split, part)
        counts = {"train_examples": len(train), "test_examples": len(test)}
        identity = Identity.of("domino", VERSION, source.seed, counts, train, test)
        identity.write(folder)
    return identity


def _to_puzzle_set(positions: DominoPositions) -> PuzzleSet:
    return PuzzleSet.simple(
        positions.inputs,
        positions.labels,
        vocab_size=VOCAB_SIZE,
        ignore_label_id=0,
        ratings=positions.moves,
    )

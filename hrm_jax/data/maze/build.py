"""Builds maze data sets in a folder: generated or from CSV, as `.npy` or CSV files."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from hrm_jax import files
from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.maze.board import MazeShape
from hrm_jax.data.maze.convert import augmented_puzzle_set, to_puzzle_set
from hrm_jax.data.maze.csv import check_overlap, read_csv, write_csv
from hrm_jax.data.maze.generator import MazePuzzles, generate_split
from hrm_jax.data.output_folder import output_folder
from hrm_jax.data.puzzles import PuzzleSet, write_npy

VERSION = "1.0.0"
FORMATS = ("npy", "csv")


@dataclasses.dataclass(frozen=True)
class MazeSource:
    """Where the mazes come from: two CSV files, or else the generator.

    Attributes:
        size: Rows of the generated boards, and columns too unless `width` is given.
        width: Columns, where boards are not square; then `size` gives the rows of CSV files too.
        num_train: Generated training mazes.
        num_test: Generated test mazes.
        min_path: Moves that the shortest path must exceed; None takes `default_min_path`.
        walls: Least and greatest share of walls.
        train_csv: Training mazes; together with `test_csv` it replaces the generator.
        test_csv: Test mazes.
        subsample: Random training mazes to keep, None for all.
        num_aug: Rotations and reflections of each training maze that are stored after it, at
            most 7 (3 where boards are not square).
        seed: Seed of generator, subsample and augmentation.
    """

    size: int = 10
    width: int | None = None
    num_train: int = 1000
    num_test: int = 1000
    min_path: int | None = None
    walls: tuple[float, float] = (0.3, 0.5)
    train_csv: str | None = None
    test_csv: str | None = None
    subsample: int | None = None
    num_aug: int = 0
    seed: int = 0


def default_min_path(shape: MazeShape) -> int:
    """Returns the bound on the shortest path where none is given.

    110 moves for 30×30, as in the paper; else three fifths of rows and columns together, 12 for
    10×10, which one or two of ten random boards exceed.
    """
    return 110 if shape == MazeShape(30, 30) else (shape.height + shape.width) * 3 // 5


def build_maze(
    output: str | os.PathLike[str],
    file_format: str,
    source: MazeSource,
    *,
    overwrite: bool = False,
) -> Identity:
    """Builds a data set folder; it appears under its name only when it is complete.

    Besides the splits the folder gets `identity.json`. With CSV, `train.csv` and `test.csv`.

    Args:
        output: Folder to make.
        file_format: One of `FORMATS`.
        source: What to build.
        overwrite: Replace a data set that stands there, one that this function wrote.

    Returns:
        What identifies the data: counts and digests.

    Raises:
        DataError: Bad arguments or files, a test maze in training, or a folder in the way.
    """
    if file_format not in FORMATS:
        raise DataError(f"format is {file_format!r}, expected one of {', '.join(FORMATS)}")
    if file_format == "csv" and source.num_aug:
        raise DataError("num_aug: CSV holds the mazes alone; augment when training, or use npy")
    with output_folder(output, overwrite) as folder:
        puzzles = load_puzzles(source)
        train_set, test_set = _puzzle_sets(puzzles, source)
        for split, some, part in zip(
            ("train", "test"), puzzles, (train_set, test_set), strict=True
        ):
            if file_format == "npy":
                write_npy(folder, split, part)
            else:
                write_csv(folder / f"{split}.csv", some)
        identity = Identity(
            builder="maze",
            version=VERSION,
            seed=source.seed,
            counts={
                "train_puzzles": len(puzzles[0]),
                "train_examples": len(train_set),
                "test_examples": len(test_set),
            },
            sha256={"train": train_set.digest(), "test": test_set.digest()},
        )
        files.write_text(folder / "identity.json", identity.to_json() + "\n")
    return identity


def load_mazes(source: MazeSource) -> tuple[PuzzleSet, PuzzleSet]:
    """Generates or reads train and test mazes as tokens, with the augmentations of `source`.

    Raises:
        DataError: Bad arguments or files, or a test maze in training.
    """
    return _puzzle_sets(load_puzzles(source), source)


def load_puzzles(source: MazeSource) -> tuple[MazePuzzles, MazePuzzles]:
    """Generates or reads train and test mazes and checks that they share no walls.

    Raises:
        DataError: Bad arguments or files, or a test maze in training, up to symmetry.
    """
    if (source.train_csv is None) != (source.test_csv is None):
        raise DataError("train_csv and test_csv belong together: give both or neither")
    if source.train_csv is None or source.test_csv is None:
        shape = MazeShape(source.size, source.size if source.width is None else source.width)
        min_path = default_min_path(shape) if source.min_path is None else source.min_path
        train, test = generate_split(
            shape, source.num_train, source.num_test, min_path, source.seed, walls=source.walls
        )
    else:
        given = None if source.width is None else MazeShape(source.size, source.width)
        train, test = read_csv(source.train_csv, given), read_csv(source.test_csv, given)
        if test.shape != train.shape:
            raise DataError(
                f"{source.test_csv}: mazes are {test.shape.height}×{test.shape.width}, those of "
                f"{source.train_csv} {train.shape.height}×{train.shape.width}"
            )
        check_overlap(train, test, train_name=source.train_csv, test_name=source.test_csv)
    if source.subsample is not None:
        if not 1 <= source.subsample <= len(train):
            raise DataError(
                f"subsample is {source.subsample}, expected 1 to {len(train)} training mazes"
            )
        random = np.random.Generator(np.random.PCG64(source.seed))
        train = train.take(random.choice(len(train), source.subsample, replace=False))
    return train, test


def _puzzle_sets(
    puzzles: tuple[MazePuzzles, MazePuzzles], source: MazeSource
) -> tuple[PuzzleSet, PuzzleSet]:
    train, test = puzzles
    return augmented_puzzle_set(train, source.num_aug, source.seed), to_puzzle_set(test)

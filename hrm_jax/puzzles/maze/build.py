"""Builds maze data sets in a folder: generated or from CSV, as `.npy` or CSV files."""

from __future__ import annotations

import dataclasses
import os

from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import PuzzleSet, write_npy
from hrm_jax.data.output_folder import output_folder
from hrm_jax.puzzles.boards import BoardSource, check_format, write_identity
from hrm_jax.puzzles.maze.board import MazeShape
from hrm_jax.puzzles.maze.convert import augmented_puzzle_set, to_puzzle_set
from hrm_jax.puzzles.maze.csv import check_overlap, read_csv, write_csv
from hrm_jax.puzzles.maze.generator import MazePuzzles, generate_split

VERSION = "1.0.0"
FORMATS = ("npy", "csv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MazeSource(BoardSource):
    """Where the mazes come from: two CSV files, or else the generator.

    The other fields are those of `BoardSource`; `num_aug` is at most 7, the other rotations and
    reflections of a square (3 where boards are not square).

    Attributes:
        size: Rows of the generated boards, and columns too unless `width` is given.
        width: Columns, where boards are not square; then `size` gives the rows of CSV files too.
        min_path: Moves that the shortest path must exceed; None takes `default_min_path`.
        walls: Least and greatest share of walls.
        unique: Whether there must be only one shortest path.
    """

    size: int = 10
    width: int | None = None
    min_path: int | None = None
    walls: tuple[float, float] = (0.3, 0.5)
    unique: bool = False


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
    check_format(file_format, FORMATS, source.num_aug)
    with output_folder(output, overwrite) as folder:
        puzzles = load_puzzles(source)
        sets = _puzzle_sets(puzzles, source)
        for split, some, part in zip(("train", "test"), puzzles, sets, strict=True):
            if file_format == "npy":
                write_npy(folder, split, part)
            else:
                write_csv(folder / f"{split}.csv", some)
        return write_identity(folder, "maze", VERSION, source.seed, len(puzzles[0]), sets)


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
    files = source.csv_files()
    if files is None:
        shape = MazeShape(source.size, source.size if source.width is None else source.width)
        min_path = default_min_path(shape) if source.min_path is None else source.min_path
        train, test = generate_split(
            shape,
            source.num_train,
            source.num_test,
            min_path,
            source.seed,
            walls=source.walls,
            unique=source.unique,
        )
    else:
        given = None if source.width is None else MazeShape(source.size, source.width)
        train, test = (read_csv(file, given) for file in files)
        if test.shape != train.shape:
            raise DataError(
                f"{files[1]}: mazes are {test.shape.height}×{test.shape.width}, those of "
                f"{files[0]} {train.shape.height}×{train.shape.width}"
            )
        check_overlap(train, test, train_name=files[0], test_name=files[1])
    return source.chosen(train, "mazes"), test


def _puzzle_sets(
    puzzles: tuple[MazePuzzles, MazePuzzles], source: MazeSource
) -> tuple[PuzzleSet, PuzzleSet]:
    train, test = puzzles
    return augmented_puzzle_set(train, source.num_aug, source.seed), to_puzzle_set(test)

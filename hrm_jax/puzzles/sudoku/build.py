"""Builds Sudoku data sets in a folder: generated or from CSV, as `.npy`, TFDS or CSV files."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import PuzzleSet, write_npy
from hrm_jax.data.output_folder import output_folder
from hrm_jax.puzzles.boards import BoardSource, check_format, write_identity
from hrm_jax.puzzles.sudoku.board import SudokuShape
from hrm_jax.puzzles.sudoku.convert import augmented_puzzle_set, to_puzzle_set
from hrm_jax.puzzles.sudoku.csv import check_overlap, read_csv, write_csv
from hrm_jax.puzzles.sudoku.generator import SudokuPuzzles, generate_split

VERSION = "1.0.0"
FORMATS = ("npy", "tfds", "csv")
_GIVENS = {4: (6, 10), 6: (14, 20), 9: (25, 30)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SudokuSource(BoardSource):
    """Where the puzzles come from: two CSV files, or else the generator.

    The other fields are those of `BoardSource`.

    Attributes:
        size: Rows of the generated boards: 4, 6 or 9.
        givens: Least and greatest number of givens; None takes a moderate range for the size.
        check_symmetry: Compare CSV files up to symmetry, not only grid by grid. Generated splits
            never share a class.
    """

    size: int = 6
    givens: tuple[int, int] | None = None
    check_symmetry: bool = False


def build_sudoku(
    output: str | os.PathLike[str],
    file_format: str,
    source: SudokuSource,
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
        DataError: Bad arguments or files, a test grid in training, or a folder in the way.
    """
    check_format(file_format, FORMATS, source.num_aug)
    with output_folder(output, overwrite) as folder:
        train, test, shape = load_puzzles(source)
        sets = (
            augmented_puzzle_set(train, shape, source.num_aug, source.seed),
            to_puzzle_set(test, shape),
        )
        _write(folder, file_format, (train, test), sets)
        return write_identity(folder, "sudoku", VERSION, source.seed, len(train), sets)


def load_puzzles(source: SudokuSource) -> tuple[SudokuPuzzles, SudokuPuzzles, SudokuShape]:
    """Generates or reads train and test puzzles and checks that they share no grid.

    Raises:
        DataError: Bad arguments or files, or a test grid in training.
    """
    files = source.csv_files()
    if files is None:
        shape = SudokuShape.of(source.size)
        givens = source.givens or _GIVENS[source.size]
        train, test = generate_split(shape, source.num_train, source.num_test, givens, source.seed)
    else:
        train, test = map(read_csv, files)
        shape = SudokuShape.for_cells(train.questions.shape[1])
        if test.questions.shape[1] != shape.cells:
            raise DataError(
                f"{files[1]}: puzzles have {test.questions.shape[1]} cells, those of "
                f"{files[0]} {shape.cells}"
            )
        check_overlap(
            train, test, shape, source.check_symmetry, train_name=files[0], test_name=files[1]
        )
    return source.chosen(train, "puzzles"), test, shape


def _write(
    folder: pathlib.Path,
    file_format: str,
    puzzles: tuple[SudokuPuzzles, SudokuPuzzles],
    sets: tuple[PuzzleSet, PuzzleSet],
) -> None:
    if file_format == "tfds":
        from hrm_jax.puzzles.sudoku.tfds_files import write_tfds  # slow import, and optional

        write_tfds(folder, *sets)
    elif file_format == "npy":
        for split, part in zip(("train", "test"), sets, strict=True):
            write_npy(folder, split, part)
    else:
        for split, some in zip(("train", "test"), puzzles, strict=True):
            write_csv(folder / f"{split}.csv", some)

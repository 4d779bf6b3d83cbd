"""Builds Sudoku data sets in a folder: generated or from CSV, as `.npy`, TFDS or CSV files."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np

from hrm_jax import files
from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.output_folder import output_folder
from hrm_jax.data.puzzles import PuzzleSet, write_npy
from hrm_jax.data.sudoku.board import SudokuShape
from hrm_jax.data.sudoku.convert import augmented_puzzle_set, to_puzzle_set
from hrm_jax.data.sudoku.csv import check_overlap, read_csv, write_csv
from hrm_jax.data.sudoku.generator import SudokuPuzzles, generate_split

VERSION = "1.0.0"
FORMATS = ("npy", "tfds", "csv")
_GIVENS = {4: (6, 10), 6: (14, 20), 9: (25, 30)}


@dataclasses.dataclass(frozen=True)
class SudokuSource:
    """Where the puzzles come from: two CSV files, or else the generator.

    Attributes:
        size: Rows of the generated boards: 4, 6 or 9.
        num_train: Generated training puzzles.
        num_test: Generated test puzzles.
        givens: Least and greatest number of givens; None takes a moderate range for the size.
        train_csv: Training puzzles; together with `test_csv` it replaces the generator.
        test_csv: Test puzzles.
        subsample: Random training puzzles to keep, None for all.
        num_aug: Augmentations of each training puzzle that are stored after it.
        check_symmetry: Compare CSV files up to symmetry, not only grid by grid. Generated splits
            never share a class.
        seed: Seed of generator, subsample and augmentation.
    """

    size: int = 6
    num_train: int = 1000
    num_test: int = 1000
    givens: tuple[int, int] | None = None
    train_csv: str | None = None
    test_csv: str | None = None
    subsample: int | None = None
    num_aug: int = 0
    check_symmetry: bool = False
    seed: int = 0


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
    if file_format not in FORMATS:
        raise DataError(f"format is {file_format!r}, expected one of {', '.join(FORMATS)}")
    if file_format == "csv" and source.num_aug:
        raise DataError("num_aug: CSV holds the puzzles alone; augment when training, or use npy")
    with output_folder(output, overwrite) as folder:
        train, test, shape = load_puzzles(source)
        train_set = augmented_puzzle_set(train, shape, source.num_aug, source.seed)
        test_set = to_puzzle_set(test, shape)
        _write(folder, file_format, (train, test), (train_set, test_set))
        identity = Identity(
            builder="sudoku",
            version=VERSION,
            seed=source.seed,
            counts={
                "train_puzzles": len(train),
                "train_examples": len(train_set),
                "test_examples": len(test_set),
            },
            sha256={"train": train_set.digest(), "test": test_set.digest()},
        )
        files.write_text(folder / "identity.json", identity.to_json() + "\n")
    return identity


def load_puzzles(source: SudokuSource) -> tuple[SudokuPuzzles, SudokuPuzzles, SudokuShape]:
    """Generates or reads train and test puzzles and checks that they share no grid.

    Raises:
        DataError: Bad arguments or files, or a test grid in training.
    """
    if (source.train_csv is None) != (source.test_csv is None):
        raise DataError("train_csv and test_csv belong together: give both or neither")
    if source.train_csv is None or source.test_csv is None:
        shape = SudokuShape.of(source.size)
        givens = source.givens or _GIVENS[source.size]
        train, test = generate_split(shape, source.num_train, source.num_test, givens, source.seed)
    else:
        train, test = read_csv(source.train_csv), read_csv(source.test_csv)
        shape = SudokuShape.for_cells(train.questions.shape[1])
        if test.questions.shape[1] != shape.cells:
            raise DataError(
                f"{source.test_csv}: puzzles have {test.questions.shape[1]} cells, those of "
                f"{source.train_csv} {shape.cells}"
            )
        check_overlap(
            train,
            test,
            shape,
            source.check_symmetry,
            train_name=source.train_csv,
            test_name=source.test_csv,
        )
    if source.subsample is not None:
        if not 1 <= source.subsample <= len(train):
            raise DataError(
                f"subsample is {source.subsample}, expected 1 to {len(train)} training puzzles"
            )
        random = np.random.Generator(np.random.PCG64(source.seed))
        train = train.take(random.choice(len(train), source.subsample, replace=False))
    return train, test, shape


def _write(
    folder: pathlib.Path,
    file_format: str,
    puzzles: tuple[SudokuPuzzles, SudokuPuzzles],
    sets: tuple[PuzzleSet, PuzzleSet],
) -> None:
    if file_format == "tfds":
        from hrm_jax.data.sudoku.tfds_files import write_tfds  # slow import, and optional

        write_tfds(folder, *sets)
    elif file_format == "npy":
        for split, part in zip(("train", "test"), sets, strict=True):
            write_npy(folder, split, part)
    else:
        for split, some in zip(("train", "test"), puzzles, strict=True):
            write_csv(folder / f"{split}.csv", some)

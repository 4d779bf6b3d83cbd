"""The Sudoku task: where its puzzles come from and how they may be changed."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jaxtyping import PRNGKeyArray

from hrm_jax.data.identity import Identity
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.fields import require
from hrm_jax.puzzles.sudoku.board import SudokuShape, is_solution
from hrm_jax.puzzles.sudoku.build import VERSION, SudokuSource, load_puzzles
from hrm_jax.puzzles.sudoku.convert import to_puzzle_set
from hrm_jax.puzzles.sudoku.csv import read_csv
from hrm_jax.puzzles.sudoku.hints import add_hints
from hrm_jax.puzzles.sudoku.symmetry import augment, undo
from hrm_jax.tasks.puzzles.task import PuzzleConfig, PuzzleTask, identify, stored_or_made


@dataclasses.dataclass(frozen=True)
class SudokuData:
    """Which puzzles: a data set folder, two CSV files, or else the generator.

    Attributes:
        path: Folder made by `launch/build_dataset.py` or by the reference (npy or TFDS).
        train_csv, test_csv: Files with the columns source, question, answer, rating.
        subsample: Random puzzles of `train_csv` to keep; 0 for all.
        check_symmetry: Whether the files are compared up to symmetry too, not only exactly.
        size: Rows of generated boards: 4, 6 or 9.
        num_train, num_test: Generated puzzles.
        givens: Least and greatest number of givens of generated puzzles; () for the usual ones.
        seed: Seed of generator and subsample.
        augment: Whether each draw gets a fresh random symmetry.
        hints: Share of training draws in which some blanks are filled from the answer.
    """

    path: str = ""
    train_csv: str = ""
    test_csv: str = ""
    subsample: int = 0
    check_symmetry: bool = False
    size: int = 6
    num_train: int = 1000
    num_test: int = 1000
    givens: tuple[int, ...] = ()
    seed: int = 0
    augment: bool = True
    hints: float = 0.0

    def __post_init__(self) -> None:
        require(
            len(self.givens) in (0, 2),
            f"data.givens: expected a least and a greatest number, got {self.givens}",
        )
        require(
            not (self.path and (self.train_csv or self.test_csv)),
            "data.path and data.train_csv/test_csv: give one or the other",
        )
        require(0 <= self.hints <= 1, f"data.hints: expected a share 0 to 1, got {self.hints}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SudokuConfig(PuzzleConfig):
    """Configuration of a Sudoku run; the fields are those of `PuzzleConfig`."""

    data: SudokuData = SudokuData()


class SudokuTask(PuzzleTask):
    """Trains an ACT model on Sudoku."""

    @classmethod
    def load(
        cls, data: SudokuData, cache: pathlib.Path | None
    ) -> tuple[PuzzleSet, PuzzleSet, Identity]:
        """As in `PuzzleTask.load`."""

        def make() -> tuple[PuzzleSet, PuzzleSet]:
            train, test, shape = load_puzzles(
                SudokuSource(
                    size=data.size,
                    num_train=data.num_train,
                    num_test=data.num_test,
                    givens=(data.givens[0], data.givens[1]) if data.givens else None,
                    train_csv=data.train_csv or None,
                    test_csv=data.test_csv or None,
                    subsample=data.subsample or None,
                    check_symmetry=data.check_symmetry,
                    seed=data.seed,
                )
            )
            return to_puzzle_set(train, shape), to_puzzle_set(test, shape)

        generated = not (data.train_csv or data.test_csv)
        train, test = stored_or_made(data.path, cache if generated else None, make)
        seed = None if data.path else data.seed
        return train, test, identify("sudoku", VERSION, seed, train, test)

    @classmethod
    def read_csv(cls, path: pathlib.Path) -> PuzzleSet:
        """Reads a file with the columns source, question, answer, rating."""
        puzzles = read_csv(path)
        return to_puzzle_set(puzzles, SudokuShape.for_cells(puzzles.questions.shape[1]))

    @property
    def augments(self) -> bool:
        """As in `PuzzleTask.augments`."""
        return self.config.data.augment or self.config.data.hints > 0

    def augment(
        self, key: PRNGKeyArray, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """One random symmetry of Sudoku, and hints."""
        data = self.config.data
        if data.augment:
            inputs, labels = augment(key, inputs, labels, SudokuShape.for_cells(inputs.shape[0]))
        if data.hints:
            inputs = add_hints(jax.random.fold_in(key, 1), inputs, labels, data.hints)
        return inputs, labels

    @classmethod
    def transform(cls, key: PRNGKeyArray, inputs: jax.Array) -> jax.Array:
        """One random symmetry of Sudoku."""
        return augment(key, inputs, inputs, SudokuShape.for_cells(inputs.shape[0]))[0]

    @classmethod
    def restore(cls, key: PRNGKeyArray, answer: jax.Array) -> jax.Array:
        """As in `PuzzleTask.restore`."""
        return undo(key, answer, SudokuShape.for_cells(answer.shape[0]))

    @classmethod
    def obeys(
        cls, inputs: npt.NDArray[Any], predictions: npt.NDArray[Any]
    ) -> npt.NDArray[np.bool_]:
        """Full boards that keep the rules and the givens."""
        boards = predictions.astype(np.int8) - 1
        keeps = ((inputs == 1) | (inputs == predictions)).all(1)
        return keeps & is_solution(boards, SudokuShape.for_cells(inputs.shape[1]))

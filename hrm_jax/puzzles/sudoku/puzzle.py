"""Sudoku as a puzzle."""

from __future__ import annotations

import dataclasses

import jax
from jaxtyping import PRNGKeyArray

from hrm_jax.fields import require
from hrm_jax.puzzles.base import only
from hrm_jax.puzzles.boards import BoardPuzzles
from hrm_jax.puzzles.digits.puzzle import DigitData, DigitPuzzle
from hrm_jax.puzzles.sudoku.board import SudokuShape
from hrm_jax.puzzles.sudoku.draw import PAINTER
from hrm_jax.puzzles.sudoku.generator import generate_split
from hrm_jax.puzzles.sudoku.hints import add_hints
from hrm_jax.puzzles.sudoku.symmetry import canonical, random_symmetry

_GIVENS = {4: (6, 10), 6: (14, 20), 9: (25, 30)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SudokuData(DigitData):
    """Which Sudokus: a data set folder, two CSV files, or else the generator.

    Attributes:
        size: Rows of generated boards: 4, 6 or 9.
        check_symmetry: Whether CSV files are compared up to symmetry too, not only grid by grid.
            Generated splits never share a class.
        hints: Share of training draws in which some blanks are filled from the answer.
    """

    size: int = only("draw", 6)
    check_symmetry: bool = only("files", False)
    hints: float = only("train", 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.hints <= 1, f"data.hints: expected a share 0 to 1, got {self.hints}")


class Sudoku(DigitPuzzle):
    """Each digit once in each row, column and box."""

    def augments(self, data: SudokuData) -> bool:
        return data.augment or data.hints > 0

    def augment(
        self, data: SudokuData, key: PRNGKeyArray, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        if data.augment:
            inputs, labels = super().augment(data, key, inputs, labels)
        if data.hints:
            inputs = add_hints(jax.random.fold_in(key, 1), inputs, labels, data.hints)
        return inputs, labels

    def generate(self, data: SudokuData) -> tuple[BoardPuzzles, BoardPuzzles]:
        shape = SudokuShape.of(data.size)
        low, high = data.givens or _GIVENS[data.size]
        return generate_split(shape, data.num_train, data.num_test, (low, high), data.seed)

    def essence(self, puzzles: BoardPuzzles, data: SudokuData) -> tuple[list[bytes], str]:
        grids, words = puzzles.answers, "its solution grid is that of"
        if data.check_symmetry:
            grids = canonical(grids, puzzles.shape)
            words = "its solution grid is, up to symmetry, that of"
        return [grid.tobytes() for grid in grids], words


SUDOKU = Sudoku(
    name="sudoku",
    about="generated Sudokus, or CSV files of them",
    data=SudokuData,
    board_shape=SudokuShape.for_cells,
    painter=PAINTER,
    random_symmetry=random_symmetry,
)

"""Sudoku boards: shapes, text, tokens and rules."""

from __future__ import annotations

import dataclasses

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.digits import board
from hrm_jax.puzzles.digits.board import DigitShape, from_tokens, to_text, to_tokens

__all__ = ["SudokuShape", "from_tokens", "parse", "to_text", "to_tokens"]

_BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}


@dataclasses.dataclass(frozen=True)
class SudokuShape(DigitShape):
    """Size of a board, N, and of its boxes, which make bands of rows and stacks of columns."""

    size: int
    box_rows: int
    box_cols: int

    def __post_init__(self) -> None:
        if self.box_rows * self.box_cols != self.size or not 1 <= self.size <= 9:
            raise DataError(
                f"Sudoku shape: boxes of {self.box_rows}×{self.box_cols} cells do not hold the "
                f"{self.size} digits (at most 9)"
            )

    @classmethod
    def of(cls, size: int) -> SudokuShape:
        """The usual shape: boxes of 2×2 for 4, 2 rows × 3 columns for 6, 3×3 for 9."""
        if size not in _BOXES:
            raise DataError(f"Sudoku size is {size}, expected one of {sorted(_BOXES)}")
        return cls(size, *_BOXES[size])

    @classmethod
    def for_cells(cls, n_cells: int) -> SudokuShape:
        """The usual shape with 16, 36 or 81 cells."""
        for size in _BOXES:
            if size * size == n_cells:
                return cls.of(size)
        raise DataError(
            f"a Sudoku has {', '.join(str(size * size) for size in _BOXES)} cells, not {n_cells}"
        )

    def units(self) -> Array:
        grid = np.arange(self.cells).reshape(
            -1, self.box_rows, self.size // self.box_cols, self.box_cols
        )
        return np.concatenate([super().units(), grid.swapaxes(1, 2).reshape(self.size, self.size)])


def parse(text: str, shape: SudokuShape | None = None) -> Array:
    """As `digits.board.parse`; without a shape, it is the usual one with that many cells."""
    return board.parse(text, shape or SudokuShape.for_cells(len(text)))

"""Sizes of Latin squares."""

from __future__ import annotations

import dataclasses
import math

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.digits.board import DigitShape

SIZES = range(4, 10)


@dataclasses.dataclass(frozen=True)
class LatinShape(DigitShape):
    """A board of N rows, columns and digits, each digit once in each row and column."""

    size: int

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise DataError(f"Latin square: size is {self.size}, expected 4 to 9")

    @classmethod
    def for_cells(cls, cells: int) -> LatinShape:
        """The square of so many cells."""
        size = math.isqrt(cells)
        if size * size != cells or size not in SIZES:
            raise DataError(f"a Latin square has 16, 25, 36, 49, 64 or 81 cells, not {cells}")
        return cls(size)

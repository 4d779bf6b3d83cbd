"""An exact solver: proves that a puzzle has no, one or several solutions, and rates it."""

from __future__ import annotations

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.digits.board import DigitShape
from hrm_jax.puzzles.digits.search import search_many


def solve_many(boards: Array, shape: DigitShape, limit: int = 2) -> tuple[Array, Array, Array]:
    """Solves boards of digits [E, cells] by depth-first search with naked and hidden singles.

    Returns:
        Number of solutions up to `limit`, int32 [E]; the first solution, int8 [E, cells], zeros
        where there is none; and the rating, int32 [E]: guesses up to the first solution, which are
        choices of a digit while another one for the cell was still untried. 0 means that naked and
        hidden singles suffice. Ratings of other solvers differ in scale.
    """
    boards = np.asarray(boards)
    if boards.ndim != 2 or boards.shape[1] != shape.cells or boards.dtype.kind not in "iu":
        raise DataError(
            f"boards are {boards.dtype} {boards.shape}, expected integers [E, {shape.cells}]"
        )
    bad = (boards < 0) | (boards > shape.size)
    if bad.any():
        row, cell = np.unravel_index(int(np.argmax(bad)), boards.shape)
        raise DataError(
            f"boards, row {row}, cell {cell}: {boards[row, cell]} is outside 0 to {shape.size}"
        )
    if limit < 1:
        raise DataError(f"limit is {limit}, expected 1 or more")
    counts = np.zeros(len(boards), np.int32)
    solutions = np.zeros(boards.shape, np.int8)
    guesses = np.zeros(len(boards), np.int32)
    units, unit_of = tables(shape)
    boards = np.ascontiguousarray(boards, np.int8)
    search_many(boards, units, unit_of, limit, counts, solutions, guesses)
    return counts, solutions, guesses


def tables(shape: DigitShape) -> tuple[Array, Array]:
    """Returns `units` and `unit_of` as `search` takes them, int64 [U, N] and [C, 3]."""
    units = shape.units()
    owners = [np.flatnonzero((units == cell).any(1)) for cell in range(shape.cells)]
    return units, np.stack(owners)[:, [0, 1, -1]]

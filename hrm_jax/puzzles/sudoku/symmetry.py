"""Symmetries of Sudoku: random ones, and a canonical form of solutions.

The group: relabelling the digits, permuting bands, stacks, rows of a band and columns of a stack,
and, where the boxes are square, transposing.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.compiled import compiled
from hrm_jax.puzzles.digits.board import is_solution
from hrm_jax.puzzles.digits.symmetry import Symmetry, random_order
from hrm_jax.puzzles.sudoku.board import SudokuShape


def random_symmetry(key: jax.Array, shape: SudokuShape) -> Symmetry:
    """Draws a symmetry, uniform over the group."""
    size, height, width = shape.size, shape.box_rows, shape.box_cols
    bands, stacks = size // height, size // width
    bits = jax.random.bits(key, (3 * size + bands + stacks + 1,), jnp.uint32)
    digit_bits, row_bits, col_bits, band_bits, stack_bits, flip_bit = jnp.split(
        bits, np.cumsum([size, size, size, bands, stacks]).tolist()
    )
    rows = _line_order(band_bits, row_bits.reshape(bands, height))
    cols = _line_order(stack_bits, col_bits.reshape(stacks, width))
    cells = rows[:, None] * size + cols[None, :]
    if height == width:
        cells = jnp.where(flip_bit[0] % 2 == 1, cells.T, cells)
    return Symmetry(random_order(digit_bits) + 2, cells.reshape(-1))


def _line_order(block_bits: jax.Array, line_bits: jax.Array) -> jax.Array:
    """A random order of rows (or columns): blocks [b] shuffled, and lines [b, n] within each."""
    within = jax.vmap(random_order)(line_bits)
    return (random_order(block_bits)[:, None] * line_bits.shape[1] + within).reshape(-1)


def canonical(boards: Array, shape: SudokuShape) -> Array:
    """The lexicographically least grid that symmetries make of each solution grid [cells].

    Two grids are equivalent exactly when their canonical forms are equal. The first row of the
    least grid is 1 … N; for each choice of first row, column order (and transposition) that fixes
    the relabelling, and rows and bands sorted by their first digit are least. Most choices lose
    to the best one so far within the second row.
    """
    boards = np.asarray(boards)
    solved = is_solution(boards, shape)
    if not solved.all():
        raise DataError(f"boards, row {int(np.argmin(solved))}: is no full valid grid")
    size, width = shape.size, shape.box_cols
    within = list(itertools.permutations(range(width)))
    orders = [
        [
            block * width + line
            for block, lines in zip(blocks, chosen, strict=True)
            for line in lines
        ]
        for blocks in itertools.permutations(range(size // width))
        for chosen in itertools.product(within, repeat=size // width)
    ]
    columns = np.array(orders, np.int64)
    places = np.argsort(columns, axis=1)
    grids = np.ascontiguousarray(boards.reshape(-1, size, size), np.int64) - 1
    best = np.empty(grids.shape, np.int64)
    square = shape.box_rows == shape.box_cols
    _least(grids, columns, places, shape.box_rows, square, best)
    return (best.reshape(boards.shape) + 1).astype(np.int8)


@compiled
def _least(
    grids: np.ndarray,
    columns: np.ndarray,
    places: np.ndarray,
    height: int,
    square: bool,
    least: np.ndarray,
) -> None:
    """Fills `least` [E, N, N] for digits 0 to N - 1; `places` are the inverses of `columns`."""
    size = grids.shape[1]
    column_of = np.empty(size, np.int64)
    order = np.empty(size, np.int64)
    start = np.empty(size, np.int64)
    grid = np.empty((size, size), np.int64)
    for e in range(len(grids)):
        best = least[e]
        best[:] = size
        best[0] = np.arange(size)
        for turn in range(2 if square else 1):
            for r in range(size):
                for c in range(size):
                    grid[r, c] = grids[e, c, r] if turn else grids[e, r, c]
            for first in range(size):
                for c in range(size):
                    column_of[grid[first, c]] = c
                band = first - first % height
                for k in range(len(columns)):
                    # Row that comes second: the rest of the first row's band, least digit first.
                    second, low = -1, size
                    for r in range(band, band + height):
                        if r != first:
                            value = places[k, column_of[grid[r, columns[k, 0]]]]
                            if value < low:
                                second, low = r, value
                    verdict = low - best[1, 0]
                    c = 1
                    while verdict == 0 and c < size:
                        verdict = places[k, column_of[grid[second, columns[k, c]]]] - best[1, c]
                        c += 1
                    if verdict > 0:
                        continue
                    # Order all rows: `first`, the rest of its band, then the bands by first digit.
                    for r in range(size):
                        start[r] = places[k, column_of[grid[r, columns[k, 0]]]]
                        order[r] = r
                    for r in range(size):  # insertion sort inside each band
                        j = r
                        while j % height and start[order[j]] < start[order[j - 1]]:
                            order[j], order[j - 1] = order[j - 1], order[j]
                            j -= 1
                    for b in range(height, size, height):  # insertion sort of whole bands
                        j = b
                        while j and start[order[j]] < start[order[j - height]]:
                            for i in range(height):
                                order[j + i], order[j - height + i] = (
                                    order[j - height + i],
                                    order[j + i],
                                )
                            j -= height
                    r = 1
                    c = 0
                    while verdict == 0 and r < size:
                        value = places[k, column_of[grid[order[r], columns[k, c]]]]
                        verdict = value - best[r, c]
                        c += 1
                        if c == size:
                            c = 0
                            r += 1
                    if verdict < 0:
                        for r in range(1, size):
                            for c in range(size):
                                best[r, c] = places[k, column_of[grid[order[r], columns[k, c]]]]

"""Grids as tokens on a square canvas: 0 pad, 1 end of the grid, colour + 2."""

from __future__ import annotations

import math

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.arc.reader import COLOURS, Grid
from hrm_jax.puzzles.base import Array

PAD = 0
EOS = 1
FIRST_COLOUR = 2
VOCAB_SIZE = FIRST_COLOUR + COLOURS


def encode(grid: Grid, canvas: int, row: int = 0, column: int = 0) -> Array:
    """Places a grid [H, W] with its first cell at (row, column): uint8 [canvas · canvas].

    Its end is marked: the row below it holds EOS in the grid's columns, the column right of it in
    the grid's rows, each where it is still on the canvas, as in the reference.
    """
    height, width = grid.shape
    below, right = row + height, column + width
    if row < 0 or column < 0 or below > canvas or right > canvas:
        raise DataError(
            f"a {height}×{width} grid at row {row}, column {column} does not fit a "
            f"{canvas}×{canvas} canvas"
        )
    tokens = np.full((canvas, canvas), PAD, np.uint8)
    tokens[row:below, column:right] = grid + FIRST_COLOUR
    if below < canvas:
        tokens[below, column:right] = EOS
    if right < canvas:
        tokens[row:below, right] = EOS
    return tokens.reshape(-1)


def decode(tokens: Array) -> Grid:
    """The grid at the origin, uint8 [H, W]; any tokens give one, see `grid_sizes`."""
    canvas = canvas_side(tokens.shape[-1])
    (height,), (width,) = grid_sizes(tokens[None])
    return (tokens.reshape(canvas, canvas)[:height, :width] - FIRST_COLOUR).astype(np.uint8)


def grid_sizes(tokens: Array) -> tuple[Array, Array]:
    """Height and width [N] of the largest rectangle of colours at the origin of each canvas.

    Of several of the largest area it is the one with the fewest rows, 0×0 where the first token is
    no colour (pad, end, or outside the vocabulary). This is the reference's crop.
    """
    canvas = canvas_side(tokens.shape[-1])
    grids = tokens.reshape(-1, canvas, canvas)
    coloured = (grids >= FIRST_COLOUR) & (grids < VOCAB_SIZE)
    runs = np.logical_and.accumulate(coloured, axis=2).sum(2)
    widths = np.minimum.accumulate(runs, axis=1)  # [N, canvas]: of the first h + 1 rows
    best = np.argmax(widths * np.arange(1, canvas + 1), axis=1)
    width = widths[np.arange(len(grids)), best]
    return np.where(width > 0, best + 1, 0), width


def canvas_side(seq_len: int) -> int:
    """The side of the square canvas with that many tokens."""
    side = math.isqrt(seq_len)
    if side * side != seq_len or not side:
        raise DataError(f"seq_len is {seq_len}, expected a square: canvas · canvas tokens")
    return side

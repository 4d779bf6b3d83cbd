"""Boards of digits: text, tokens, and the rule that none stands twice in a unit."""

from __future__ import annotations

import functools

import numpy as np

from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.boards import BoardShape, read_board

UNITS = ("row", "column", "box")


class DigitShape(BoardShape):
    """Size of a board of N rows, columns and digits; N is at most 9."""

    size: int

    def sides(self) -> tuple[int, int]:
        return self.size, self.size

    @property
    def vocab_size(self) -> int:
        """Tokens: 0 pad, 1 blank, digit + 1."""
        return self.size + 2

    def units(self) -> Array:
        """The cells of each row, then column, and then others: int64 [2N or 3N, N]."""
        grid = np.arange(self.cells).reshape(self.size, self.size)
        return np.concatenate([grid, grid.T])


def parse(text: str, shape: DigitShape) -> Array:
    """Reads a board: digits, 0 for a blank (in the text `.` or `0`), int8 [cells]."""
    return read_board(text, shape, digits_of_text(shape), f"a digit 1 to {shape.size}, . or 0")


def digits_of_text(shape: DigitShape) -> dict[str, int]:
    """The digit (0 for a blank) that each legal character stands for."""
    return {".": 0} | {str(digit): digit for digit in range(shape.size + 1)}


def to_text(board: Array) -> str:
    """Formats digits [cells] as one line, `.` for a blank; `parse` inverts it."""
    return "".join(str(digit) if digit else "." for digit in board.tolist())


def to_tokens(boards: Array) -> Array:
    """Digits (0 blank) as tokens (digit + 1), uint8 of the same shape."""
    return (boards + 1).astype(np.uint8)


def from_tokens(tokens: Array) -> Array:
    """Tokens as digits, int8 of the same shape; pad, which a model may predict, becomes a blank."""
    return np.maximum(tokens.astype(np.int64) - 1, 0).astype(np.int8)


def check_rules(boards: Array, shape: DigitShape) -> Array:
    """Whether boards of digits [..., cells], 0 for a blank, repeat none in a unit, bool [...]."""
    in_units = np.sort(boards[..., shape.units()], axis=-1)
    repeats = (in_units[..., 1:] == in_units[..., :-1]) & (in_units[..., 1:] != 0)
    legal = ((boards >= 0) & (boards <= shape.size)).all(-1)
    return np.asarray(legal & ~repeats.any((-1, -2)))


def is_solution(boards: Array, shape: DigitShape) -> Array:
    """Whether a board is full and keeps the rules: digits [..., cells] to bool [...]."""
    return np.asarray(check_rules(boards, shape) & (boards > 0).all(-1))


@functools.cache
def peers(shape: DigitShape) -> Array:
    """Which cells share a unit with each cell, float32 [cells, cells], 1 where they do."""
    together = np.zeros((shape.cells, shape.cells), np.float32)
    for unit in shape.units():
        together[np.ix_(unit, unit)] = 1
    np.fill_diagonal(together, 0)
    return together


def contradictions(board: Array, shape: DigitShape) -> str | None:
    """The first repeated digit of a board [cells] in words; None if there is none."""
    for index, cells in enumerate(shape.units()):
        digits = board[cells]
        for digit in range(1, shape.size + 1):
            found = cells[digits == digit]
            if len(found) > 1:
                unit = f"{UNITS[index // shape.size]} {index % shape.size + 1}"
                first, second = (shape.place(int(cell)) for cell in found[:2])
                return f"digit {digit} stands twice in {unit}: at {first} and {second}"
    return None

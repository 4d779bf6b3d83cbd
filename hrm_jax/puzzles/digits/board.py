"""Boards of digits: text, tokens, and the rule that none stands twice in a unit."""

from __future__ import annotations

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.boards import BoardShape

UNITS = ("row", "column", "box")


class DigitShape(BoardShape):
    """Size of a board of N rows, columns and digits; N is at most 9."""

    size: int

    def sides(self) -> tuple[int, int]:
        """Rows and columns, N of each."""
        return self.size, self.size

    @property
    def vocab_size(self) -> int:
        """Tokens: 0 pad, 1 blank, digit + 1."""
        return self.size + 2

    def units(self) -> Array:
        """Returns the cells of each row, then column, and then others: int64 [2N or 3N, N]."""
        grid = np.arange(self.cells).reshape(self.size, self.size)
        return np.concatenate([grid, grid.T])


def parse(text: str, shape: DigitShape) -> Array:
    """Reads a board from one line of text: digits, 0 for a blank, int8 [cells].

    The text has a character per cell, row by row: a digit, or `.` or `0` for a blank.

    Raises:
        DataError: Wrong length, or a character that is none of these.
    """
    if len(text) != shape.cells:
        raise DataError(f"board has {len(text)} characters, expected {shape.cells}")
    legal = digits_of_text(shape)
    for cell, character in enumerate(text):
        if character not in legal:
            raise DataError(
                f"{shape.place(cell)}: {character!r} is neither a digit 1 to {shape.size} "
                f"nor a blank (. or 0)"
            )
    return np.array([legal[character] for character in text], np.int8)


def digits_of_text(shape: DigitShape) -> dict[str, int]:
    """Returns the digit (0 for a blank) that each legal character stands for."""
    return {".": 0} | {str(digit): digit for digit in range(shape.size + 1)}


def to_text(board: Array) -> str:
    """Formats digits [cells] as one line, `.` for a blank; `parse` inverts it."""
    return "".join(str(digit) if digit else "." for digit in board.tolist())


def to_tokens(boards: Array) -> Array:
    """Turns digits (0 blank) into tokens (digit + 1), uint8 of the same shape."""
    return (boards + 1).astype(np.uint8)


def from_tokens(tokens: Array) -> Array:
    """Turns tokens into digits, int8 of the same shape; pad (0) becomes a blank like token 1.

    A model may predict pad, which has no digit; a blank is not a solution either.
    """
    return np.maximum(tokens.astype(np.int64) - 1, 0).astype(np.int8)


def check_rules(boards: Array, shape: DigitShape) -> Array:
    """Says whether no digit repeats in a unit, bool [...]; blanks are allowed.

    Boards are digits, 0 for a blank [..., cells]; with other values the rules are not kept.
    """
    in_units = np.sort(boards[..., shape.units()], axis=-1)
    repeats = (in_units[..., 1:] == in_units[..., :-1]) & (in_units[..., 1:] != 0)
    legal = ((boards >= 0) & (boards <= shape.size)).all(-1)
    return np.asarray(legal & ~repeats.any((-1, -2)))


def is_solution(boards: Array, shape: DigitShape) -> Array:
    """Says whether a board is full and keeps the rules: digits [..., cells] to bool [...]."""
    return np.asarray(check_rules(boards, shape) & (boards > 0).all(-1))


def contradictions(board: Array, shape: DigitShape) -> str | None:
    """Describes the first repeated digit of a board [cells], or returns None if there is none."""
    for index, cells in enumerate(shape.units()):
        digits = board[cells]
        for digit in range(1, shape.size + 1):
            found = cells[digits == digit]
            if len(found) > 1:
                unit = f"{UNITS[index // shape.size]} {index % shape.size + 1}"
                first, second = (shape.place(int(cell)) for cell in found[:2])
                return f"digit {digit} stands twice in {unit}: at {first} and {second}"
    return None

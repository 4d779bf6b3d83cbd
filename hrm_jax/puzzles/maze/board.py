"""Maze boards: shapes, text, tokens and what makes a question.

A board is a row of tokens, cell by cell and row by row: 0 pad, then the characters of `# SGo` in
this order. A question has walls, free cells, one start and one goal; an answer marks the cells of
a shortest path between them with `o`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.boards import BoardShape, read_board

CHARACTERS = "# SGo"
PAD, WALL, FREE, START, GOAL, PATH = range(6)
VOCAB_SIZE = 6


@dataclasses.dataclass(frozen=True)
class MazeShape(BoardShape):
    """Rows and columns of a board."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.cells < 2:
            raise DataError(f"maze shape is {self}, expected room for start and goal")

    @classmethod
    def for_cells(cls, n_cells: int) -> MazeShape:
        """The square shape with so many cells."""
        side = math.isqrt(max(0, n_cells))
        if side < 2 or side * side != n_cells:
            raise DataError(
                f"{n_cells} cells make no square maze; blanks at both ends are cells too "
                f"(give height and width if the maze is not square)"
            )
        return cls(side, side)

    def sides(self) -> tuple[int, int]:
        return self.height, self.width


def parse(text: str, shape: MazeShape | None = None) -> Array:
    """Reads a board, of the square shape if of none: tokens, uint8 [cells].

    Blanks are cells: do not strip the line.
    """
    values = {character: token for token, character in enumerate(CHARACTERS, 1)}
    shape = shape or MazeShape.for_cells(len(text))
    return read_board(text, shape, values, f"one of {CHARACTERS!r}").astype(np.uint8)


def is_question(boards: Array) -> Array:
    """Whether boards [..., cells] hold walls, free cells, one start and one goal alone, bool [...].

    A path from start to goal need not exist.
    """
    legal = ((boards >= WALL) & (boards <= GOAL)).all(-1)
    starts, goals = (boards == START).sum(-1), (boards == GOAL).sum(-1)
    return np.asarray(legal & (starts == 1) & (goals == 1))


def problem(board: Array, shape: MazeShape) -> str | None:
    """Why a board [cells] is no question; None where `is_question` holds."""
    illegal = (board < WALL) | (board > GOAL)
    if illegal.any():
        cell = int(np.argmax(illegal))
        names = {PAD: "pad", PATH: "a path cell (o)"}
        token = int(board[cell])
        return (
            f"{shape.place(cell)}: {names.get(token, f'token {token}')}, "
            f"expected a wall, a free cell, S or G"
        )
    for token, name in ((START, "S"), (GOAL, "G")):
        count = int((board == token).sum())
        if count != 1:
            return f"there are {count} cells {name}, expected 1" if count else f"there is no {name}"
    return None

"""Pictures of puzzles: one function for each kind, which draws a board with its wrong cells."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax.puzzles.arc.tokens import decode as decode_grid
from hrm_jax.puzzles.domino.encoding import HAND, TABLE
from hrm_jax.puzzles.domino.text import move_text
from hrm_jax.puzzles.drawing.pen import (
    BLACK,
    BLUE,
    CHANGED,
    DIM,
    GREEN,
    GREY,
    RED,
    WHITE,
    WRONG,
    Pen,
)
from hrm_jax.puzzles.maze.board import FREE, GOAL, PATH, START, WALL, MazeShape
from hrm_jax.puzzles.sudoku.board import SudokuShape

Array = npt.NDArray[Any]

ARC_COLOURS = (
    *("#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00"),
    *("#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25"),
)

_WALL, _WRONG_WALL, _PATH = "#3c4048", "#8c3a44", "#bcd7f7"
_HALF, _GAP, _NAME = 18, 3, 15  # pixels: half a domino tile, between tiles, a line of text


def draw_sudoku(
    pen: Pen, side: int, question: Array, board: Array, label: Array | None = None
) -> None:
    """Draws a Sudoku: givens bold and black, what was filled in blue, wrong cells red.

    Args:
        pen: Where to draw; the top left corner is its origin.
        side: Most pixels of a side.
        question: Tokens [cells].
        board: Tokens of the board to draw [cells]; `?` for what is no digit.
        label: Tokens of the right answer, if cells that differ are to be marked; 0 is not compared.
    """
    wrong = _wrong(board, label)
    shape = SudokuShape.for_cells(len(board))
    cell = min(32, side // shape.size)
    whole = cell * shape.size
    for place, (given, token) in enumerate(zip(question.tolist(), board.tolist(), strict=True)):
        row, col = divmod(place, shape.size)
        x, y = col * cell, row * cell
        if wrong[place]:
            pen.box(x, y, cell, cell, WRONG)
        if token != 1:
            ink = RED if wrong[place] else BLACK if given > 1 else BLUE
            digit = str(token - 1) if 2 <= token <= shape.size + 1 else "?"
            middle = (x + cell / 2, y + cell / 2)
            pen.text(*middle, digit, 0.64 * cell, ink, bold=given > 1, anchor="mm")
    for thick, ink in ((False, GREY), (True, BLACK)):  # the thick ones last, on top
        for i in range(shape.size + 1):
            if (i % shape.box_cols == 0) == thick:
                pen.line([(i * cell, 0), (i * cell, whole)], ink, 1 + 0.5 * thick)
            if (i % shape.box_rows == 0) == thick:
                pen.line([(0, i * cell), (whole, i * cell)], ink, 1 + 0.5 * thick)


def draw_maze(
    pen: Pen,
    side: int,
    question: Array,
    board: Array,
    label: Array | None = None,
    *,
    shape: MazeShape | None = None,
    before: Array | None = None,
) -> None:
    """Draws a maze with the path it marks; S is green, G red, wrong cells are red.

    Args:
        pen: Where to draw; the top left corner is its origin.
        side: Most pixels of a line.
        question: Tokens [cells]; not drawn.
        board: Tokens of the board to draw [cells]; `?` for what is none.
        label: Tokens of the right answer, if cells that differ are to be marked; 0 is not compared.
        shape: Shape of the maze; None for a square.
        before: Tokens of another board [cells]; cells that differ are yellow, or framed so.
    """
    shape = shape or MazeShape.for_cells(len(board))
    cell = side // shape.width
    changed = board != (board if before is None else before)
    grid, marks, changes = (
        x.reshape(shape.height, shape.width) for x in (board, _wrong(board, label), changed)
    )
    fills = {WALL: _WALL, FREE: WHITE, PATH: _PATH, START: GREEN, GOAL: RED}
    for (row, col), token in np.ndenumerate(grid):
        fill = fills.get(token, WRONG)
        if marks[row, col]:
            fill = _WRONG_WALL if token == WALL else WRONG
        if changes[row, col] and token != WALL:
            fill = CHANGED
        edge = CHANGED if changes[row, col] else None
        pen.box(col * cell, row * cell, cell, cell, fill, edge, max(1, cell / 8))
    on_path = (grid >= START) & (grid <= PATH)
    thick = max(1.5, cell / 5)
    for row, col in np.argwhere(on_path).tolist():
        x, y = (col + 0.5) * cell, (row + 0.5) * cell
        for down, right in ((1, 0), (0, 1)):
            other = (row + down, col + right)
            if other[0] < shape.height and other[1] < shape.width and on_path[other]:
                pen.line([(x, y), (x + right * cell, y + down * cell)], BLUE, thick)
        pen.dot(x, y, 0.7 * thick, BLUE)
    for (row, col), token in np.ndenumerate(grid):
        x, y = col * cell, row * cell
        letter = {START: "S", GOAL: "G"}.get(token, "" if token in fills else "?")
        if letter:
            pen.box(x, y, cell, cell, fills.get(token, WRONG))
        if letter and cell >= 9:
            ink = RED if letter == "?" else WHITE
            pen.text(x + cell / 2, y + cell / 2, letter, 0.7 * cell, ink, bold=True, anchor="mm")
        if marks[row, col]:
            pen.box(x, y, cell, cell, edge=RED, thick=max(1, cell / 10))
    pen.box(-1, -1, cell * shape.width + 2, cell * shape.height + 2, edge=BLACK)


def draw_arc(
    pen: Pen, side: int, question: Array, board: Array, label: Array | None = None
) -> None:
    """Draws a grid in the usual ten colours; cells that are not those of the label are crossed.

    Args:
        pen: Where to draw; the top left corner is its origin.
        side: Most pixels of a side.
        question: Tokens [canvas · canvas]; not drawn.
        board: Tokens to draw [canvas · canvas], of which `decode` reads the grid.
        label: Tokens of the grid it should be; nothing is crossed if that has another size.
    """
    grid = decode_grid(board)
    if not grid.size:
        pen.text(0, 0, "no grid", ink=RED)
        return
    wrong = np.zeros(grid.shape, bool)
    if label is not None and (right := decode_grid(label)).shape == grid.shape:
        wrong = right != grid
    height, width = grid.shape
    cell = min(28, side // max(height, width))
    for row, col in itertools.product(range(height), range(width)):
        x, y = col * cell, row * cell
        pen.box(x, y, cell, cell, ARC_COLOURS[grid[row, col]], "#606060", 0.5)
        if wrong[row, col]:
            near, far = 0.25 * cell, 0.75 * cell
            for ink, thick in ((BLACK, max(2.0, cell / 6)), (WHITE, max(1.0, cell / 12))):
                pen.line([(x + near, y + near), (x + far, y + far)], ink, thick)
                pen.line([(x + near, y + far), (x + far, y + near)], ink, thick)


def _wrong(board: Array, label: Array | None) -> Array:
    """Which cells differ from the label, bool [cells]."""
    return np.zeros(len(board), bool) if label is None else (label != 0) & (board != label)


def domino_height(side: int, question: Array) -> int:
    """Pixels that `draw_domino` needs for a position [72] on lines of `side` pixels."""
    lines = sum(len(_tile_lines(side, question[part])) for part in (TABLE, HAND))
    return lines * (_HALF + _GAP) + 2 * _NAME + 20


def draw_domino(
    pen: Pen, side: int, question: Array, answer: Array, label: Array, good: bool
) -> None:
    """Draws a position: the table line by line, the hand, and the move in words.

    In the hand the tile of the right move has a green edge, another one that was chosen a red or,
    if it is good too, a blue one.

    Args:
        pen: Where to draw; the top left corner is its origin.
        side: Most pixels of a line.
        question: Tokens of the position [72].
        answer: Predicted tokens, the first three of which are the move.
        label: Tokens of the right move.
        good: Whether the answer counts as solved.
    """
    ink = GREEN if (answer[:3] == label[:3]).all() else BLUE if good else RED
    right, chosen = sorted(label[:2].tolist()), sorted(answer[:2].tolist())
    y = 0
    for name, part in (("table", TABLE), ("hand", HAND)):
        lines = _tile_lines(side, question[part])
        pen.text(0, y, name if lines else f"{name}: empty", 11, DIM)
        y += _NAME
        for line in lines:
            for place, pair in enumerate(line):
                edge = BLACK
                if part == HAND and sorted(pair) in (right, chosen):
                    edge = GREEN if sorted(pair) == right else ink
                _draw_tile(pen.at(place * (2 * _HALF + _GAP), y), pair, edge)
            y += _HALF + _GAP
    pen.text(0, y + 2, f"model: {move_text(answer)}", ink=ink, bold=True)
    if ink != GREEN:
        pen.text(side / 2, y + 2, f"right: {move_text(label)}", ink=GREEN, bold=True)


def _tile_lines(side: int, tokens: Array) -> list[list[list[int]]]:
    """The tiles among tokens [2 · places], in lines of `side` pixels."""
    tiles = [pair for pair in tokens.reshape(-1, 2).tolist() if any(pair)]
    beside = (side + _GAP) // (2 * _HALF + _GAP)
    return [tiles[i : i + beside] for i in range(0, len(tiles), beside)]


def _draw_tile(pen: Pen, pair: Sequence[int], edge: str) -> None:
    """A tile that lies: the pips of its halves as on a die on its side."""
    pen.box(0, 0, 2 * _HALF, _HALF, "#fffdf5", edge, 1 if edge == BLACK else 2.5, radius=3)
    pen.line([(_HALF, 3), (_HALF, _HALF - 3)], GREY)
    near, middle, far = 0.25 * _HALF, 0.5 * _HALF, 0.75 * _HALF
    corners = [(near, near), (far, far), (near, far), (far, near)]
    sides = [(middle, near), (middle, far)]
    for half, token in enumerate(pair):
        pips = token - 1
        if not 0 <= pips <= 6:
            pen.text((half + 0.5) * _HALF, middle, "?", 12, RED, bold=True, anchor="mm")
            continue
        dots = [(middle, middle)] * (pips % 2) + corners[: pips // 2 * 2] + sides * (pips == 6)
        for x, y in dots:
            pen.dot(half * _HALF + x, y, 1.9, BLACK)

"""A maze being solved, ACT step by ACT step: for the terminal, as a picture, as an animation."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from hrm_jax.puzzles.drawing.frames import Path, save_gif, save_png
from hrm_jax.puzzles.drawing.pen import Pen
from hrm_jax.puzzles.drawing.puzzle_pictures import draw_maze
from hrm_jax.puzzles.drawing.terminal import ANSI_END, side_by_side
from hrm_jax.puzzles.maze.board import CHARACTERS, MazeShape

_FILLS = {"#": "\x1b[100m", "o": "\x1b[44m", "S": "\x1b[1;32m", "G": "\x1b[1;31m", " ": ""}
_CHANGED = "\x1b[30;43m"
_MARGIN, _TITLE, _TITLE_WIDTH = 14, 30, 120  # pixels


def trace_text(
    boards: Sequence[str], shape: MazeShape, *, colour: bool = False, width: int = 80
) -> str:
    """Prints the boards after each ACT step for a terminal, as many side by side as fit.

    Args:
        boards: The boards after each step, one of `# SGo` per cell; anything else is shown as `?`.
        shape: Shape of the boards.
        colour: Whether to mark by ANSI colours, with two columns for a cell, instead of `O` for a
            path cell that is new since the step before and `x` for one that is none any more.
        width: Columns of the terminal.

    Returns:
        Lines, the last one a legend.

    Raises:
        ValueError: There are no boards, or one has the wrong length.
    """
    panels = [frame.split("\n") for frame in trace_frames(boards, shape, colour=colour)]
    return f"{side_by_side(panels, len(panels[0][0]), width)}\n\n{legend(colour)}\n"


def trace_frames(boards: Sequence[str], shape: MazeShape, *, colour: bool = False) -> list[str]:
    """The boards after each ACT step as text, one by one; arguments and errors as of `trace_text`.

    Returns:
        Lines for each step, of the same number for all.
    """
    _check(boards, shape)
    columns = shape.width * (1 + colour)
    rule = f"+{'-' * columns}+"
    frames = []
    for step, (before, board) in enumerate(itertools.pairwise((boards[0], *boards)), 1):
        cells = [_cell(old, new, colour) for old, new in zip(before, board, strict=True)]
        rows = ["".join(cells[i : i + shape.width]) for i in range(0, len(cells), shape.width)]
        title = _title(step, boards).center(len(rule))
        margin = " " * (len(title) - len(rule))  # of boards that are narrower than their title
        lines = [rule, *(f"|{row}|" for row in rows), rule]
        frames.append("\n".join([title, *(line + margin for line in lines)]))
    return frames


def legend(colour: bool) -> str:
    """What the marks of `trace_text` mean, in one line."""
    if colour:
        marks = {"wall": _FILLS["#"], "path": _FILLS["o"], "changed": _CHANGED}
        return "   ".join(f"{code} {name} {ANSI_END}" for name, code in marks.items())
    return "# wall   o path   O path since this step   x no path any more   ? none of these"


def _cell(old: str, new: str, colour: bool) -> str:
    character = new if new in CHARACTERS else "?"
    if colour:
        code = _CHANGED if old != new else _FILLS.get(character, "\x1b[31m")
        shown = " " if character in "#o" and old == new else character
        return f"{code}{shown} {ANSI_END}" if code else "  "
    if old == new:
        return character
    return "O" if new == "o" else "x" if (old, new) == ("o", " ") else character


def _check(boards: Sequence[str], shape: MazeShape) -> None:
    if not boards:
        raise ValueError("boards: expected the board after at least one step, got none")
    for step, board in enumerate(boards, 1):
        if len(board) != shape.cells:
            raise ValueError(
                f"board after step {step}: expected {shape.cells} characters, got {len(board)}"
            )


def _title(step: int, boards: Sequence[str]) -> str:
    return f"ACT step {step}/{len(boards)}"


def trace_png(path: Path, boards: Sequence[str], shape: MazeShape) -> pathlib.Path:
    """Draws the boards after each ACT step on one contact sheet.

    They are drawn as by `puzzle_pictures.draw_maze`; cells that changed since the step before are
    yellow.

    Args:
        path: PNG file to write, atomically.
        boards, shape: As in `trace_text`.

    Returns:
        `path`.

    Raises:
        ValueError: As in `trace_text`.
        OSError: The file cannot be written.
    """
    return save_png(path, _pictures(boards, shape))


def trace_gif(
    path: Path, boards: Sequence[str], shape: MazeShape, *, ms_per_frame: int = 600
) -> pathlib.Path:
    """Draws the boards after each ACT step as an endless animation, one frame each.

    Args:
        path: GIF file to write, atomically.
        boards, shape: As in `trace_text`; drawn as in `trace_png`.
        ms_per_frame: As in `hrm_jax.puzzles.drawing.frames.save_gif`.

    Returns:
        `path`.

    Raises:
        ValueError: As in `trace_text` and `save_gif`.
        OSError: The file cannot be written.
    """
    return save_gif(path, _pictures(boards, shape), ms_per_frame)


def _pictures(boards: Sequence[str], shape: MazeShape) -> list[Image.Image]:
    _check(boards, shape)
    cell = max(8, min(28, 420 // max(shape.height, shape.width)))
    width, height = cell * shape.width, cell * shape.height
    tokens = np.array([[CHARACTERS.find(c) + 1 for c in board] for board in boards], np.uint8)
    pictures = []
    for step, (before, board) in enumerate(itertools.pairwise((tokens[0], *tokens)), 1):
        pen = Pen(max(width, _TITLE_WIDTH) + 2 * _MARGIN, height + _TITLE + _MARGIN)
        pen.text(_MARGIN, _TITLE / 2, _title(step, boards), 15, anchor="lm")
        draw_maze(pen.at(_MARGIN, _TITLE), width, board, board, shape=shape, before=before)
        pictures.append(pen.image())
    return pictures

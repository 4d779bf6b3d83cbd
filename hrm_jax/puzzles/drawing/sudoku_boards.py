"""A Sudoku being solved, ACT step by ACT step: for the terminal, as a picture, as an animation."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from hrm_jax.puzzles.drawing.frames import Path, save_gif, save_png
from hrm_jax.puzzles.drawing.pen import BLACK, BLUE, CHANGED, GREY, RED, WHITE, font
from hrm_jax.puzzles.drawing.terminal import ANSI_END, side_by_side
from hrm_jax.puzzles.sudoku.board import SudokuShape, digits_of_text

Array = npt.NDArray[Any]

_CELL, _MARGIN, _TITLE = 36, 14, 30  # pixels

_ANSI = {"given": "\x1b[1m", "filled": "\x1b[34m", "changed": "\x1b[30;43m", "conflict": "\x1b[31m"}


@dataclasses.dataclass(frozen=True)
class _Trace:
    """The boards after each of K steps, and what is to be said about their cells.

    Attributes:
        shape: Shape of the boards.
        given: Cells that the question gives [cells].
        digits: Digits, 0 blank, −1 anything else [K, cells].
        changed: Cells that differ from the step before [K, cells]; none at the first step.
        conflict: Digits that repeat in a row, column or box, or contradict a given [K, cells].
    """

    shape: SudokuShape
    given: Array
    digits: Array
    changed: Array
    conflict: Array

    @property
    def titles(self) -> list[str]:
        total = len(self.digits)
        return [f"ACT step {k}/{total}" for k in range(1, total + 1)]


def _trace(question_text: str, boards: Sequence[str], size: int) -> _Trace:
    shape = SudokuShape.of(size)
    if not boards:
        raise ValueError("boards: expected the board after at least one step, got none")
    texts = {"question": question_text}
    texts |= {f"board after step {k}": text for k, text in enumerate(boards, 1)}
    for name, text in texts.items():
        if len(text) != shape.cells:
            raise ValueError(f"{name}: expected {shape.cells} characters, got {len(text)}")
    question = _digits(question_text, shape)
    digits = np.stack([_digits(text, shape) for text in boards])
    changed = np.zeros(digits.shape, bool)
    changed[1:] = digits[1:] != digits[:-1]
    given = question > 0
    return _Trace(
        shape, given, digits, changed, _repeats(digits, shape) | given & (digits != question)
    )


def _digits(text: str, shape: SudokuShape) -> Array:
    legal = digits_of_text(shape)
    return np.array([legal.get(character, -1) for character in text])


def _repeats(digits: Array, shape: SudokuShape) -> Array:
    """Cells whose digit stands again in their row, column or box: bool [K, cells]."""
    result = np.zeros(digits.shape, bool)
    for cells in shape.units():
        unit = digits[:, cells]  # [K, N]
        same = unit[:, :, None] == unit[:, None, :]
        result[:, cells] |= (same.sum(-1) > 1) & (unit > 0)
    return result


def _character(digit: int) -> str:
    return {0: ".", -1: "?"}.get(digit, str(digit))


def trace_text(
    question_text: str,
    boards: Sequence[str],
    size: int,
    *,
    colour: bool = False,
    width: int = 80,
) -> str:
    """Prints the boards after each ACT step for a terminal, as many side by side as fit.

    Args:
        question_text: The question, one character per cell: a digit, or `.` or `0` for a blank.
        boards: The boards after each step, in the same form; any other character is shown as `?`.
        size: 4, 6 or 9.
        colour: Whether to mark by ANSI colours (bold given, blue filled, on yellow changed, red
            breaking a rule) instead of `[5]` given and `*5` changed.
        width: Columns of the terminal.

    Returns:
        Lines, the last one a legend.

    Raises:
        ValueError: There are no boards, one has the wrong length, or no Sudoku has that size.
    """
    trace = _trace(question_text, boards, size)
    panels = [_panel(trace, k, colour) for k in range(len(boards))]
    panel_width = size * 3 + size // trace.shape.box_cols - 1
    return f"{side_by_side(panels, panel_width, width)}\n\n{legend(colour)}\n"


def trace_frames(
    question_text: str, boards: Sequence[str], size: int, *, colour: bool = False
) -> list[str]:
    """The boards after each ACT step as text, one by one; arguments and errors as of `trace_text`.

    Returns:
        Lines for each step, of the same number for all.
    """
    trace = _trace(question_text, boards, size)
    return ["\n".join(_panel(trace, k, colour)) for k in range(len(boards))]


def legend(colour: bool) -> str:
    """What the marks of `trace_text` mean, in one line."""
    if colour:
        return "   ".join(f"{code}{name}{ANSI_END}" for name, code in _ANSI.items())
    return "[5] given   *5 changed since the step before   ? no digit"


def _panel(trace: _Trace, k: int, colour: bool) -> list[str]:
    """The lines of one board, title first; all of the same width on the screen."""
    shape = trace.shape
    rule = "+".join(["-" * 3 * shape.box_cols] * (shape.size // shape.box_cols))
    lines = [trace.titles[k].center(len(rule))]
    for row in range(shape.size):
        if row and row % shape.box_rows == 0:
            lines.append(rule)
        cells = [_cell(trace, k, row * shape.size + col, colour) for col in range(shape.size)]
        starts = range(0, shape.size, shape.box_cols)
        lines.append("|".join("".join(cells[i : i + shape.box_cols]) for i in starts))
    return lines


def _cell(trace: _Trace, k: int, cell: int, colour: bool) -> str:
    character = _character(int(trace.digits[k, cell]))
    given, changed = trace.given[cell], trace.changed[k, cell]
    if not colour:
        return f"{'*' if changed else '[' if given else ' '}{character}{']' if given else ' '}"
    codes = _ANSI["given"] if given else _ANSI["filled"]
    codes += _ANSI["changed"] if changed else ""
    codes += _ANSI["conflict"] if trace.conflict[k, cell] else ""
    return f"{codes} {character} {ANSI_END}"


def trace_png(path: Path, question_text: str, boards: Sequence[str], size: int) -> pathlib.Path:
    """Draws the boards after each ACT step on one contact sheet.

    Givens are bold and black, what was filled in blue, what breaks a rule or contradicts a given
    red; cells that changed since the step before are on yellow.

    Args:
        path: PNG file to write, atomically.
        question_text, boards, size: As in `trace_text`.

    Returns:
        `path`.

    Raises:
        ValueError: As in `trace_text`.
        OSError: The file cannot be written.
    """
    return save_png(path, _pictures(_trace(question_text, boards, size)))


def trace_gif(
    path: Path, question_text: str, boards: Sequence[str], size: int, *, ms_per_frame: int = 600
) -> pathlib.Path:
    """Draws the boards after each ACT step as an endless animation, one frame each.

    Args:
        path: GIF file to write, atomically.
        question_text, boards, size: As in `trace_text`; drawn as in `trace_png`.
        ms_per_frame: Milliseconds a frame is shown; the last one stays three times as long.

    Returns:
        `path`.

    Raises:
        ValueError: As in `trace_text`, or `ms_per_frame` is less than 10, the GIF's unit.
        OSError: The file cannot be written.
    """
    return save_gif(path, _pictures(_trace(question_text, boards, size)), ms_per_frame)


def _pictures(trace: _Trace) -> list[Image.Image]:
    return [_picture(trace, k) for k in range(len(trace.digits))]


def _picture(trace: _Trace, k: int) -> Image.Image:
    shape = trace.shape
    side = shape.size * _CELL
    image = Image.new("RGB", (side + 2 * _MARGIN, side + _TITLE + _MARGIN), WHITE)
    draw = ImageDraw.Draw(image)
    middle = (_MARGIN + side // 2, _TITLE // 2)
    draw.text(middle, trace.titles[k], fill=BLACK, font=font(False, 15), anchor="mm")
    for cell in range(shape.cells):
        x = _MARGIN + cell % shape.size * _CELL
        y = _TITLE + cell // shape.size * _CELL
        if trace.changed[k, cell]:
            draw.rectangle((x, y, x + _CELL, y + _CELL), fill=CHANGED)
        digit, given = int(trace.digits[k, cell]), bool(trace.given[cell])
        if digit != 0:
            ink = RED if trace.conflict[k, cell] else BLACK if given else BLUE
            centre = (x + _CELL // 2, y + _CELL // 2)
            draw.text(centre, _character(digit), fill=ink, font=font(given, 21), anchor="mm")
    _draw_lines(draw, shape)
    return image


def _draw_lines(draw: ImageDraw.ImageDraw, shape: SudokuShape) -> None:
    side = shape.size * _CELL
    lines = []  # (thick, ends); thick ones last, so that no thin one crosses them
    for i in range(shape.size + 1):
        x, y = _MARGIN + i * _CELL, _TITLE + i * _CELL
        lines.append((i % shape.box_cols == 0, (x, _TITLE, x, _TITLE + side)))
        lines.append((i % shape.box_rows == 0, (_MARGIN, y, _MARGIN + side, y)))
    for thick, (x0, y0, x1, y1) in sorted(lines):
        grow = 1 if thick else 0
        ends = (x0 - grow, y0 - grow, x1 + grow, y1 + grow)
        draw.rectangle(ends, fill=BLACK if thick else GREY)

"""A maze being solved, ACT step by ACT step, for the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hrm_jax.data.maze.board import CHARACTERS, MazeShape
from hrm_jax.viz.terminal import ANSI_END, side_by_side

_FILLS = {"#": "\x1b[100m", "o": "\x1b[44m", "S": "\x1b[1;32m", "G": "\x1b[1;31m", " ": ""}
_CHANGED = "\x1b[30;43m"


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
    if not boards:
        raise ValueError("boards: expected the board after at least one step, got none")
    for step, board in enumerate(boards, 1):
        if len(board) != shape.cells:
            raise ValueError(
                f"board after step {step}: expected {shape.cells} characters, got {len(board)}"
            )
    columns = shape.width * (1 + colour)
    rule = f"+{'-' * columns}+"
    frames = []
    for step, (before, board) in enumerate(itertools.pairwise((boards[0], *boards)), 1):
        cells = [_cell(old, new, colour) for old, new in zip(before, board, strict=True)]
        rows = ["".join(cells[i : i + shape.width]) for i in range(0, len(cells), shape.width)]
        title = f"ACT step {step}/{len(boards)}".center(len(rule))
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

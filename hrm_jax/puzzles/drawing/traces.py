"""A puzzle being solved, ACT step by ACT step: for the terminal, as a picture, as an animation."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator

from PIL import Image

from hrm_jax.files import atomic_path
from hrm_jax.puzzles.drawing.painter import Array, Painter, Shown
from hrm_jax.puzzles.drawing.pen import WHITE, Pen

Path = str | os.PathLike[str]

_MARGIN, _TITLE, _TITLE_WIDTH = 14, 30, 120  # pixels
_GAP = " " * 4


def trace_text(
    painter: Painter, question: Array, boards: Array, *, colour: bool = False, width: int = 80
) -> str:
    """The boards [K, S] after each ACT step for a terminal of `width` columns, side by side.

    What changed is marked, by ANSI colours if `colour` says so; the last line is a legend.

    Raises:
        ValueError: There are no boards, or their shape does not fit the question [S].
    """
    panels = [frame.split("\n") for frame in trace_frames(painter, question, boards, colour=colour)]
    beside = max(1, (width + len(_GAP)) // (len(panels[0][0]) + len(_GAP)))
    blocks = []
    for start in range(0, len(panels), beside):
        rows = zip(*panels[start : start + beside], strict=True)
        blocks.append("\n".join(_GAP.join(row).rstrip() for row in rows))
    return "\n\n".join([*blocks, painter.marks(colour)]) + "\n"


def trace_frames(
    painter: Painter, question: Array, boards: Array, *, colour: bool = False
) -> list[str]:
    """The boards one by one: as many lines for each, all as wide as the first. See `trace_text`."""
    frames = []
    for title, before, board in _steps(question, boards):
        lines = painter.text(question, board, before=before, colour=colour).split("\n")
        widths = [len(re.sub("\x1b.*?m", "", line)) for line in lines]
        width = max(*widths, len(title))
        lines = [line + " " * (width - size) for line, size in zip(lines, widths, strict=True)]
        frames.append("\n".join([title.center(max(widths)).ljust(width), *lines]))
    return frames


def trace_png(path: Path, painter: Painter, question: Array, boards: Array) -> pathlib.Path:
    """Draws what `trace_text` prints as PNG, four boards in a row, what changed in yellow."""
    pictures = _pictures(painter, question, boards)
    columns = min(4, len(pictures))
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), WHITE)
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (k % columns * width, k // columns * height))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")
    return pathlib.Path(path)


def trace_gif(
    path: Path, painter: Painter, question: Array, boards: Array, *, ms_per_frame: int = 600
) -> pathlib.Path:
    """Draws what `trace_png` draws as an endless animation; the last frame stays three times as
    long. ValueError if a frame is shown for less than 10 ms, the GIF's unit."""
    if ms_per_frame < 10:
        raise ValueError(f"ms_per_frame: expected 10 or more, got {ms_per_frame}")
    first, *others = _pictures(painter, question, boards)
    duration = [ms_per_frame] * len(others) + [3 * ms_per_frame]
    with atomic_path(path) as temporary:
        first.save(
            temporary, format="GIF", save_all=True, append_images=others, duration=duration, loop=0
        )
    return pathlib.Path(path)


def _steps(question: Array, boards: Array) -> Iterator[tuple[str, Array, Array]]:
    """Title, board before (of the first: itself) and board of each step."""
    if boards.ndim != 2 or not len(boards) or boards.shape[1:] != question.shape:
        raise ValueError(
            f"boards have shape {boards.shape}, expected (steps, {len(question)}), from one step on"
        )
    for k, board in enumerate(boards):
        yield f"ACT step {k + 1}/{len(boards)}", boards[max(0, k - 1)], board


def _pictures(painter: Painter, question: Array, boards: Array) -> list[Image.Image]:
    side, pictures = painter.width(question), []
    height = painter.height(side, question)
    for title, before, board in _steps(question, boards):
        pen = Pen(max(side, _TITLE_WIDTH) + 2 * _MARGIN, height + _TITLE + _MARGIN)
        pen.text(_MARGIN, _TITLE / 2, title, 15, anchor="lm")
        painter.draw(pen.at(_MARGIN, _TITLE), side, Shown(question, board, before=before))
        pictures.append(pen.image())
    return pictures

"""Mazes being solved."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from hrm_jax.puzzles.drawing.maze_boards import trace_frames, trace_gif, trace_png, trace_text
from hrm_jax.puzzles.drawing.pen import CHANGED
from hrm_jax.puzzles.maze.board import MazeShape

SHAPE = MazeShape(4, 4)
BOARDS = ["S #  # oGo   #? ", "Soo  #o  G   #  "]
PLAIN = """\
ACT step 1/2    ACT step 2/2
+----+          +----+
|S # |          |SOO |
| # o|          | #Ox|
|Go  |          | G  |
| #? |          | #  |
+----+          +----+

# wall   o path   O path since this step   x no path any more   ? none of these
"""


def test_plain_text():
    assert trace_text(BOARDS, SHAPE) == PLAIN


def test_colours_mark_what_changed():
    first, second = trace_frames(BOARDS, SHAPE, colour=True)
    assert first.count("\n") == second.count("\n") == 6
    assert "\x1b[30;43m" not in first
    assert first.splitlines()[2].startswith("|\x1b[1;32mS \x1b[0m  \x1b[100m  \x1b[0m")
    assert second.splitlines()[2].count("\x1b[30;43mo \x1b[0m") == 2
    assert trace_text(BOARDS, SHAPE, colour=True).splitlines()[-1].count("\x1b[0m") == 3


def test_width_decides_how_many_stand_side_by_side():
    boards = ["S" + " " * 398 + "G"] * 2
    titles = [
        trace_text(boards, MazeShape(20, 20), width=w).splitlines()[0].count("ACT")
        for w in (20, 47, 48)
    ]
    assert titles == [1, 1, 2]


def _yellow(image):
    return (np.asarray(image.convert("RGB")) == ImageColor.getrgb(CHANGED)).all(-1)


def test_png_marks_what_changed(tmp_path):
    path = tmp_path / "trace.png"
    boards = ["S #  ", "So#  ", "So #G"] + ["So #G"] * 2
    assert trace_png(path, boards, MazeShape(1, 5)) == path
    with Image.open(path) as image:
        width, height = image.width // 4, image.height // 2
        panels = [
            _yellow(image.crop((x, y, x + width, y + height)))
            for y in (0, height)
            for x in range(0, 4 * width, width)
        ]
    cell, left, middle = 28, 14, 30 + 14
    marked = [
        [bool(panel[middle - 11, left + column * cell + 1]) for column in range(5)]
        for panel in panels
    ]
    new, turned = [False, True, False, False, False], [False, False, True, True, False]
    assert marked == [[False] * 5, new, turned, *[[False] * 5] * 5]
    assert not panels[2][middle, left + 3 * cell + cell // 2]  # a new wall is only framed


def test_gif_has_one_frame_a_step(tmp_path):
    trace_gif(tmp_path / "trace.gif", BOARDS, SHAPE, ms_per_frame=200)
    with Image.open(tmp_path / "trace.gif") as image:
        assert image.n_frames == 2
        assert image.info["duration"] == 200
        first = _yellow(image).sum()
        image.seek(1)
        assert image.info["duration"] == 600
        assert _yellow(image).sum() > first == 0
    with pytest.raises(ValueError, match="at least one step"):
        trace_gif(tmp_path / "none.gif", [], SHAPE)
    assert not (tmp_path / "none.gif").exists()


@pytest.mark.parametrize(
    ("boards", "message"),
    [([], "at least one step"), (["S  G"], "board after step 1: expected 16 characters, got 4")],
)
def test_errors(boards, message):
    with pytest.raises(ValueError, match=message):
        trace_text(boards, SHAPE)

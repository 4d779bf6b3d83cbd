"""Mazes being solved, in a terminal."""

import pytest

from hrm_jax.data.maze.board import MazeShape
from hrm_jax.viz.maze_boards import trace_frames, trace_text

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


@pytest.mark.parametrize(
    ("boards", "message"),
    [([], "at least one step"), (["S  G"], "board after step 1: expected 16 characters, got 4")],
)
def test_errors(boards, message):
    with pytest.raises(ValueError, match=message):
        trace_text(boards, SHAPE)

"""Puzzles being solved: as text, as a picture, as an animation."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageColor

from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.domino.encoding import encode, encode_move
from hrm_jax.puzzles.domino.game import Move, Position
from hrm_jax.puzzles.drawing.pen import BLUE, CHANGED, RED
from hrm_jax.puzzles.drawing.traces import trace_frames, trace_gif, trace_png, trace_text

SUDOKU, MAZE, DOMINO, ARC = (PUZZLES[name].painter for name in ("sudoku", "maze", "domino", "arc"))


def _tokens(painter, *texts):
    return np.array([[painter.characters.find(c) for c in text] for text in texts], np.int8)


SOLUTION = "1234341221434321"
(QUESTION,) = _tokens(SUDOKU, "1.3..4.." + "." * 8)
BOARDS = _tokens(
    SUDOKU,
    "11343412214343.X",  # 1 stands twice in row 1; one blank, one unknown
    "1234341221434391",  # 9 is no digit here
    SOLUTION,
)
SUDOKU_TEXT = """\
 ACT step 1/3     ACT step 2/3
[1] 1 |[3] 4     [1]*2 |[3] 4
 3 [4]| 1  2      3 [4]| 1  2
------+------    ------+------
 2  1 | 4  3      2  1 | 4  3
 4  3 | .  ?      4  3 |*? *1

 ACT step 3/3
[1] 2 |[3] 4
 3 [4]| 1  2
------+------
 2  1 | 4  3
 4  3 |*2  1

[5] given   *5 changed since the step before   ? no digit
"""
MAZE_BOARDS = _tokens(MAZE, "S #  # oGo   #? ", "Soo  #o  G   #  ")
MAZE_TEXT = """\
ACT step 1/2    ACT step 2/2
+----+          +----+
|S # |          |SOO |
| # o|          | #Ox|
|Go  |          | G  |
| #? |          | #  |
+----+          +----+

# wall   o path   O path since this step   x no path any more   ? none of these
"""
POSITION = encode(Position(((6, 4), (4, 2)), ((2, 5), (6, 1))))
MOVES = np.stack([encode_move(Move(1, 6, 1)), encode_move(Move(2, 5, 2))])
DOMINO_TEXT = """\
          ACT step 1/2
table  6|4 4|2   (ends 6 and 2)
hand   2-5 6-1
move   1|6 left

          ACT step 2/2
table  6|4 4|2   (ends 6 and 2)
hand   2-5 6-1
move   2|5 right *

* changed since the step before   ? no pips or no end
"""


@pytest.mark.parametrize(
    ("painter", "question", "boards", "width", "text"),
    [
        (SUDOKU, QUESTION, BOARDS, 30, SUDOKU_TEXT),
        (MAZE, MAZE_BOARDS[0], MAZE_BOARDS, 80, MAZE_TEXT),
        (DOMINO, POSITION, MOVES, 60, DOMINO_TEXT),
    ],
    ids=["sudoku", "maze", "domino"],
)
def test_plain_text(painter, question, boards, width, text):
    assert trace_text(painter, question, boards, width=width) == text
    frames = trace_frames(painter, question, boards)
    blocks = ["\n".join(line.rstrip() for line in frame.splitlines()) for frame in frames]
    alone = "\n\n".join([*blocks, painter.marks(False)]) + "\n"
    assert trace_text(painter, question, boards, width=10) == alone


@pytest.mark.parametrize(
    ("painter", "question", "boards", "widths"),
    [
        (SUDOKU, QUESTION, BOARDS, {20: 1, 46: 2, 47: 3}),
        (MAZE, np.full(400, 2), np.full((2, 400), 2), {20: 1, 47: 1, 48: 2}),
    ],
    ids=["sudoku", "maze"],
)
@pytest.mark.parametrize("colour", [False, True])
def test_width_decides_how_many_stand_side_by_side(painter, question, boards, widths, colour):
    for width, beside in widths.items():
        width += 40 * (colour and painter is MAZE)  # each of 2 × 20 cells takes a column more
        text = trace_text(painter, question, boards, width=width, colour=colour)
        assert text.splitlines()[0].count("ACT step") == beside


def test_colours_of_a_sudoku():
    first, second, _ = trace_frames(SUDOKU, QUESTION, BOARDS, colour=True)
    assert "[" not in first.replace("\x1b[", "")
    row = first.splitlines()[1]
    given_in_conflict, filled_in_conflict = (
        "\x1b[1m\x1b[31m 1 \x1b[0m",
        "\x1b[34m\x1b[31m 1 \x1b[0m",
    )
    assert row.startswith(given_in_conflict + filled_in_conflict + "|\x1b[1m 3 \x1b[0m")
    assert "\x1b[30;43m" not in first
    assert "\x1b[34m\x1b[30;43m 2 \x1b[0m" in second.splitlines()[1]
    assert first.count("\n") == second.count("\n") == 5
    (row,) = _tokens(SUDOKU, "2" + SOLUTION[1:])  # a changed given is a conflict
    (frame,) = trace_frames(SUDOKU, QUESTION, row[None], colour=True)
    assert frame.splitlines()[1].startswith("\x1b[1m\x1b[31m 2 \x1b[0m")


def test_colours_of_a_maze():
    first, second = trace_frames(MAZE, MAZE_BOARDS[0], MAZE_BOARDS, colour=True)
    assert first.count("\n") == second.count("\n") == 6
    assert "\x1b[30;43m" not in first
    assert first.splitlines()[2].startswith("|\x1b[1;32mS \x1b[0m  \x1b[100m  \x1b[0m")
    assert second.splitlines()[2].count("\x1b[30;43mo \x1b[0m") == 2
    text = trace_text(MAZE, MAZE_BOARDS[0], MAZE_BOARDS, colour=True)
    assert text.splitlines()[-1].count("\x1b[0m") == 3


@pytest.mark.parametrize("boards", [BOARDS[:0], BOARDS[:, 1:], BOARDS[0]])
def test_boards_that_do_not_fit_are_refused(boards, tmp_path):
    for draw in (
        lambda: trace_text(SUDOKU, QUESTION, boards),
        lambda: trace_png(tmp_path / "b.png", SUDOKU, QUESTION, boards),
        lambda: trace_gif(tmp_path / "b.gif", SUDOKU, QUESTION, boards),
    ):
        with pytest.raises(ValueError, match=r"boards have shape .*, expected \(steps, 16\)"):
            draw()
    assert not list(tmp_path.iterdir())


def _is(colour, picture):
    return (np.asarray(picture.convert("RGB")) == ImageColor.getrgb(colour)).all(-1)


def _panels(path, count):
    with Image.open(path) as image:
        width = image.width // count
        return [image.crop((k * width, 0, (k + 1) * width, image.height)) for k in range(count)]


def test_a_picture_marks_conflicts_and_changes(tmp_path):
    path = trace_png(tmp_path / "sub" / "b.png", SUDOKU, QUESTION, BOARDS)
    panels = _panels(path, 3)
    assert [_is(BLUE, panel).any() for panel in panels] == [True, True, True]
    yellow = [_is(CHANGED, panel).sum() for panel in panels]
    assert yellow[1] > 2 * yellow[2] > 1000 > yellow[0] == 0  # three cells, then one
    red = [_is(RED, panel).any() for panel in panels]
    assert red == [True, True, False]  # a conflict, then what is no digit


def test_a_wall_that_is_new_is_framed(tmp_path):
    boards = _tokens(MAZE, "S  #" * 4, "S  #" * 3 + "So# ")
    _, panel = _panels(trace_png(tmp_path / "b.png", MAZE, boards[0], boards), 2)
    cell, left, top = 28, 14, 30 + 3 * 28
    row = _is(CHANGED, panel)[top + 6, left + 1 : left + 4 * cell : cell]
    assert row.tolist() == [False, True, True, True]
    middle = _is(CHANGED, panel)[top + 14, left + 14 + 2 * cell]
    assert not middle


def test_a_picture_has_rows_of_four(tmp_path):
    sizes = []
    for count in (1, 4, 5):
        path = trace_png(tmp_path / "b.png", SUDOKU, QUESTION, np.repeat(BOARDS[2:], count, 0))
        with Image.open(path) as image:
            sizes.append(image.size)
    width, height = sizes[0]
    assert sizes[1:] == [(4 * width, height), (4 * width, 2 * height)]


@pytest.mark.parametrize(
    ("painter", "question", "boards"),
    [
        (SUDOKU, QUESTION, BOARDS[[0, 1, 2, 2]]),  # an unchanged board is a frame of its own
        (MAZE, MAZE_BOARDS[0], MAZE_BOARDS[[0, 1, 0, 0]]),
        (DOMINO, POSITION, MOVES[[0, 1, 0, 0]]),
        (ARC, np.full(9, 2), np.full((4, 9), [[2], [3], [4], [4]])),
    ],
    ids=["sudoku", "maze", "domino", "arc"],
)
def test_an_animation_has_one_frame_a_step(painter, question, boards, tmp_path):
    path = trace_gif(tmp_path / "b.gif", painter, question, boards, ms_per_frame=250)
    with Image.open(path) as image:
        assert (image.format, image.n_frames, image.info["loop"]) == ("GIF", 4, 0)
        durations, frames = [], []
        for k in range(4):
            image.seek(k)
            durations.append(image.info["duration"])
            frames.append(np.asarray(image.convert("RGB")))
    assert durations == [250, 250, 250, 750]
    assert all(frame.std() > 5 for frame in frames)
    assert all((a != b).any() for a, b in itertools.pairwise(frames))
    with pytest.raises(ValueError, match="ms_per_frame"):
        trace_gif(path, painter, question, boards, ms_per_frame=0)

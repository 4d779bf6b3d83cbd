"""Boards of a Sudoku being solved."""

import itertools

import numpy as np
import pytest
from PIL import Image

from hrm_jax.puzzles.drawing.sudoku_boards import (
    legend,
    trace_frames,
    trace_gif,
    trace_png,
    trace_text,
)

QUESTION = "1.3..4.." + "." * 8
SOLUTION = "1234341221434321"
BOARDS = [
    "11343412214343.X",  # 1 stands twice in row 1; one blank, one unknown
    "1234341221434391",  # 9 is no digit here
    SOLUTION,
]
PLAIN = """\
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


def test_plain_text():
    assert trace_text(QUESTION, BOARDS, 4, width=30) == PLAIN


def test_frames_are_the_boards_of_the_text():
    frames = trace_frames(QUESTION, BOARDS, 4)
    blocks = [[line.rstrip() for line in frame.splitlines()] for frame in frames]
    alone = trace_text(QUESTION, BOARDS, 4, width=10)
    assert alone == "\n\n".join("\n".join(block) for block in blocks) + f"\n\n{legend(False)}\n"
    coloured = trace_frames(QUESTION, BOARDS, 4, colour=True)
    assert [frame.count("\n") for frame in coloured] == [5, 5, 5]
    assert "\x1b[30;43m" not in coloured[0]
    assert "\x1b[30;43m" in coloured[1]


def test_width_decides_how_many_stand_side_by_side():
    titles = [trace_text(QUESTION, BOARDS, 4, width=w).splitlines()[0] for w in (20, 46, 47)]
    assert [t.count("ACT step") for t in titles] == [1, 2, 3]


def test_colours():
    text = trace_text(QUESTION, BOARDS, 4, colour=True)
    assert "[" not in text.replace("\x1b[", "")
    row = text.splitlines()[1]
    given_in_conflict, filled_in_conflict = (
        "\x1b[1m\x1b[31m 1 \x1b[0m",
        "\x1b[34m\x1b[31m 1 \x1b[0m",
    )
    assert row.startswith(given_in_conflict + filled_in_conflict + "|\x1b[1m 3 \x1b[0m")
    assert "\x1b[34m\x1b[30;43m 2 \x1b[0m" in row  # changed at step 2


def test_a_changed_given_is_a_conflict():
    board = "2" + SOLUTION[1:]
    row = trace_text(QUESTION, [board], 4, colour=True).splitlines()[1]
    assert row.startswith("\x1b[1m\x1b[31m 2 \x1b[0m")


@pytest.mark.parametrize(
    ("question", "boards", "size", "message"),
    [
        (QUESTION, [], 4, "got none"),
        (
            QUESTION,
            [SOLUTION, SOLUTION[1:]],
            4,
            "board after step 2: expected 16 characters, got 15",
        ),
        (QUESTION[1:], [SOLUTION], 4, "question: expected 16"),
        (QUESTION, [SOLUTION], 5, "size is 5"),
    ],
)
def test_bad_input_is_refused(question, boards, size, message, tmp_path):
    for draw in (
        lambda: trace_text(question, boards, size),
        lambda: trace_png(tmp_path / "b.png", question, boards, size),
        lambda: trace_gif(tmp_path / "b.gif", question, boards, size),
    ):
        with pytest.raises(ValueError, match=message):
            draw()
    assert not list(tmp_path.iterdir())


def _colours(image):
    """The colours of an image, with how many pixels have each."""
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    values, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(v): int(n) for v, n in zip(values.tolist(), counts.tolist(), strict=True)}


RED, BLUE, YELLOW = (0xD0, 2, 0x1B), (0x1F, 0x5F, 0xBF), (0xFF, 0xE9, 0xA3)


def _panels(path, count):
    with Image.open(path) as image:
        width = image.width // count
        return [image.crop((k * width, 0, (k + 1) * width, image.height)) for k in range(count)]


def test_png_marks_conflicts_and_changes(tmp_path):
    path = trace_png(tmp_path / "sub" / "b.png", QUESTION, BOARDS, 4)
    first, second, third = (_colours(panel) for panel in _panels(path, 3))
    assert RED in first
    assert RED not in second
    assert RED not in third
    assert YELLOW not in first
    assert second[YELLOW] > 2 * third[YELLOW] > 1000  # three cells, then one
    assert all(BLUE in colours for colours in (first, second, third))


def test_png_has_rows_of_four(tmp_path):
    sizes = []
    for count in (1, 4, 5):
        with Image.open(trace_png(tmp_path / "b.png", QUESTION, [SOLUTION] * count, 4)) as image:
            sizes.append(image.size)
    width, height = sizes[0]
    assert sizes[1:] == [(4 * width, height), (4 * width, 2 * height)]


@pytest.mark.parametrize("size", [4, 6, 9])
def test_boxes_are_framed(size, tmp_path):
    cells = "." * size * size
    with Image.open(trace_png(tmp_path / "b.png", cells, [cells], size)) as image:
        dark = np.asarray(image.convert("L")) < 60
    rows = {4: (2, 2), 6: (2, 3), 9: (3, 3)}[size]
    thick_horizontal = (dark.mean(axis=1) > 0.75).sum()
    thick_vertical = (dark.mean(axis=0) > 0.75).sum()
    assert thick_horizontal == 3 * (size // rows[0] + 1)
    assert thick_vertical == 3 * (size // rows[1] + 1)


def test_gif_has_one_frame_a_step(tmp_path):
    boards = [*BOARDS, SOLUTION]  # an unchanged board is a frame of its own
    path = trace_gif(tmp_path / "b.gif", QUESTION, boards, 4, ms_per_frame=250)
    with Image.open(path) as image:
        assert image.format == "GIF"
        assert image.n_frames == 4
        assert image.info["loop"] == 0
        durations, frames = [], []
        for k in range(4):
            image.seek(k)
            durations.append(image.info["duration"])
            frames.append(np.asarray(image.convert("RGB")))
    assert durations == [250, 250, 250, 750]
    assert all(frame.std() > 20 for frame in frames)
    assert all((a != b).any() for a, b in itertools.pairwise(frames))


def test_gif_needs_a_duration(tmp_path):
    with pytest.raises(ValueError, match="ms_per_frame"):
        trace_gif(tmp_path / "b.gif", QUESTION, BOARDS, 4, ms_per_frame=0)

"""Contact sheets: which puzzles are drawn, what is said of them, and what the pictures show."""

import numpy as np
import pytest
from PIL import Image

from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.arc.tokens import encode as encode_grid
from hrm_jax.puzzles.domino.encoding import encode, encode_move
from hrm_jax.puzzles.domino.game import Move, Position
from hrm_jax.puzzles.drawing.contact_sheet import contact_sheet
from hrm_jax.puzzles.drawing.pen import GREEN, RED
from hrm_jax.puzzles.maze.board import parse as parse_maze
from hrm_jax.puzzles.sudoku.board import parse as parse_sudoku
from hrm_jax.puzzles.sudoku.board import to_tokens

SOLUTION = to_tokens(parse_sudoku("1234341221434321"))
QUESTION = to_tokens(parse_sudoku("1.34.41.21.3432."))
MAZE = parse_maze("S #  # oGo   #  ".replace("o", " "))
PATH = parse_maze("So#  #o Goo  #  ")


def _sudokus(faults):
    """Questions, labels and predictions with so many wrong cells each."""
    predictions = np.tile(SOLUTION, (len(faults), 1))
    for row, number in enumerate(faults):
        predictions[row, :number] = predictions[row, :number] % 4 + 2
    count = (len(faults), 1)
    return np.tile(QUESTION, count), np.tile(SOLUTION, count), predictions


def test_which_puzzles_are_drawn(tmp_path, written):
    faults = np.array([0, 3, 1, 0, 2, 0, 16])
    steps = np.array([5, 1, 1, 1, 1, 3, 2])
    arrays = _sudokus(faults)
    path = contact_sheet(
        tmp_path / "a" / "x.png", PUZZLES["sudoku"].painter, *arrays, steps, faults == 0, num=4
    )
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 1000
    texts = [text for text, _ in written]
    assert texts[0] == "Held-out Sudokus: 42.9% of 7 solved"
    assert [(t, ink) for t, ink in written if ":" in t and " of 7" in t][1:] == [
        ("Solved: 3 of 7", GREEN),
        ("Failed: 4 of 7", RED),
    ]
    assert [text for text in texts if text.startswith("#")] == [
        "#3: 1 ACT step; right",
        "#0: 5 ACT steps; right",
        "#2: 1 ACT step; 1 cell wrong",
        "#6: 2 ACT steps; 16 cells wrong",
    ]
    assert texts.count("question") == texts.count("model") == 4
    assert texts.count("right answer") == 2


@pytest.mark.parametrize(
    ("good", "num", "drawn"),
    [
        (0, 4, (0, 4)),
        (10, 4, (4, 0)),
        (1, 4, (1, 3)),
        (9, 4, (3, 1)),
        (5, 1, (1, 0)),
        (2, 99, (2, 8)),
    ],
)
def test_one_kind_makes_room_for_the_other(good, num, drawn, tmp_path, written):
    faults = (np.arange(10) >= good).astype(int)
    steps = np.ones(10, int)
    contact_sheet(
        tmp_path / "x.png",
        PUZZLES["sudoku"].painter,
        *_sudokus(faults),
        steps,
        faults == 0,
        num=num,
    )
    texts = [text for text, _ in written if text.startswith("#")]
    found = sum("right" in text for text in texts), sum("wrong" in text for text in texts)
    assert found == drawn


def test_what_is_said_of_mazes(tmp_path, written):
    inputs, labels = np.tile(MAZE, (4, 1)), np.tile(PATH, (4, 1))
    predictions = labels.copy()
    predictions[1, 1] = 2
    predictions[2:, 14] = 5  # pretended to be another path
    verdicts = {"valid": np.array([1, 0, 1, 1], bool), "optimal": np.array([1, 0, 0, 1], bool)}
    contact_sheet(
        tmp_path / "x.png", PUZZLES["maze"].painter, inputs, labels, predictions, np.ones(4, int),
        verdicts["optimal"], verdicts=verdicts,
    )  # fmt: skip
    assert [text.split("; ")[1] for text, _ in written if text.startswith("#")] == [
        "right",
        "another good answer",
        "not a path, 1 cell wrong",
        "a path, but not a shortest one",
    ]


def test_what_is_said_of_dominoes(tmp_path, written):
    position = Position(((6, 4), (4, 2)), ((2, 5), (6, 1), (0, 0)))
    label = encode_move(Move(2, 5, 2))
    other, legal, illegal = encode_move(Move(1, 6, 1)), label.copy(), encode_move(Move(0, 0, 1))
    legal[40] = 7  # is not compared
    predictions = np.stack([legal, other, illegal])
    verdicts = {"legal": np.array([1, 1, 0], bool)}
    contact_sheet(
        tmp_path / "x.png", PUZZLES["domino"].painter, np.tile(encode(position), (3, 1)),
        np.tile(label, (3, 1)), predictions, np.ones(3, int), np.array([1, 0, 0], bool), verdicts,
    )  # fmt: skip
    texts = [text for text, _ in written]
    assert [text.split("; ")[1] for text in texts if text.startswith("#")] == [
        "right",
        "legal, but a heavier tile fits",
        "not legal",
    ]
    assert texts.count("model: 2|5 at the right end") == 1
    assert texts.count("right: 2|5 at the right end") == 2
    assert texts.count("model: 1|6 at the left end") == 1


def test_what_is_said_of_arc(tmp_path, written):
    grid = np.array([[1, 2], [3, 4]], np.uint8)
    label = encode_grid(grid, 4)
    predictions = np.tile(label, (5, 1))
    predictions[1, 0] = 9
    predictions[2, 2] = 0  # an end of the first row is missing
    predictions[3] = encode_grid(np.ones((3, 2), np.uint8), 4)
    predictions[4] = 0
    contact_sheet(
        tmp_path / "x.png", PUZZLES["arc"].painter, np.tile(label, (5, 1)), np.tile(label, (5, 1)),
        predictions, np.ones(5, int), np.arange(5) == 0,
    )  # fmt: skip
    said = [text.split("; ")[1] for text, _ in written if text.startswith("#")]
    assert said[0] == "right"
    assert set(said[1:]) == {
        "1 cell wrong",
        "the grid is right, the marks of its end are not",
        "3×2 instead of 2×2",
        "0×0 instead of 2×2",
    }
    assert ("no grid", RED) in written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": np.zeros((0, 16), int)}, "at least 1 puzzle"),
        ({"num": 0}, "num=0"),
        ({"labels": np.zeros((2, 15), int)}, r"labels has shape \(2, 15\), expected \(2, 16\)"),
        ({"predictions": np.zeros((3, 16), int)}, "predictions has shape"),
        ({"steps": np.zeros(3, int)}, r"steps has shape \(3,\), expected \(2,\)"),
        ({"good": np.zeros(1, bool)}, "good has shape"),
        ({"verdicts": {"legal": np.zeros(1, bool)}}, "legal has shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message, tmp_path):
    inputs, labels, predictions = _sudokus([0, 1])
    given = {
        "inputs": inputs, "labels": labels, "predictions": predictions,
        "steps": np.ones(2, int), "good": np.ones(2, bool),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        contact_sheet(tmp_path / "x.png", PUZZLES["sudoku"].painter, **{**given, **change})
    assert not list(tmp_path.iterdir())

"""Painters: what their pictures mark, and what a new puzzle on a grid has to say."""

import dataclasses

import numpy as np
import pytest

from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.arc.draw import COLOURS
from hrm_jax.puzzles.arc.tokens import encode as encode_grid
from hrm_jax.puzzles.domino.encoding import encode, encode_move
from hrm_jax.puzzles.domino.game import Move, Position
from hrm_jax.puzzles.drawing.grid import GridPainter
from hrm_jax.puzzles.drawing.painter import Shown
from hrm_jax.puzzles.drawing.pen import GREEN, RED, WRONG, Pen
from hrm_jax.puzzles.maze.board import parse as parse_maze
from hrm_jax.puzzles.sudoku.board import parse as parse_sudoku
from hrm_jax.puzzles.sudoku.board import to_tokens

SUDOKU, MAZE, DOMINO, ARC = (PUZZLES[name].painter for name in ("sudoku", "maze", "domino", "arc"))
SOLUTION = to_tokens(parse_sudoku("1234341221434321"))
QUESTION = to_tokens(parse_sudoku("1.34.41.21.3432."))
LATIN = GridPainter(
    name="Latin square",
    plural="Latin squares",
    vocab_sizes={size * size: size + 2 for size in range(2, 10)},
    characters="?.123456789",
    units=lambda cells: np.stack([(g := np.arange(cells).reshape(3, 3)), g.T]).reshape(-1, 3),
)


def _pixel(image, x, y):
    return "#{:02x}{:02x}{:02x}".format(*image.getpixel((x, y)))


def _colours(image):
    return {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in image.getcolors(1 << 24)}


def _drawn(painter, side, question, board, label=None, **more):
    pen = Pen(side + 2, painter.height(side, question) + 2)
    painter.draw(pen, side, Shown(question, board, label, **more))
    return pen.image()


def test_a_sudoku_marks_wrong_cells(written):
    board = SOLUTION.astype(int)
    board[1], board[15] = 5, 9
    image = _drawn(SUDOKU, 128, QUESTION, board, SOLUTION)
    assert _pixel(image, 32 + 3, 3) == _pixel(image, 96 + 3, 96 + 3) == WRONG
    assert _pixel(image, 3, 3) == "#ffffff"
    assert [text for text, ink in written if ink == RED] == ["4", "?"]
    assert len(written) == 16
    written.clear()
    _drawn(SUDOKU, 128, QUESTION, QUESTION)
    assert "".join(text for text, _ in written) == "13441213432"


@pytest.mark.parametrize(("size", "box"), [(4, (2, 2)), (6, (2, 3)), (9, (3, 3))])
def test_boxes_are_framed(size, box):
    cells = np.ones(size * size, int)
    dark = np.asarray(_drawn(SUDOKU, 36 * size, cells, cells).convert("L")) < 60
    for axis, every in ((1, box[0]), (0, box[1])):
        found = np.flatnonzero(dark.mean(axis) > 0.75)
        assert set(np.round(found / 36).astype(int)) == set(range(0, size + 1, every))


def test_a_maze_shows_path_and_wrong_cells():
    maze, path = parse_maze("S #  #   Go  #  ".replace("o", " ")), parse_maze("So#  #o Goo  #  ")
    right = _drawn(MAZE, 80, maze, path)
    assert WRONG not in _colours(right)
    assert _pixel(right, 30, 10) == "#1f5fbf"  # the line through a cell of the path
    assert _pixel(right, 21, 3) == "#bcd7f7"
    board = path.astype(int)
    board[1], board[2], board[15] = 2, 0, 1
    wrong = _drawn(MAZE, 80, maze, board, path)
    assert _pixel(wrong, 30, 10) == WRONG
    assert _pixel(wrong, 72, 72) == "#8c3a44"  # a wall where there is none
    assert RED in _colours(wrong)


def test_arc_colours_and_crosses():
    grid = np.arange(10, dtype=np.uint8).reshape(2, 5)
    board, other = encode_grid(grid, 6), grid.copy()
    other[0, 0] = 5
    image = _drawn(ARC, 140, board, board)
    found = [_pixel(image, 28 * col + 14, 28 * row + 14) for row in (0, 1) for col in range(5)]
    assert found == list(COLOURS)
    image = _drawn(ARC, 140, board, board, encode_grid(other, 6))
    assert _pixel(image, 14, 14) == "#ffffff"
    assert _pixel(image, 14 + 28, 14) == COLOURS[1]


def test_a_domino_position_shows_every_pip(monkeypatch):
    pips = []
    monkeypatch.setattr(Pen, "dot", lambda self, x, y, radius, ink: pips.append((x, y)))
    position = Position(((6, 4), (4, 2), (2, 2)), ((2, 5), (6, 1), (0, 3)))
    question, label = encode(position), encode_move(Move(2, 5, 2))
    image = _drawn(DOMINO, 200, question, encode_move(Move(1, 6, 1)), label, good=False)
    assert len(pips) == 6 + 4 + 4 + 2 + 2 + 2 + 2 + 5 + 6 + 1 + 3
    assert {GREEN, RED} <= _colours(image)
    assert not {GREEN, RED} & _colours(_drawn(DOMINO, 200, question, label))  # nothing to compare


def test_a_long_table_takes_more_lines():
    tiles = tuple((i % 7, (i + 1) % 7) for i in range(6))
    short = DOMINO.height(524, encode(Position(tiles[:1], ((0, 0),))))
    assert DOMINO.height(524, encode(Position(tiles, ((0, 0),)))) == short
    assert DOMINO.height(100, encode(Position(tiles, ((0, 0),)))) == short + 2 * 21


def test_plain_text_has_no_marks():
    assert SUDOKU.text(QUESTION, QUESTION).splitlines() == [
        *("1 . | 3 4", ". 4 | 1 .", "---------", "2 1 | . 3", "4 3 | 2 .")
    ]
    assert MAZE.text(*[parse_maze("S #G")] * 2) == "S \n#G"
    assert ARC.text(*[encode_grid(np.ones((2, 1), np.uint8), 3)] * 2) == "1|.\n1|.\n|.."
    assert LATIN.text(*[np.arange(9)] * 2) == "? . 1\n2 3 ?\n? ? ?"


def test_a_new_puzzle_on_a_grid(written):
    """A Latin square of which a given is changed and a symbol stands twice in a row."""
    question, board = np.array([2, 1, 1] * 3), np.array([2, 3, 4, 3, 4, 4, 2, 1, 5])
    found = LATIN.conflicts(question, board).reshape(3, 3)
    assert found.tolist() == [[1, 0, 1], [1, 1, 1], [1, 0, 0]]
    assert _drawn(LATIN, 108, question, board).size == (110, 110)
    assert [text for text, ink in written if ink == RED] == ["1", "3", "2", "3", "3", "1", "?"]
    assert LATIN.verdict(board, np.array([2, 3, 4, 2, 4, 0, 2, 3, 4]), {}) == "3 cells wrong"
    page = LATIN.page(9)
    assert (page["characters"], page["given"], page["boxes"]) == ("?.123", [2, 3, 4], None)
    assert page["words"] == tuple("?.123")


def test_boards_that_are_not_square():
    wide = dataclasses.replace(LATIN, columns=5)
    assert wide.shape(10) == (2, 5)
    assert wide.page(10)["columns"] == 5
    for painter, cells in ((wide, 9), (LATIN, 10), (LATIN, 0)):
        with pytest.raises(ValueError, match=f"{cells} cells make no board"):
            painter.shape(cells)

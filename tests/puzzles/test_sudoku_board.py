"""Boards: text, tokens, rules."""

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.digits.board import check_rules, contradictions, is_solution
from hrm_jax.puzzles.sudoku.board import SudokuShape, from_tokens, parse, to_text, to_tokens

GRID4 = "1234341221434321"


def test_units_of_6x6_have_boxes_of_2_rows_and_3_columns():
    shape = SudokuShape.of(6)
    units = shape.units()
    assert units.shape == (18, 6)
    assert units[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert units[6].tolist() == [0, 6, 12, 18, 24, 30]
    assert units[12].tolist() == [0, 1, 2, 6, 7, 8]
    assert units[13].tolist() == [3, 4, 5, 9, 10, 11]
    assert all(np.bincount(units.reshape(-1)) == 3)


@pytest.mark.parametrize("size", [4, 6, 9])
def test_shape_is_found_by_its_cells(size):
    shape = SudokuShape.of(size)
    assert SudokuShape.for_cells(size * size) == shape
    assert (shape.cells, shape.vocab_size) == (size * size, size + 2)


def test_impossible_shapes_are_refused():
    with pytest.raises(DataError, match="size is 5"):
        SudokuShape.of(5)
    with pytest.raises(DataError, match="not 25"):
        SudokuShape.for_cells(25)
    with pytest.raises(DataError, match="boxes of 2×2"):
        SudokuShape(6, 2, 2)


def test_text_round_trip_reads_both_blanks():
    board = parse("1.30" + "." * 12)
    assert board.dtype == np.int8
    assert board[:4].tolist() == [1, 0, 3, 0]
    assert to_text(board) == "1.3............."
    np.testing.assert_array_equal(parse(to_text(board)), board)


def test_bad_text_is_refused():
    with pytest.raises(DataError, match="has 4 characters, expected 16"):
        parse("1234", SudokuShape.of(4))
    with pytest.raises(DataError, match="row 2, column 1: '5' is illegal, expected a digit 1 to 4"):
        parse("1234" + "5" + "." * 11)
    with pytest.raises(DataError, match="row 1, column 2: '²'"):
        parse("1²" + "." * 14)


def test_tokens_are_digits_plus_one():
    board = parse("1.34" + "." * 12)
    tokens = to_tokens(board)
    assert tokens.dtype == np.uint8
    assert tokens[:4].tolist() == [2, 1, 4, 5]
    np.testing.assert_array_equal(from_tokens(tokens), board)
    assert from_tokens(np.array([0, 1, 2], np.uint8)).tolist() == [0, 0, 1]


def test_rules_over_leading_axes():
    shape = SudokuShape.of(4)
    good, partial = parse(GRID4), parse("1..." + "." * 12)
    row, column, box = (
        parse(text) for text in ("11" + "." * 14, "1...1" + "." * 11, "1....1" + "." * 10)
    )
    boards = np.stack([[good, partial, row], [column, box, good]])
    assert check_rules(boards, shape).tolist() == [[True, True, False], [False, False, True]]
    assert is_solution(boards, shape).tolist() == [[True, False, False], [False, False, True]]
    assert not check_rules(np.full(16, 9), shape)


def test_contradictions_name_digit_and_places():
    shape = SudokuShape.of(4)
    assert contradictions(parse(GRID4), shape) is None
    message = contradictions(parse("1..1" + "." * 12), shape)
    assert message == ("digit 1 stands twice in row 1: at row 1, column 1 and row 1, column 4")
    assert "twice in column 1" in str(contradictions(parse("2.......2......."), shape))
    assert "twice in box 1" in str(contradictions(parse("2....2.........."), shape))

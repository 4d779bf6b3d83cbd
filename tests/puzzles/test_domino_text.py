"""Domino positions as text."""

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.domino.encoding import decode, encode
from hrm_jax.puzzles.domino.game import Position
from hrm_jax.puzzles.domino.generator import DominoData, generate, to_puzzle_set
from hrm_jax.puzzles.domino.text import move_text, parse, to_text


def test_text_and_back():
    for tokens in to_puzzle_set(generate(DominoData(seed=1), 100).values()).inputs:
        position = decode(tokens)
        assert parse(to_text(position)) == position
    position = Position(((2, 5), (5, 3)), ((2, 3), (0, 2)))
    assert to_text(position) == "table 2|5 5|3; hand 2|3 0|2"
    assert parse(" hand 2-3 0-2 ;table 2-5  5|3;") == position
    empty = Position((), ((2, 3),))
    assert to_text(empty) == "hand 2|3"
    assert parse("table; hand 2|3") == parse("hand 2|3") == empty


def test_a_hand_of_more_than_seven_is_read():
    hand = " ".join(f"{a}|{a}" for a in range(7))
    position = parse(f"table 6|5; hand 5|4 {hand}")
    assert len(position.hand) == 8
    assert (decode(encode(position)).hand[0]) == (6, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no tile in the hand"),
        ("table 2|3", "no tile in the hand"),
        ("2|3 4|4", r"'2\|3 4\|4': expected a position like 'table"),
        ("hand 2|3; hand 4|4", r"'hand 4\|4': expected"),
        ("hand 2|7", r"'2\|7' is no tile 0\|0 to 6\|6"),
        ("hand 2/3", "'2/3' is no tile"),
        ("hand 2|3 3|2", r"the tile 2\|3 stands twice"),
        ("table 2|3; hand 3|2", "stands twice"),
        ("table 2|3 4|4; hand 2|2", "neighbours do not match"),
        ("table 2|3; hand 1|1 4|6", "no tile of the hand fits the table"),
    ],
)
def test_bad_text(text, message):
    with pytest.raises(DataError, match=message):
        parse(text)


def test_moves():
    assert move_text(np.array([4, 3, 1, 5, 5])) == "3|2 at the left end"
    assert move_text(np.array([1, 1, 2])) == "0|0 at the right end"
    assert move_text(np.array([1, 7, 3])) == "0|6 first"
    assert move_text(np.array([0, 8, 4])) == "?|? at the ? end"

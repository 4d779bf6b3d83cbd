"""A person at a terminal who types Sudokus and mazes, and watches."""

import io
import re
from random import Random

import jax
import pytest

import hrm_jax
from hrm_jax.models import recurrent
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.puzzles.console import Console, Leave
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.trained.watch import held_out_puzzle, read_board, watch, watch_puzzles

PUZZLE = "1...........2..."


def _console(*lines, ansi=False):
    return Console(io.StringIO("".join(f"{line}\n" for line in lines)), io.StringIO(), ansi)


def _fresh(seq_len, vocab_size):
    """An untrained model."""
    config = HRMConfig(
        seq_len=seq_len, vocab_size=vocab_size, num_puzzle_identifiers=1, hidden_size=16,
        num_heads=2, H_layers=1, L_layers=1, H_cycles=1, L_cycles=1, expansion=1.0,
        puzzle_emb_ndim=16, halt_max_steps=3, forward_dtype="float32",
    )  # fmt: skip
    return PuzzleModel(config, recurrent.init(config, jax.random.key(0)))


@pytest.fixture(scope="module")
def maze_model():
    return _fresh(25, 6)


@pytest.fixture(scope="module")
def sudoku_model(trained):
    return hrm_jax.load(trained)


@pytest.mark.parametrize(
    "lines",
    [
        [PUZZLE],
        ["1...", "....", "....", "2..."],
        ["1 0 | . .", "", "--+--", "0000", "....", "2000"],
        ["1...", "12345", "x...", "CLEAR", "help", "1...", "....", "....", "2..."],
        ["11..............", PUZZLE],
    ],
)
def test_a_sudoku_is_read(lines, sudoku_model):
    console = _console(*lines)
    assert read_board(console, sudoku_model, lambda: "none") == PUZZLE


def test_what_is_wrong_with_a_sudoku_is_said(sudoku_model):
    console = _console("x...", "12343", "11..............", "help")
    with pytest.raises(Leave):
        read_board(console, sudoku_model, lambda: "none")
    text = console.output.getvalue()
    assert "'x' does not belong there; expected a 4×4 Sudoku (. for a blank)" in text
    assert "5 cells; expected 4 for a row, or 16 for the board" in text
    assert "That is no puzzle: digit 1 stands twice in row 1" in text
    assert "Type or paste a 4×4 Sudoku" in text


def test_a_maze_is_read(maze_model):
    expected = "S    #### " + " " * 10 + "G    "
    for lines in (["S....", "####.", "     ", ".....", "G...."], [expected]):
        assert read_board(_console(*lines), maze_model, lambda: "none") == expected
    walled = "S    #####" + " " * 10 + "G    "
    console = _console(walled, "S....", "o....", "example")
    assert read_board(console, maze_model, lambda: expected) == expected
    text = console.output.getvalue()
    assert "there is no way from S to G" in text
    assert "'o' does not belong there" in text
    assert "> S    \n#### \n" in text
    console = _console("S" + " " * 24)
    with pytest.raises(Leave):
        read_board(console, maze_model, lambda: "none")
    assert "there is no G" in console.output.getvalue()


def test_puzzles_are_watched(sudoku_model, maze_model, trained):
    console = _console(PUZZLE, "example", "quit")
    with pytest.raises(Leave):
        watch_puzzles(
            console, sudoku_model, lambda: held_out_puzzle(trained, sudoku_model, Random(0)),
            halting="fixed", max_steps=3,
        )  # fmt: skip
    text = console.output.getvalue()
    for step in (1, 2, 3):
        assert text.count(f"ACT step {step}/3") == 2
    assert len(re.findall(r"no digit\nAfter 3 ACT steps: The board (keeps|breaks)", text)) == 2
    maze = "S    #### " + " " * 10 + "G    "
    console = _console(maze)
    with pytest.raises(Leave):
        watch_puzzles(console, maze_model, lambda: maze, max_steps=1)
    assert "ACT step 1/1" in console.output.getvalue()
    assert "After 1 ACT step: What it marks is no path" in console.output.getvalue()


def test_on_a_terminal_each_board_takes_the_place_of_the_one_before():
    console = _console(ansi=True)
    watch(console, ["a\nb", "c\nd", "e\nf"])
    assert console.output.getvalue() == "a\nb\n\x1b[2Fc\nd\n\x1b[2Fe\nf\n"
    console = _console()
    watch(console, ["a\nb", "c\nd"])
    assert console.output.getvalue() == "a\nb\n\nc\nd\n\n"


def test_other_puzzles_cannot_be_typed():
    with pytest.raises(ValueError, match="domino puzzles are not typed row by row"):
        read_board(_console(), _fresh(72, 8), lambda: "none")

"""The exact solver, against brute force and against known answers."""

import csv
import itertools
import pathlib
import time

import numba
import numpy as np
import pytest
from numba.core import caching

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.compiled import compiled
from hrm_jax.puzzles.digits.board import is_solution
from hrm_jax.puzzles.digits.search import search_many
from hrm_jax.puzzles.digits.solver import solve_many
from hrm_jax.puzzles.sudoku.board import SudokuShape, parse

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "sudoku"


def all_4x4_grids() -> np.ndarray:
    rows = np.array(list(itertools.permutations(range(1, 5))), np.int8)
    picks = np.array(list(itertools.product(range(24), repeat=4)))
    boards = rows[picks].reshape(-1, 16)
    return boards[is_solution(boards, SudokuShape.of(4))]


def test_counts_of_random_4x4_boards_agree_with_brute_force():
    grids = all_4x4_grids()
    assert len(grids) == 288
    rng = np.random.default_rng(0)
    boards = rng.integers(1, 5, (500, 16)) * (rng.random((500, 16)) < 0.3)
    boards[:300] = grids[rng.integers(0, 288, 300)] * (rng.random((300, 16)) < 0.35)
    expected = [int(((board == 0) | (board == grids)).all(1).sum()) for board in boards]
    counts, solutions, _ = solve_many(boards, SudokuShape.of(4), limit=1000)
    assert counts.tolist() == expected
    assert len(set(expected)) > 5
    for board, count, solution in zip(boards, expected, solutions, strict=True):
        if count:
            assert ((board == 0) | (board == solution)).all()
            assert is_solution(solution, SudokuShape.of(4))
        else:
            assert not solution.any()


def test_empty_boards():
    assert solve_many(np.zeros((1, 16), int), SudokuShape.of(4), limit=1000)[0] == 288
    for size in (6, 9):
        shape = SudokuShape.of(size)
        counts, solutions, guesses = solve_many(np.zeros((1, shape.cells), int), shape, 7)
        assert counts == 7  # stops at the limit
        assert is_solution(solutions, shape)
        assert guesses > 0


def test_unsolvable_boards_have_no_solution():
    shape = SudokuShape.of(9)
    contradictory = parse("11" + "." * 79)
    no_candidate = parse("12345678." + "........9" + "." * 63)
    counts, solutions, _ = solve_many(np.stack([contradictory, no_candidate]), shape)
    assert not counts.any()
    assert not solutions.any()


def test_singles_need_no_guess():
    board = parse(
        "..3.2.6..9..3.5..1..18.64....81.29..7.......8..67.82....26.95..8..2.3..9..5.1.3.."
    )
    answer = parse(
        "483921657967345821251876493548132976729564138136798245372689514814253769695417382"
    )
    counts, solutions, guesses = solve_many(board[None], SudokuShape.of(9))
    assert (counts, guesses) == (1, 0)
    np.testing.assert_array_equal(solutions[0], answer)


def test_bad_arguments_are_named():
    shape = SudokuShape.of(4)
    with pytest.raises(DataError, match="row 1, cell 3: 5 is outside"):
        solve_many(np.array([[0] * 16, [0, 0, 0, 5] + [0] * 12]), shape)
    with pytest.raises(DataError, match="expected integers"):
        solve_many(np.zeros((1, 81), int), shape)
    with pytest.raises(DataError, match="expected integers"):
        solve_many(np.zeros((1, 16)), shape)
    with pytest.raises(DataError, match="limit is 0"):
        solve_many(np.zeros((1, 16), int), shape, limit=0)


@pytest.mark.skipif(not SHARED.exists(), reason="no shared/data beside the repository")
@pytest.mark.parametrize("name", ["hardest/test.csv", "mix/test.csv"])
def test_hard_puzzles_have_one_solution_and_take_seconds(name):
    with open(SHARED / name) as file:
        rows = list(csv.DictReader(file))
    questions = np.array([parse(row["question"]) for row in rows])
    answers = np.array([parse(row["answer"]) for row in rows])
    shape = SudokuShape.of(9)
    solve_many(questions[:1], shape)  # compile
    start = time.process_time()
    counts, solutions, _ = solve_many(questions, shape)
    assert time.process_time() - start < 20
    assert (counts == 1).all()
    np.testing.assert_array_equal(solutions, answers)


def test_compiles_where_no_cache_folder_can_be_written(monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])

    def double(x):
        return 2 * x

    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(double, cache=True)
    without_cache = compiled(double)
    assert without_cache(4) == 8
    assert without_cache.targetoptions["nogil"]


def test_compiled_code_runs_beside_other_threads():
    assert search_many.targetoptions["nogil"]

"""Sudokus as CSV: `source,question,answer,rating`, one puzzle a line, checked when read."""

from __future__ import annotations

import os

import numpy as np

from hrm_jax.data.csv_files import CsvRows, write_rows
from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.boards import shared_rows
from hrm_jax.puzzles.sudoku.board import (
    Array,
    SudokuShape,
    check_rules,
    contradictions,
    digits_of_text,
    is_solution,
    to_text,
)
from hrm_jax.puzzles.sudoku.generator import SudokuPuzzles
from hrm_jax.puzzles.sudoku.solver import solve_many
from hrm_jax.puzzles.sudoku.symmetry import canonical


def read_csv(path: str | os.PathLike[str], *, check_unique: bool = True) -> SudokuPuzzles:
    """Reads and checks Sudokus.

    Args:
        path: CSV in UTF-8, packed if the name ends in `.gz`. The header names the columns:
            `question` (required; digits, `.` or `0` blank), `answer` (computed if absent),
            `rating` (whole number; guesses of the solver if absent) and `source`. Others are
            ignored, and so are empty lines.
        check_unique: Prove that each puzzle has one solution. False saves the time where answers
            and ratings are in the file; answers are still held against the rules.

    Returns:
        The puzzles, all of one size.

    Raises:
        DataError: Names file and line: not CSV, wrong number of characters, an illegal character,
            a contradictory, unsolvable or ambiguous puzzle, an answer that breaks the rules or
            does not fit its question, a rating that is no number.
    """
    rows = CsvRows.read(path)
    try:
        shape = SudokuShape.for_cells(len(rows.columns["question"][0]))
    except DataError as error:
        raise DataError(f"{path}:{rows.lines[0]}: question: {error}") from error
    questions = _boards(rows, "question", shape)
    rows.refuse(
        ~check_rules(questions, shape),
        lambda row: f"contradictory puzzle: {contradictions(questions[row], shape)}",
    )
    answers = None
    if "answer" in rows.columns:
        answers = _boards(rows, "answer", shape)
        _check_answers(rows, questions, answers, shape)
    ratings = rows.ratings()
    if check_unique or answers is None or ratings is None:
        limit = 2 if check_unique or answers is None else 1
        counts, solutions, guesses = solve_many(questions, shape, limit)
        rows.refuse(counts == 0, lambda row: "unsolvable puzzle: it has no solution")
        rows.refuse(counts > 1, lambda row: "puzzle with more than one solution")
        answers = solutions if answers is None else answers
        ratings = guesses if ratings is None else ratings
    return SudokuPuzzles(questions, answers, ratings, rows.columns.get("source"))


def write_csv(path: str | os.PathLike[str], puzzles: SudokuPuzzles) -> None:
    """Writes puzzles for `read_csv`, atomically; packed if the name ends in `.gz`.

    Raises:
        OSError: The file cannot be written.
    """
    questions, answers = map(to_text, puzzles.questions), map(to_text, puzzles.answers)
    write_rows(path, puzzles.sources, [*questions], [*answers], puzzles.ratings)


def check_overlap(
    train: SudokuPuzzles,
    test: SudokuPuzzles,
    shape: SudokuShape,
    up_to_symmetry: bool = False,
    *,
    train_name: str = "train",
    test_name: str = "test",
) -> None:
    """Refuses a test puzzle whose solution grid is in training.

    Args:
        train: Training puzzles.
        test: Test puzzles.
        shape: Shape of both.
        up_to_symmetry: Compare canonical forms, so that a grid that augmentation could make of a
            training grid counts as the same.
        train_name: Name of the training data, for the message.
        test_name: Name of the test data, for the message.

    Raises:
        DataError: Names the first such pair, counted from 1, and how many test puzzles are hit.
    """
    grids = [train.answers, test.answers]
    if up_to_symmetry:
        grids = [canonical(some, shape) for some in grids]
    shared = shared_rows(*([grid.tobytes() for grid in some] for some in grids))
    if shared:
        row, known = shared[0]
        raise DataError(
            f"{test_name}, puzzle {row + 1}: its solution grid is that of {train_name}, "
            f"puzzle {known + 1}{', up to symmetry' if up_to_symmetry else ''}; "
            f"{len(shared)} of {len(test)} test puzzles are in training like this"
        )


def _boards(rows: CsvRows, name: str, shape: SudokuShape) -> Array:
    """Turns texts into digits int8 [E, cells]; refuses other lengths and characters."""
    values, legal = digits_of_text(shape), f"a digit 1 to {shape.size}"
    if name == "answer":
        values = {character: digit for character, digit in values.items() if digit}
    else:
        legal += ", . or 0"
    size = f"{shape.cells} (as many as the question on line {rows.lines[0]}, the first one)"
    return rows.boards(name, shape.cells, size, values, legal)


def _check_answers(rows: CsvRows, questions: Array, answers: Array, shape: SudokuShape) -> None:
    rows.refuse(
        ~is_solution(answers, shape),
        lambda row: f"answer breaks the rules: {contradictions(answers[row], shape)}",
    )
    differs = (questions != 0) & (questions != answers)

    def describe(row: int) -> str:
        cell = int(np.argmax(differs[row]))
        return (
            f"answer does not fit the question: row {cell // shape.size + 1}, "
            f"column {cell % shape.size + 1} is {answers[row, cell]}, "
            f"the question has {questions[row, cell]}"
        )

    rows.refuse(differs.any(1), describe)

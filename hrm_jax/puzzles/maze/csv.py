"""Mazes as CSV: `source,question,answer,rating`, one maze a line, checked when read."""

from __future__ import annotations

import os

import numpy as np

from hrm_jax.data.csv_files import CsvRows, write_rows
from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.boards import shared_rows
from hrm_jax.puzzles.maze.board import (
    CHARACTERS,
    FREE,
    PATH,
    Array,
    MazeShape,
    is_question,
    problem,
    to_text,
)
from hrm_jax.puzzles.maze.generator import MazePuzzles, layouts
from hrm_jax.puzzles.maze.scores import path_moves
from hrm_jax.puzzles.maze.solver import solve_many


def read_csv(path: str | os.PathLike[str], shape: MazeShape | None = None) -> MazePuzzles:
    """Reads and checks mazes.

    Args:
        path: CSV in UTF-8, packed if the name ends in `.gz`. The header names the columns:
            `question` (required; `# SG`, where blanks at both ends are cells), `answer` (`# SGo`;
            computed if absent), `rating` (whole number; moves of the shortest path if absent) and
            `source`. Others are ignored, and so are empty lines.
        shape: Shape of the boards; None takes the square one that the first question fills.

    Returns:
        The mazes, all of one shape.

    Raises:
        DataError: Names file and line: not CSV, wrong number of characters, an illegal character,
            not one S and one G, no path, an answer that is not its question with a path, a path
            that is not the shortest, a rating that is no number.
    """
    rows = CsvRows.read(path)
    if shape is None:
        try:
            shape = MazeShape.for_cells(len(rows.columns["question"][0]))
        except DataError as error:
            raise DataError(f"{path}:{rows.lines[0]}: question: {error}") from error
    questions = _boards(rows, "question", shape)
    rows.refuse(~is_question(questions), lambda row: f"question: {problem(questions[row], shape)}")
    answers, moves = solve_many(questions, shape)
    rows.refuse(moves < 0, lambda row: "unsolvable maze: there is no path from S to G")
    if "answer" in rows.columns:
        answers = _boards(rows, "answer", shape)
        _check_answers(rows, questions, answers, moves, shape)
    ratings = rows.ratings()
    return MazePuzzles(
        questions,
        answers,
        moves if ratings is None else ratings,
        rows.columns.get("source"),
        shape=shape,
    )


def write_csv(path: str | os.PathLike[str], puzzles: MazePuzzles) -> None:
    """Writes mazes for `read_csv`, atomically; packed if the name ends in `.gz`.

    Raises:
        OSError: The file cannot be written.
    """
    questions, answers = map(to_text, puzzles.questions), map(to_text, puzzles.answers)
    write_rows(path, puzzles.sources, [*questions], [*answers], puzzles.ratings)


def check_overlap(
    train: MazePuzzles, test: MazePuzzles, *, train_name: str = "train", test_name: str = "test"
) -> None:
    """Refuses a test maze whose walls are those of a training maze, up to symmetry.

    Args:
        train: Training mazes.
        test: Test mazes, of the same shape.
        train_name: Name of the training data, for the message.
        test_name: Name of the test data, for the message.

    Raises:
        DataError: Names the first such pair, counted from 1, and how many test mazes are hit.
    """
    shared = shared_rows(*(layouts(some.questions, some.shape) for some in (train, test)))
    if shared:
        row, known = shared[0]
        raise DataError(
            f"{test_name}, maze {row + 1}: its walls are those of {train_name}, maze "
            f"{known + 1}, up to rotation and reflection; {len(shared)} of "
            f"{len(test)} test mazes are in training like this"
        )


def _boards(rows: CsvRows, name: str, shape: MazeShape) -> Array:
    """Turns texts into tokens uint8 [E, cells]; refuses other lengths and characters."""
    legal = CHARACTERS if name == "answer" else CHARACTERS[:-1]
    size = f"{shape.cells} for {shape.height}×{shape.width}; blanks at both ends are cells"
    values = {character: token for token, character in enumerate(legal, 1)}
    return rows.boards(name, shape.cells, size, values, f"one of {legal!r}").astype(np.uint8)


def _check_answers(
    rows: CsvRows, questions: Array, answers: Array, shortest: Array, shape: MazeShape
) -> None:
    differs = (questions != answers) & ~((questions == FREE) & (answers == PATH))

    def describe(row: int) -> str:
        cell = int(np.argmax(differs[row]))
        found, given = (to_text(boards[row, [cell]]) for boards in (answers, questions))
        return (
            f"answer does not fit the question: {shape.place(cell)} is {found!r}, the question "
            f"has {given!r}"
        )

    rows.refuse(differs.any(1), describe)
    moves = path_moves(answers, questions, shape)
    rows.refuse(
        moves < 0,
        lambda row: (
            "answer is no path: its o cells must lead from S to G in one line that "
            "neither branches nor touches itself"
        ),
    )
    rows.refuse(
        moves != shortest,
        lambda row: (
            f"answer is not the shortest path: it has {moves[row]} moves, "
            f"{shortest[row]} are enough"
        ),
    )

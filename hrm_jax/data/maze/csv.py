"""Mazes as CSV: `source,question,answer,rating`, one maze a line, checked when read."""

from __future__ import annotations

import csv
import gzip
import io
import os
import pathlib

import numpy as np

from hrm_jax import files
from hrm_jax.data.errors import DataError
from hrm_jax.data.maze.board import (
    CHARACTERS,
    FREE,
    PATH,
    Array,
    MazeShape,
    is_question,
    problem,
    to_text,
)
from hrm_jax.data.maze.generator import MazePuzzles, layouts
from hrm_jax.data.maze.scores import path_moves
from hrm_jax.data.maze.solver import solve_many
from hrm_jax.data.sudoku.csv import _is_packed, _ratings, _read_columns, _refuse


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
    path = pathlib.Path(path)
    columns, lines = _read_columns(path)
    if shape is None:
        try:
            shape = MazeShape.for_cells(len(columns["question"][0]))
        except DataError as error:
            raise DataError(f"{path}:{lines[0]}: question: {error}") from error
    where = (path, lines)
    questions = _boards(where, "question", columns["question"], shape)
    _refuse(
        path, lines, ~is_question(questions),
        lambda row: f"question: {problem(questions[row], shape)}",
    )  # fmt: skip
    answers, moves = solve_many(questions, shape)
    _refuse(
        path, lines, moves < 0, lambda row: "unsolvable maze: there is no path from S to G"
    )  # fmt: skip
    if "answer" in columns:
        answers = _boards(where, "answer", columns["answer"], shape)
        _check_answers(where, questions, answers, moves, shape)
    ratings = _ratings(path, lines, columns["rating"]) if "rating" in columns else moves
    return MazePuzzles(shape, questions, answers, ratings, columns.get("source"))


def write_csv(path: str | os.PathLike[str], puzzles: MazePuzzles) -> None:
    """Writes mazes for `read_csv`, atomically; packed if the name ends in `.gz`.

    Raises:
        OSError: The file cannot be written.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["source", "question", "answer", "rating"])
    for row in range(len(puzzles)):
        writer.writerow([
            puzzles.sources[row] if puzzles.sources is not None else "generated",
            to_text(puzzles.questions[row]),
            to_text(puzzles.answers[row]),
            int(puzzles.ratings[row]),
        ])  # fmt: skip
    data = buffer.getvalue().encode()
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(data, mtime=0) if _is_packed(path) else data)


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
    known: dict[bytes, int] = {}
    for row, layout in enumerate(layouts(train.questions, train.shape)):
        known.setdefault(layout, row)
    found = layouts(test.questions, test.shape)
    shared = [row for row, layout in enumerate(found) if layout in known]
    if shared:
        raise DataError(
            f"{test_name}, maze {shared[0] + 1}: its walls are those of {train_name}, maze "
            f"{known[found[shared[0]]] + 1}, up to rotation and reflection; {len(shared)} of "
            f"{len(found)} test mazes are in training like this"
        )


def _boards(
    where: tuple[pathlib.Path, list[int]], name: str, texts: list[str], shape: MazeShape
) -> Array:
    """Turns texts into tokens uint8 [E, cells]; refuses other lengths and characters."""
    lengths = np.array([len(text) for text in texts])
    _refuse(
        *where, lengths != shape.cells,
        lambda row: f"{name} has {lengths[row]} characters, expected {shape.cells} for "
        f"{shape.height}×{shape.width}; blanks at both ends are cells",
    )  # fmt: skip
    legal = CHARACTERS if name == "answer" else CHARACTERS[:-1]
    table = np.zeros(128, np.uint8)
    for character in legal:
        table[ord(character)] = CHARACTERS.index(character) + 1
    joined = "".join(texts).encode("ascii", "replace")  # one byte per character; ? is illegal
    boards = table[np.frombuffer(joined, np.uint8)].reshape(len(texts), shape.cells)

    def describe(row: int) -> str:
        cell = int(np.argmin(boards[row]))
        return (
            f"{name}, character {cell + 1}: {texts[row][cell]!r} is illegal, expected one of "
            f"{legal!r}"
        )

    _refuse(*where, (boards == 0).any(1), describe)
    return boards


def _check_answers(
    where: tuple[pathlib.Path, list[int]],
    questions: Array,
    answers: Array,
    shortest: Array,
    shape: MazeShape,
) -> None:
    differs = (questions != answers) & ~((questions == FREE) & (answers == PATH))

    def describe(row: int) -> str:
        cell = int(np.argmax(differs[row]))
        found, given = (to_text(boards[row, [cell]]) for boards in (answers, questions))
        return (
            f"answer does not fit the question: {shape.place(cell)} is {found!r}, the question "
            f"has {given!r}"
        )

    _refuse(*where, differs.any(1), describe)
    moves = path_moves(answers, questions, shape)
    _refuse(
        *where, moves < 0,
        lambda row: "answer is no path: its o cells must lead from S to G in one line that "
        "neither branches nor touches itself",
    )  # fmt: skip
    _refuse(
        *where, moves != shortest,
        lambda row: f"answer is not the shortest path: it has {moves[row]} moves, "
        f"{shortest[row]} are enough",
    )  # fmt: skip

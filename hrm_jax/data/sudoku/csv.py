"""Sudokus as CSV: `source,question,answer,rating`, one puzzle a line, checked when read."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import TextIO

import numpy as np
import numpy.typing as npt

from hrm_jax import files
from hrm_jax.data.errors import DataError
from hrm_jax.data.sudoku.board import (
    Array,
    SudokuShape,
    check_rules,
    contradictions,
    digits_of_text,
    is_solution,
    to_text,
)
from hrm_jax.data.sudoku.generator import SudokuPuzzles
from hrm_jax.data.sudoku.solver import solve_many
from hrm_jax.data.sudoku.symmetry import canonical


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
    path = pathlib.Path(path)
    columns, lines = _read_columns(path)
    questions_text = columns["question"]
    try:
        shape = SudokuShape.for_cells(len(questions_text[0]))
    except DataError as error:
        raise DataError(f"{path}:{lines[0]}: question: {error}") from error
    questions = _boards(path, lines, "question", questions_text, shape)
    _refuse(
        path, lines, ~check_rules(questions, shape),
        lambda row: f"contradictory puzzle: {contradictions(questions[row], shape)}",
    )  # fmt: skip
    answers = None
    if "answer" in columns:
        answers = _boards(path, lines, "answer", columns["answer"], shape)
        _check_answers(path, lines, questions, answers, shape)
    ratings = _ratings(path, lines, columns["rating"]) if "rating" in columns else None
    if check_unique or answers is None or ratings is None:
        limit = 2 if check_unique or answers is None else 1
        counts, solutions, guesses = solve_many(questions, shape, limit)
        _refuse(path, lines, counts == 0, lambda row: "unsolvable puzzle: it has no solution")
        _refuse(path, lines, counts > 1, lambda row: "puzzle with more than one solution")
        answers = solutions if answers is None else answers
        ratings = guesses if ratings is None else ratings
    return SudokuPuzzles(questions, answers, ratings, columns.get("source"))


def write_csv(path: str | os.PathLike[str], puzzles: SudokuPuzzles) -> None:
    """Writes puzzles for `read_csv`, atomically; packed if the name ends in `.gz`.

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
    train_grids, test_grids = train.answers, test.answers
    if up_to_symmetry:
        train_grids, test_grids = canonical(train_grids, shape), canonical(test_grids, shape)
    known = {grid.tobytes(): row for row, grid in reversed(list(enumerate(train_grids)))}
    shared = [row for row, grid in enumerate(test_grids) if grid.tobytes() in known]
    if shared:
        row = known[test_grids[shared[0]].tobytes()]
        raise DataError(
            f"{test_name}, puzzle {shared[0] + 1}: its solution grid is that of {train_name}, "
            f"puzzle {row + 1}{', up to symmetry' if up_to_symmetry else ''}; "
            f"{len(shared)} of {len(test_grids)} test puzzles are in training like this"
        )


def _is_packed(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).endswith(".gz")


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[TextIO]:
    if _is_packed(path):
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    else:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file


def _read_columns(path: pathlib.Path) -> tuple[dict[str, list[str]], list[int]]:
    """Returns the columns by name and the line number of each row."""
    rows: list[list[str]] = []
    lines: list[int] = []
    number = 0
    try:
        with _opened(path) as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if "question" not in header or len(set(header)) != len(header):
                raise DataError(
                    f"{path}:1: header is {','.join(header)!r}, expected distinct columns, among "
                    f"them question (source,question,answer,rating)"
                )
            for row in reader:
                number = reader.line_num
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(f"{path}:{number}: {len(row)} fields, expected {len(header)}")
                rows.append(row)
                lines.append(number)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise DataError(f"{path}: cannot be read, after line {number}: {error}") from error
    if not rows:
        raise DataError(f"{path}: there are no puzzles below the header")
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)), lines


def _boards(
    path: pathlib.Path, lines: list[int], name: str, texts: list[str], shape: SudokuShape
) -> Array:
    """Turns texts into digits int8 [E, cells]; refuses other lengths and characters."""
    lengths = np.array([len(text) for text in texts])
    _refuse(
        path, lines, lengths != shape.cells,
        lambda row: f"{name} has {lengths[row]} characters, expected {shape.cells} "
        f"(as many as the question on line {lines[0]}, the first one)",
    )  # fmt: skip
    table = np.full(128, -1, np.int8)
    for character, digit in digits_of_text(shape).items():
        table[ord(character)] = digit
    joined = "".join(texts).encode("ascii", "replace")  # one byte per character; ? is illegal
    boards = table[np.frombuffer(joined, np.uint8)].reshape(len(texts), shape.cells)
    illegal = boards < (1 if name == "answer" else 0)

    def describe(row: int) -> str:
        cell = int(np.argmax(illegal[row]))
        blank = "" if name == "answer" else ", . or 0"
        return (
            f"{name}, character {cell + 1}: {texts[row][cell]!r} is illegal, "
            f"expected a digit 1 to {shape.size}{blank}"
        )

    _refuse(path, lines, illegal.any(1), describe)
    return boards


def _check_answers(
    path: pathlib.Path, lines: list[int], questions: Array, answers: Array, shape: SudokuShape
) -> None:
    _refuse(
        path, lines, ~is_solution(answers, shape),
        lambda row: f"answer breaks the rules: {contradictions(answers[row], shape)}",
    )  # fmt: skip
    differs = (questions != 0) & (questions != answers)

    def describe(row: int) -> str:
        cell = int(np.argmax(differs[row]))
        return (
            f"answer does not fit the question: row {cell // shape.size + 1}, "
            f"column {cell % shape.size + 1} is {answers[row, cell]}, "
            f"the question has {questions[row, cell]}"
        )

    _refuse(path, lines, differs.any(1), describe)


def _ratings(path: pathlib.Path, lines: list[int], texts: list[str]) -> Array:
    legal = np.array([text.isdecimal() and len(text) < 10 for text in texts])
    _refuse(path, lines, ~legal, lambda row: f"rating is {texts[row]!r}, expected a whole number")
    return np.array([int(text) for text in texts], np.int32)


def _refuse(
    path: pathlib.Path, lines: list[int], bad: npt.ArrayLike, describe: Callable[[int], str]
) -> None:
    """Raises for the first row that is bad."""
    row = int(np.argmax(bad))
    if np.any(bad):
        raise DataError(f"{path}:{lines[row]}: {describe(row)}")

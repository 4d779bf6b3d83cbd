"""The frame of puzzles on boards: generated or from CSV files, as `.npy`, TFDS or CSV files."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import numpy as np
import numpy.typing as npt
from jaxtyping import PRNGKeyArray

from hrm_jax.data.csv_files import CsvRows, write_rows
from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import write_npy
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.fields import require
from hrm_jax.puzzles.base import Array, Puzzle, PuzzleData, Splits, Typing


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoardData(PuzzleData):
    """Puzzles on boards: a data set folder, two CSV files, or else the generator.

    Attributes:
        train_csv, test_csv: Files with the columns source, question, answer, rating.
        subsample: Random training puzzles to keep; 0 for all.
        num_aug: Augmentations of each training puzzle that are stored after it.
    """

    train_csv: str = ""
    test_csv: str = ""
    subsample: int = 0
    num_aug: int = 0

    def files(self) -> str:
        return "train_csv" if self.train_csv and self.test_csv else ""

    def unused(self) -> dict[str, str]:
        drawn = self.subsample or self.num_aug or not self.files()
        nothing = {} if drawn else {"seed": "neither subsample nor num_aug draws from the files"}
        return {**nothing, **super().unused()}

    def __post_init__(self) -> None:
        require(
            not (self.path and (self.train_csv or self.test_csv)),
            "data.path and data.train_csv/test_csv: give one or the other",
        )


class BoardShape:
    """Size of a board."""

    def sides(self) -> tuple[int, int]:
        """Rows and columns."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "×".join(map(str, self.sides()))

    @property
    def cells(self) -> int:
        """Cells of the board."""
        return math.prod(self.sides())

    def place(self, cell: int) -> str:
        """Names a cell for messages: row and column, counted from 1."""
        row, column = divmod(cell, self.sides()[1])
        return f"row {row + 1}, column {column + 1}"


@dataclasses.dataclass(frozen=True)
class BoardPuzzles:
    """Puzzles on boards of one shape: as given and as solved, integers [E, cells], and how hard
    they are, int32 [E]."""

    questions: Array
    answers: Array
    ratings: Array
    sources: list[str] | None = None
    shape: Any = dataclasses.field(kw_only=True)

    def __len__(self) -> int:
        return len(self.questions)

    def take(self, rows: npt.ArrayLike) -> Self:
        """Returns the puzzles with the given row numbers, in that order."""
        rows = np.asarray(rows, np.int64)
        return dataclasses.replace(
            self,
            questions=self.questions[rows],
            answers=self.answers[rows],
            ratings=self.ratings[rows],
            sources=None if self.sources is None else [self.sources[row] for row in rows],
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BoardPuzzle(Puzzle):
    """A puzzle whose questions and answers are boards of one character a cell. `board_shape` gives
    the usual `BoardShape` with so many cells, or raises DataError; `csv_hint` is what else to say
    where a line of a CSV file has the wrong length."""

    formats: tuple[str, ...] = ("npy", "tfds", "csv")
    board_shape: Callable[[int], Any]
    csv_hint: str = ""

    # --- what a kind of board says ----------------------------------------------------------------

    def given_shape(self, data: Any) -> Any:
        """The shape of boards in CSV files; None takes the usual one that the first fills."""
        return None

    def generate(self, data: Any) -> tuple[BoardPuzzles, BoardPuzzles]:
        """Draws train and test puzzles, of which no two share their essence."""
        raise NotImplementedError

    def characters(self, shape: Any, *, answer: bool) -> tuple[Mapping[str, int], str]:
        """The value of each legal character of a question or answer, and how to call them."""
        raise NotImplementedError

    def solved(
        self, rows: CsvRows, questions: Array, answers: Array | None, shape: Any
    ) -> tuple[Array, Array]:
        """Checks questions and answers (if any) by `rows.refuse`; returns answers and ratings."""
        raise NotImplementedError

    def essence(self, puzzles: BoardPuzzles, data: Any) -> tuple[list[bytes], str]:
        """What of each puzzle training and test must not share, and that they do, in words."""
        raise NotImplementedError

    def tokens(self, boards: Array) -> Array:
        """Boards as tokens, uint8 of the same shape."""
        return boards.astype(np.uint8)

    def augmented(self, puzzles: BoardPuzzles, num_aug: int, seed: int) -> tuple[Array, Array]:
        """Tokens of each puzzle and then random augmentations, uint8 [E, 1 + num_aug, cells] twice,
        made in advance as in the reference's builders."""
        boards = [self.tokens(x) for x in (puzzles.questions, puzzles.answers)]
        inputs, labels = (np.repeat(x[:, None], 1 + num_aug, axis=1) for x in boards)
        draw = functools.partial(self.augment, self.data())
        augment = jax.jit(jax.vmap(draw, in_axes=(0, None, None)))
        key = jax.random.key(seed)
        for row, pair in enumerate(zip(*boards, strict=True)):
            keys = jax.random.split(jax.random.fold_in(key, row), num_aug)
            inputs[row, 1:], labels[row, 1:] = augment(keys, *pair)
        return inputs, labels

    # --- what all have in common ------------------------------------------------------------------

    def typing(self, seq_len: int) -> Typing | None:
        shape = self.board_shape(seq_len)
        values, _ = self.characters(shape, answer=False)
        return Typing(f"a {shape} {self.painter.name}", {c: c for c in values})

    def augment(
        self, data: Any, key: PRNGKeyArray, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return self.transform(key, inputs), self.transform(key, labels)

    def puzzles(self, data: Any) -> tuple[BoardPuzzles, BoardPuzzles]:
        """Generates or reads train and test puzzles, of which none is shared."""
        if bool(data.train_csv) != bool(data.test_csv):
            raise DataError("train_csv and test_csv belong together: give both or neither")
        if data.train_csv:
            files = (data.train_csv, data.test_csv)
            train, test = (self.read_boards(file, self.given_shape(data)) for file in files)
            if train.shape != test.shape:
                raise DataError(
                    f"{files[1]}: boards are {test.shape}, those of {files[0]} {train.shape}"
                )
            self.refuse_overlap(train, test, data, *files)
        else:
            train, test = self.generate(data)
        if data.subsample:
            if not 1 <= data.subsample <= len(train):
                raise DataError(
                    f"subsample is {data.subsample}, expected 1 to {len(train)} training puzzles"
                )
            random = np.random.Generator(np.random.PCG64(data.seed))
            train = train.take(random.choice(len(train), data.subsample, replace=False))
        return train, test

    def puzzle_set(self, puzzles: BoardPuzzles, num_aug: int = 0, seed: int = 0) -> PuzzleSet:
        """Puzzles as tokens; pad, ignore label and blank identifier are 0, as in the reference. A
        puzzle as it is and then its augmentations, each a puzzle of its own, form a group."""
        if num_aug < 0:
            raise DataError(f"num_aug is {num_aug}, expected 0 or more")
        if num_aug:
            inputs, labels = self.augmented(puzzles, num_aug, seed)
        else:
            inputs, labels = (self.tokens(x)[:, None] for x in (puzzles.questions, puzzles.answers))
        vocab_size = self.vocab_size(puzzles.shape.cells)
        return PuzzleSet.grouped(inputs, labels, vocab_size, 0, puzzles.ratings)

    def make(self, data: Any) -> tuple[PuzzleSet, PuzzleSet]:
        train, test = self.puzzles(data)
        return self.puzzle_set(train, data.num_aug, data.seed), self.puzzle_set(test)

    def write(self, folder: pathlib.Path, data: Any, file_format: str) -> Identity:
        if file_format == "csv" and data.num_aug:
            raise DataError(
                "num_aug: CSV holds the puzzles alone; augment when training, or use npy"
            )
        puzzles = train, test = self.puzzles(data)
        sets = self.puzzle_set(train, data.num_aug, data.seed), self.puzzle_set(test)
        if file_format == "tfds":
            from hrm_jax.puzzles.tfds_files import write_tfds  # slow import, and optional

            write_tfds(folder, self.name, *sets)
        for split, some, part in zip(("train", "test"), puzzles, sets, strict=True):
            if file_format == "npy":
                write_npy(folder, split, part)
            elif file_format == "csv":
                self.write_csv(folder / f"{split}.csv", some)
        return self.identify(*sets, data.seed, train_puzzles=len(train))

    def load(self, data: Any, cache: pathlib.Path | None = None) -> Splits:
        return super().load(data, None if data.train_csv or data.test_csv else cache)

    def read_csv(self, path: str | os.PathLike[str]) -> PuzzleSet:
        return self.puzzle_set(self.read_boards(path))

    def read_boards(self, path: str | os.PathLike[str], shape: Any = None) -> BoardPuzzles:
        """Reads and checks puzzles, by default of the usual shape that the first question fills.

        They are CSV in UTF-8, packed if the name ends in `.gz`. The header names the columns:
        `question` (required), `answer` and `rating` (computed if absent) and `source`. Others are
        ignored, and so are empty lines. A DataError names file and line.
        """
        rows = CsvRows.read(path)
        if shape is None:
            try:
                shape = self.board_shape(len(rows.columns["question"][0]))
            except DataError as error:
                raise DataError(f"{path}:{rows.lines[0]}: question: {error}") from error

        def column(name: str) -> Array:
            values, legal = self.characters(shape, answer=name == "answer")
            size = f"{shape.cells} for {shape}{self.csv_hint}"
            return rows.boards(name, shape.cells, size, values, legal)

        questions = column("question")
        given = column("answer") if "answer" in rows.columns else None
        rated = rows.ratings()
        answers, ratings = self.solved(rows, questions, given, shape)
        return BoardPuzzles(
            questions,
            answers,
            ratings if rated is None else rated,
            rows.columns.get("source"),
            shape=shape,
        )

    def write_csv(self, path: str | os.PathLike[str], puzzles: BoardPuzzles) -> None:
        """Writes puzzles for `read_boards`, atomically; packed if the name ends in `.gz`."""
        questions, answers = (
            [self.to_text(self.tokens(board)) for board in boards]
            for boards in (puzzles.questions, puzzles.answers)
        )
        write_rows(path, puzzles.sources, questions, answers, puzzles.ratings)

    def refuse_overlap(
        self,
        train: BoardPuzzles,
        test: BoardPuzzles,
        data: Any,
        train_name: str = "train",
        test_name: str = "test",
    ) -> None:
        """Refuses test puzzles that share their essence with a training puzzle."""
        known: dict[bytes, int] = {}
        for row, item in enumerate(self.essence(train, data)[0]):
            known.setdefault(item, row)
        items, words = self.essence(test, data)
        found = [(row, known[item]) for row, item in enumerate(items) if item in known]
        if found:
            row, first = found[0]
            raise DataError(
                f"{test_name}, puzzle {row + 1}: {words} {train_name}, puzzle {first + 1}; "
                f"{len(found)} of {len(test)} test puzzles are in training like this"
            )


def read_board(text: str, shape: BoardShape, values: Mapping[str, int], legal: str) -> Array:
    """A board from one line of text, row by row: the value of each character, int8 [cells]."""
    if len(text) != shape.cells:
        raise DataError(f"board has {len(text)} characters, expected {shape.cells}")
    for cell, character in enumerate(text):
        if character not in values:
            raise DataError(f"{shape.place(cell)}: {character!r} is illegal, expected {legal}")
    return np.array([values[character] for character in text], np.int8)


def apart(
    generate: Callable[..., BoardPuzzles],
    essence: Callable[[BoardPuzzles], list[bytes]],
    num_train: int,
    num_test: int,
) -> tuple[BoardPuzzles, BoardPuzzles]:
    """Training and test puzzles that share no essence; `generate` takes count, stream, accept."""
    train = generate(count=num_train)
    taken = set(essence(train))
    return train, generate(
        count=num_test, stream=1, accept=lambda some: [x not in taken for x in essence(some)]
    )


def refuse_changed(
    rows: CsvRows, questions: Array, answers: Array, free: Array, shape: BoardShape
) -> None:
    """Refuses answers that differ from their question [E, cells] in cells that are not free."""
    differs = (questions != answers) & ~free

    def describe(row: int) -> str:
        cell = int(np.argmax(differs[row]))
        answer, question = (rows.columns[name][row][cell] for name in ("answer", "question"))
        return (
            f"answer does not fit the question: {shape.place(cell)} is {answer!r}, the question "
            f"has {question!r}"
        )

    rows.refuse(differs.any(1), describe)


Accept = Callable[[BoardPuzzles], npt.ArrayLike] | None
"""Says which of some puzzles may be used, bool [n]; None: all."""


def distinct(
    count: int,
    seed: int,
    stream: int,
    draw: Callable[[int, int], BoardPuzzles],
    accept: Accept,
    *,
    at_a_time: tuple[int, int],
    patience: int,
    wanted: str,
) -> BoardPuzzles:
    """Draws puzzles until there are `count` with different questions.

    The first ones are taken, so the result does not depend on how many are drawn at a time. A
    stream is an independent sequence under the same seed.

    Args:
        draw: Draws the puzzles numbered from the first number on, so many of them (or those of
            them that may be used).
        at_a_time: Least and greatest number to draw at a time.
        patience: Puzzles in a row of which none is new before giving up.
        wanted: What puzzles they are, and what to allow where there are too few.
    """
    if count < 1 or not 0 <= seed < 2**32 or not 0 <= stream < 2**31:
        raise DataError(
            f"count is {count}, seed {seed}, stream {stream}; expected at least 1 puzzle, a seed "
            f"in [0, 2**32) and a stream in [0, 2**31)"
        )
    found: list[BoardPuzzles] = []
    seen: set[bytes] = set()
    number, idle = 0, 0
    while len(seen) < count:
        batch = int(np.clip(count - len(seen) + idle, *at_a_time))
        part = draw(number, batch)
        number += batch
        allowed = np.ones(len(part), bool) if accept is None else np.asarray(accept(part), bool)
        rows = []
        for row in np.flatnonzero(allowed):
            text = part.questions[row].tobytes()
            if text not in seen and len(seen) < count:
                seen.add(text)
                rows.append(row)
        idle = 0 if rows else idle + batch
        if idle > patience:
            raise DataError(f"found only {len(seen)} distinct ones of {count}: {wanted}")
        found.append(part.take(rows))
    return BoardPuzzles(
        np.concatenate([part.questions for part in found]),
        np.concatenate([part.answers for part in found]),
        np.concatenate([part.ratings for part in found]),
        shape=found[0].shape,
    )

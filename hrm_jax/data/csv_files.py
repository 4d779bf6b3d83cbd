"""CSV files of puzzles on boards: `source,question,answer,rating`, one puzzle a line."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax import files
from hrm_jax.data.errors import DataError
from hrm_jax.data.unpacked import Limited
from hrm_jax.reading import unpacked_limit

Array = npt.NDArray[Any]

NAMES = {
    **dict.fromkeys(("question", "quizzes", "quiz", "puzzle", "puzzles"), "question"),
    **dict.fromkeys(("answer", "solutions", "solution"), "answer"),
    **dict.fromkeys(("rating", "difficulty"), "rating"),
}
"""What columns are called elsewhere, without regard to case."""

_LARGEST = 2**32  # bytes, unpacked
_LONGEST_LINE = 2**20
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,2})?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class CsvRows:
    """The rows of a CSV file, as text."""

    path: pathlib.Path
    columns: dict[str, list[str]]  # by their names; `question` is there
    lines: list[int]  # number of each row's, counted from 1

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CsvRows:
        """Reads UTF-8, packed if the name ends in `.gz`; a `DataError` names file and line.

        Columns may have the names that they have in Kaggle's files, `quizzes,solutions` for
        instance, see `NAMES`; others are kept and not looked at.
        """
        path = pathlib.Path(path)
        rows: list[list[str]] = []
        lines: list[int] = []
        number = 0
        try:
            with (
                Limited(files.opened(path), path, unpacked_limit(_LARGEST)) as packed,
                io.TextIOWrapper(packed, encoding="utf-8-sig", newline="") as file,
            ):
                reader = csv.reader(_bounded(file, path))
                found = next(reader, [])
                header = [NAMES.get(name.strip().lower(), name.strip()) for name in found]
                if "question" not in header or len(set(header)) != len(header):
                    raise DataError(
                        f"{path}:1: header is {','.join(found)[:200]!r}, expected distinct "
                        f"columns, among them question (source,question,answer,rating; or "
                        f"{', '.join(NAMES)})"
                    )
                for row in reader:
                    number = reader.line_num
                    if not row:
                        continue
                    if len(row) != len(header):
                        raise DataError(
                            f"{path}:{number}: {len(row)} fields, expected {len(header)}"
                        )
                    rows.append(row)
                    lines.append(number)
        except DataError:
            raise
        except FileNotFoundError as error:
            raise DataError(f"{path}: there is no such file") from error
        except Exception as error:  # unpacking and csv raise many kinds
            raise DataError(f"{path}: cannot be read, after line {number}: {error}") from error
        if not rows:
            raise DataError(f"{path}: there are no puzzles below the header")
        columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
        return cls(path, columns, lines)

    def refuse(self, bad: npt.ArrayLike, describe: Callable[[int], str]) -> None:
        """Raises `DataError`, with file and line, for the first row that is `bad`, bool [E]."""
        if np.any(bad):
            row = int(np.argmax(bad))
            raise DataError(f"{self.path}:{self.lines[row]}: {describe(row)}")

    def boards(
        self, name: str, cells: int, size: str, values: Mapping[str, int], legal: str
    ) -> Array:
        """Turns the texts of column `name` into boards, int8 [E, cells].

        `values`, from 0 on, are those of the legal (ASCII) characters; `size` and `legal` are what
        the `DataError` for another length or character says to have been expected.
        """
        texts = self.columns[name]
        lengths = np.array([len(text) for text in texts])
        self.refuse(
            lengths != cells, lambda row: f"{name} has {lengths[row]} characters, expected {size}"
        )
        table = np.full(128, -1, np.int8)
        for character, value in values.items():
            table[ord(character)] = value
        joined = "".join(texts).encode("ascii", "replace")  # one byte per character; ? is illegal
        boards = table[np.frombuffer(joined, np.uint8)].reshape(len(texts), cells)

        def describe(row: int) -> str:
            cell = int(np.argmax(boards[row] < 0))
            return (
                f"{name}, character {cell + 1}: {texts[row][cell]!r} is illegal, expected {legal}"
            )

        self.refuse((boards < 0).any(1), describe)
        return boards

    def ratings(self) -> Array | None:
        """The column `rating`, numbers from 0 on: int32 [E] if all are whole, else float32 [E];
        None without it."""
        texts = self.columns.get("rating")
        if texts is None:
            return None
        legal = np.array([_NUMBER.fullmatch(text) is not None for text in texts])
        self.refuse(
            ~legal,
            lambda row: (
                f"rating is {texts[row]!r}, expected a whole number or a decimal one, from 0 on"
            ),
        )
        values = np.array([float(text) for text in texts])
        self.refuse(values >= 2**31, lambda row: f"rating is {texts[row]!r}, expected less")
        return values.astype(np.int32 if (values == np.floor(values)).all() else np.float32)


def _bounded(file: io.TextIOBase, path: pathlib.Path) -> Iterator[str]:
    """The lines of a file, none of which may fill the memory."""
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise DataError(
                f"{path}:{number}: expected a line of less than {_LONGEST_LINE} characters"
            )
        yield line


def write_rows(
    path: str | os.PathLike[str],
    sources: Sequence[str] | None,
    questions: Sequence[str],
    answers: Sequence[str],
    ratings: Array,
) -> None:
    """Writes what `CsvRows.read` reads, atomically; packed if the name ends in `.gz`.

    Questions and answers have one character per cell; without `sources` all are generated.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["source", "question", "answer", "rating"])
    sources = ["generated"] * len(questions) if sources is None else sources
    writer.writerows(zip(sources, questions, answers, ratings.tolist(), strict=True))
    data = buffer.getvalue().encode()
    if os.fspath(path).endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(data)

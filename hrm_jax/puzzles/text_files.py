"""Puzzles as people keep them in text files: a line each, or row by row."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import itertools
import os
import re
from typing import NamedTuple

from hrm_jax import files
from hrm_jax.data.csv_files import NAMES
from hrm_jax.data.errors import DataError, reading
from hrm_jax.data.unpacked import Limited
from hrm_jax.puzzles.base import Array, Puzzle
from hrm_jax.reading import unpacked_limit

_LARGEST = 2**28  # bytes, unpacked
_AFTER = " \t,:;#"  # what may stand between a puzzle and a name, rating or solution behind it


class Wrong(NamedTuple):
    """Lines that are no puzzle, counted from 1, and why."""

    line: int
    why: str


def read_text(path: str | os.PathLike[str]) -> str:
    """A file in UTF-8, or UTF-16 with its mark, packed if its name ends in `.gz`; DataError names
    it."""
    with (
        reading(path, "puzzles as text in UTF-8"),
        Limited(files.opened(path), path, unpacked_limit(_LARGEST)) as file,
    ):
        data = file.read()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if wide else "utf-8-sig")


def read_questions(text: str, puzzle: Puzzle, seq_len: int) -> tuple[list[Array], list[Wrong]]:
    """The puzzles of a text, tokens [S] each, and the lines that are none.

    A puzzle is a line, see `read_line`, or as many lines as the board has rows, with blank or ruled
    lines between boxes and boards. Empty lines are left out, and those that begin with `#` and are
    no board. Under a CSV header (`question`, Kaggle's `quizzes,solutions`, …) that column counts.
    """
    reader = _Reader(puzzle, seq_len)
    column = None
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), 1):
        if column is not None and line.strip():
            fields = next(csv.reader([line]), [])
            if len(fields) <= column:
                reader.wrong.append(Wrong(number, f"{len(fields)} fields, expected {column + 1}"))
            else:
                reader.add_line(number, fields[column])
        elif not reader.begun and (found := _question_column(line)) is not None:
            column = found
        else:
            reader.add(number, line)
    reader.end_rows()
    return reader.questions, sorted(reader.wrong)


def read_line(line: str, puzzle: Puzzle, seq_len: int) -> Array:
    """A puzzle on one line, tokens [S]; DataError where it is none.

    Cells may be ruled (`53. .7. | …`), and behind the board may stand something else, as in
    `puzzle:rating:solution` or `puzzle name`.
    """
    cells, legal = _cells(line, puzzle, seq_len)
    if cells is not None and len(cells) == seq_len:
        return puzzle.parse(cells, seq_len)
    text = line if " " in legal else line.strip()
    head, tail = text[:seq_len], text[seq_len:]
    if tail[:1] and tail[0] in _AFTER and set(head) <= legal and not set(tail) <= legal:
        return puzzle.parse(head, seq_len)
    return puzzle.parse(line, seq_len)


def _cells(line: str, puzzle: Puzzle, seq_len: int) -> tuple[str | None, set[str]]:
    """The cells of a line without what may stand between them, None where something else stands
    there, and the characters that cells may have."""
    typing = puzzle.typing(seq_len)
    characters = typing.characters if typing else {}
    known = set(line) <= set(characters)
    legal = {character for character, cell in characters.items() if cell}
    return "".join(map(characters.__getitem__, line)) if known else None, legal


def _question_column(line: str) -> int | None:
    names = [NAMES.get(name.strip().lower()) for name in line.split(",")]
    return names.index("question") if "question" in names else None


@dataclasses.dataclass
class _Reader:
    """Takes lines one after the other; rows wait in `blocks`, each with the number of its line."""

    puzzle: Puzzle
    seq_len: int
    questions: list[Array] = dataclasses.field(default_factory=list)
    wrong: list[Wrong] = dataclasses.field(default_factory=list)
    blocks: list[list[tuple[int, str]]] = dataclasses.field(default_factory=lambda: [[]])
    begun: bool = False

    def add(self, number: int, line: str) -> None:
        cells, legal = _cells(line, self.puzzle, self.seq_len)
        rows, columns = self.puzzle.shape(self.seq_len) or (1, self.seq_len)
        if rows > 1 and cells is not None and len(cells) == columns:
            self.blocks[-1].append((number, cells))
            self.begun = True
        elif not line.strip() or cells == "":
            self.blocks.append([])
        else:
            self.end_rows()
            comment = line.lstrip().startswith("#") and not set(line) <= legal
            if not comment:
                self.add_line(number, line)

    def add_line(self, number: int, line: str) -> None:
        self.begun = True
        try:
            self.questions.append(read_line(line, self.puzzle, self.seq_len))
        except DataError as error:
            self.wrong.append(Wrong(number, str(error)))

    def end_rows(self) -> None:
        """Makes boards of the rows: of whole ones in a block, or of equal blocks that make some."""
        blocks = [block for block in self.blocks if block]
        self.blocks = [[]]
        height, columns = self.puzzle.shape(self.seq_len) or (1, self.seq_len)
        for whole, some in itertools.groupby(blocks, lambda block: len(block) % height == 0):
            group = list(some)
            rows = [row for block in group for row in block]
            sizes = {len(block) for block in group}
            if whole or (len(sizes) == 1 and height % min(sizes) == 0 == len(rows) % height):
                for start in range(0, len(rows), height):
                    board = rows[start : start + height]
                    self.add_line(board[0][0], "".join(cells for _, cells in board))
            else:
                why = f"{len(rows)} rows of {columns} cells, expected boards of {height} rows"
                self.wrong.append(Wrong(rows[0][0], why))

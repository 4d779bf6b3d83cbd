"""Boards with one symbol or colour in each cell: a Sudoku, a maze, an ARC grid, a Latin square."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hrm_jax.puzzles.drawing.painter import Array, Painter, Shown, differs
from hrm_jax.puzzles.drawing.pen import BLACK, BLUE, CHANGED, GREY, RED, WHITE, WRONG, Pen

ANSI_END = "\x1b[0m"
_ANSI = {"given": "\x1b[1m", "filled": "\x1b[34m", "changed": "\x1b[30;43m", "conflict": "\x1b[31m"}
_ALONE = 420  # pixels of a board that stands alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridPainter(Painter):
    """Shows grids. Subclasses may draw more into their cells: `fill`, `over`, `mark`.

    The character of a token is "." for a blank, "?" for what no board should hold. Only characters
    that are `written` stand in cells, the others show by their colour in `fills` alone, which is a
    dark one where something is written; None writes all but blanks. `boxes` are rows and columns of
    a box, which thick lines frame, by sequence length. `units` gives the cells [U, N] of the groups
    in which no character may stand twice.
    """

    legend: str = "Bold black: given. Blue: filled in. Red: not as in the right answer."
    characters: str  # by token
    words: tuple[str, ...] = ()  # for people who ask what stands in a cell; () takes the characters
    written: str | None = None
    fills: Mapping[int, str] = dataclasses.field(default_factory=dict)
    boxes: Mapping[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    units: Callable[[int], Array] | None = None
    columns: int | None = None  # of boards that are not square
    line: str | None = GREY  # colour of the thin lines between cells
    cell: int = 36  # most pixels of one
    gap: str = " "  # between cells that are printed without marks

    def shape(self, seq_len: int) -> tuple[int, int]:
        """Rows and columns of a board; ValueError if there is none."""
        columns = self.columns or math.isqrt(seq_len)
        rows = seq_len // max(1, columns)
        if not rows or rows * columns != seq_len or (not self.columns and rows != columns):
            kind = f"with {columns} columns" if self.columns else "on a square"
            raise ValueError(f"{seq_len} cells make no board {kind}")
        return rows, columns

    def symbols(self, board: Array) -> list[str]:
        """The character of each cell, "?" of tokens that have none."""
        known = self.characters[: self.vocab_sizes.get(len(board))]
        return [known[t] if 0 <= t < len(known) else "?" for t in board.tolist()]

    def _is_written(self, symbol: str) -> bool:
        return symbol == "?" or self.written is None or symbol in self.written

    def _stands(self, board: Array) -> Array:
        """Which cells hold a symbol, bool [S]."""
        symbols = self.symbols(board)
        return np.array([self._is_written(symbol) and symbol not in "?." for symbol in symbols])

    def conflicts(self, question: Array, board: Array) -> Array:
        """Which cells contradict a given, or hold what stands twice in a unit: bool [S]."""
        found = self._stands(question) & (board != question)
        if self.units:
            cells = self.units(len(board))
            unit = board[cells]
            twice = (unit[:, :, None] == unit[:, None, :]).sum(-1) > 1
            found[cells[twice & self._stands(board)[cells]]] = True
        return found

    # --- pictures ---

    def width(self, question: Array) -> int:
        longest = max(self.shape(len(question)))
        return longest * max(8, min(self.cell, _ALONE // longest))

    def height(self, side: int, question: Array) -> int:
        shape = self.shape(len(question))
        return shape[0] * self._pixels(side, shape)

    def _pixels(self, side: int, shape: tuple[int, int]) -> int:
        return min(self.cell, side // max(shape))

    def draw(self, pen: Pen, side: int, shown: Shown) -> None:
        """As `Painter.draw`; without a label, cells that break a rule are red."""
        board, label, before = shown.board, shown.label, shown.before
        shape = self.shape(len(board))
        size = self._pixels(side, shape)
        places = [(col * size, row * size) for row, col in np.ndindex(shape)]
        wrong, changed = differs(board, label), board != (board if before is None else before)
        red = wrong if label is not None else self.conflicts(shown.question, board)
        cells = zip(board.tolist(), wrong.tolist(), changed.tolist(), strict=True)
        colours = [self.fill(*cell) for cell in cells]
        for (x, y), colour, new in zip(places, colours, changed, strict=True):
            edge = CHANGED if new and colour != CHANGED else None
            pen.box(x, y, size, size, colour, edge, max(1, size / 8))
        self.over(pen, size, board.reshape(shape))
        given = self._stands(shown.question)
        for i, symbol in enumerate(self.symbols(board)):
            filled = colours[i] not in (None, WRONG, CHANGED)
            if size >= 9 and symbol != "." and self._is_written(symbol):
                ink = WHITE if filled else BLACK if given[i] else BLUE
                if not filled and (red[i] or symbol == "?"):
                    ink = RED
                x, y = (at + size / 2 for at in places[i])
                pen.text(x, y, symbol, 0.64 * size, ink, bool(filled or given[i]), "mm")
            if wrong[i]:
                self.mark(pen.at(*places[i]), size)
        self._draw_lines(pen, size, *shape)

    def _draw_lines(self, pen: Pen, size: int, rows: int, columns: int) -> None:
        high, wide = self.boxes.get(rows * columns, (rows, columns))
        height, width = rows * size, columns * size
        lines = [(i % high == 0, [(0, i * size), (width, i * size)]) for i in range(rows + 1)]
        lines += [(i % wide == 0, [(i * size, 0), (i * size, height)]) for i in range(columns + 1)]
        for thick, line in sorted(lines):  # thick ones on top
            if thick:
                pen.line(line, BLACK, max(1.5, size / 14))
            elif self.line:
                pen.line(line, self.line)

    def fill(self, token: int, wrong: bool, changed: bool) -> str | None:
        """The colour of a cell."""
        return WRONG if wrong else CHANGED if changed else self.fills.get(token)

    def over(self, pen: Pen, size: int, grid: Array) -> None:
        """Draws over the colours of the cells, `size` pixels each, and below what is written."""

    def mark(self, pen: Pen, size: int) -> None:
        """Marks a wrong cell beyond its colour."""

    # --- text ---

    def text(
        self, question: Array, board: Array, *, before: Array | None = None, colour: bool = False
    ) -> str:
        rows, columns = self.shape(len(board))
        high, wide = self.boxes.get(len(board), (rows, columns))
        cells, gap, bar, corner = self.symbols(board), self.gap, " | ", "---"
        if before is not None:
            gap, bar, corner = "", "|", "+"
            given, changed = self._stands(question).tolist(), (board != before).tolist()
            conflicts = self.conflicts(question, board).tolist()
            parts = zip(cells, given, changed, conflicts, strict=True)
            cells = [_coloured(*x) if colour else _marked(*x[:3]) for x in parts]
        length = 3 if before is not None else 1
        rule = corner.join(["-" * (wide * (length + len(gap)) - len(gap))] * (columns // wide))
        lines = []
        for row in range(0, len(cells), columns):
            if row and row // columns % high == 0:
                lines.append(rule)
            starts = range(row, row + columns, wide)
            lines.append(bar.join(gap.join(cells[i : i + wide]) for i in starts))
        return "\n".join(lines)

    def marks(self, colour: bool) -> str:
        if colour:
            return "   ".join(f"{code}{name}{ANSI_END}" for name, code in _ANSI.items())
        return "[5] given   *5 changed since the step before   ? no digit"

    # --- page ---

    def page(self, seq_len: int | None) -> dict[str, Any]:
        size = self.vocab_sizes.get(seq_len, len(self.characters))
        characters = self.characters[:size]
        written = [c if self._is_written(c) else "" for c in characters]
        return {
            "name": self.name,
            "layout": "grid",
            "columns": self.columns,
            "boxes": self.boxes.get(seq_len or 0),
            "lines": self.line is not None,
            "characters": characters,
            "words": (self.words or tuple(characters))[:size],
            "written": ["·" if c == "." else c for c in written],
            "given": [token for token, c in enumerate(written) if c and c not in "?."],
            "fills": self.fills,
        }


def _marked(symbol: str, given: bool, changed: bool) -> str:
    return f"{'*' if changed else '[' if given else ' '}{symbol}{']' if given else ' '}"


def _coloured(symbol: str, given: bool, changed: bool, conflict: bool) -> str:
    codes = _ANSI["given" if given else "filled"]
    codes += _ANSI["changed"] if changed else ""
    codes += _ANSI["conflict"] if conflict else ""
    return f"{codes} {symbol} {ANSI_END}"

"""How mazes are shown."""

import dataclasses
from typing import Any

import numpy as np

from hrm_jax.puzzles.drawing.grid import ANSI_END, GridPainter
from hrm_jax.puzzles.drawing.painter import Array
from hrm_jax.puzzles.drawing.pen import BLUE, CHANGED, GREEN, RED, WRONG, Pen
from hrm_jax.puzzles.maze.board import CHARACTERS, GOAL, PAD, PATH, START, VOCAB_SIZE, WALL

_ANSI = {"#": "\x1b[100m", "o": "\x1b[44m", "S": "\x1b[1;32m", "G": "\x1b[1;31m", "?": "\x1b[31m"}
_CHANGED = "\x1b[30;43m"
_WRONG_WALL = "#8c3a44"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MazePainter(GridPainter):
    """Draws the path as a line, and prints walls and path as areas."""

    def fill(self, token: int, wrong: bool, changed: bool) -> str | None:
        if token == WALL:
            return _WRONG_WALL if wrong else self.fills[WALL]
        if token in (START, GOAL):
            return self.fills[token]
        return CHANGED if changed else super().fill(token, wrong, changed)

    def over(self, pen: Pen, size: int, grid: Array) -> None:
        on_path = np.pad((grid >= START) & (grid <= PATH), (0, 1))
        thick = max(1.5, size / 5)
        for row, col in np.argwhere(on_path).tolist():
            x, y = (col + 0.5) * size, (row + 0.5) * size
            for down, right in ((1, 0), (0, 1)):
                if on_path[row + down, col + right]:
                    pen.line([(x, y), (x + right * size, y + down * size)], BLUE, thick)
            pen.dot(x, y, 0.7 * thick, BLUE)
        for row, col in np.argwhere((grid == START) | (grid == GOAL)).tolist():
            pen.box(col * size, row * size, size, size, self.fills[grid[row, col]])

    def mark(self, pen: Pen, size: int) -> None:
        pen.box(0, 0, size, size, edge=RED, thick=max(1, size / 10))

    def text(
        self, question: Array, board: Array, *, before: Array | None = None, colour: bool = False
    ) -> str:
        if before is None:
            return super().text(question, board)
        pairs = zip(self.symbols(before), self.symbols(board), strict=True)
        cells = [(_coloured if colour else _marked)(*pair) for pair in pairs]
        rows, columns = self.shape(len(board))
        lines = ["".join(cells[row * columns : (row + 1) * columns]) for row in range(rows)]
        rule = f"+{'-' * columns * (1 + colour)}+"
        return "\n".join([rule, *(f"|{line}|" for line in lines), rule])

    def marks(self, colour: bool) -> str:
        if not colour:
            return "# wall   o path   O path since this step   x no path any more   ? none of these"
        marks = {"wall": _ANSI["#"], "path": _ANSI["o"], "changed": _CHANGED}
        return "   ".join(f"{code} {name} {ANSI_END}" for name, code in marks.items())

    def verdict(self, answer: Array, label: Array, verdicts: Any) -> str:
        if verdicts.get("valid"):
            return "a path, but not a shortest one"
        return f"not a path, {super().verdict(answer, label, verdicts)}"

    def page(self, seq_len: int | None) -> dict[str, Any]:
        fills = {WALL: "var(--wall)", START: "var(--right)", GOAL: "var(--right)"}
        return super().page(seq_len) | {
            "fills": fills, "dots": {PATH: "var(--path)"}, "redden": True,
        }  # fmt: skip


def _marked(old: str, new: str) -> str:
    if old == new:
        return new
    return "O" if new == "o" else "x" if (old, new) == ("o", " ") else new


def _coloured(old: str, new: str) -> str:
    code = _CHANGED if old != new else _ANSI.get(new)
    shown = " " if new in "#o" and old == new else new
    return f"{code}{shown} {ANSI_END}" if code else "  "


PAINTER = MazePainter(
    name="Maze",
    plural="mazes",
    legend="Blue: the path. Green S, red G. Red frames: not as in the right answer. A path that is "
    "as short as the right answer's is solved too.",
    vocab_sizes={None: VOCAB_SIZE},
    characters="?" + CHARACTERS,
    words=("pad", "wall", "free", "start", "goal", "path"),
    written="SG",
    fills={PAD: WRONG, WALL: "#3c4048", START: GREEN, GOAL: RED, PATH: "#bcd7f7"},
    line=None,
    cell=28,
    gap="",
)

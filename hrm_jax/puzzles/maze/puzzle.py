"""Mazes as a puzzle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from hrm_jax.data.csv_files import CsvRows
from hrm_jax.data.errors import DataError
from hrm_jax.fields import require
from hrm_jax.puzzles.base import Array, Checks, Typing, only
from hrm_jax.puzzles.boards import BoardData, BoardPuzzle, BoardPuzzles, refuse_changed
from hrm_jax.puzzles.maze import symmetry
from hrm_jax.puzzles.maze.board import (
    CHARACTERS,
    FREE,
    GOAL,
    PAD,
    PATH,
    START,
    VOCAB_SIZE,
    MazeShape,
    is_question,
    parse,
    problem,
)
from hrm_jax.puzzles.maze.draw import PAINTER
from hrm_jax.puzzles.maze.generator import generate_split, layouts
from hrm_jax.puzzles.maze.solver import optimal, path_moves, search_any, solve_many


@dataclasses.dataclass(frozen=True, kw_only=True)
class MazeData(BoardData):
    """Which mazes: a data set folder, two CSV files, or else the generator.

    Attributes:
        size: Rows and columns of generated boards.
        width: Columns, where boards are not square (`size` then gives the rows of CSV files too);
            0 for as many as rows. Training takes square boards.
        min_path: Moves that the shortest path of generated mazes must exceed; 0 for the usual.
        walls: Least and greatest share of walls.
        unique: Whether there must be only one shortest path, so that nothing else is right.
    """

    size: int = 10
    width: int = only("build", 0)
    min_path: int = only("draw", 0)
    walls: tuple[float, ...] = only("draw", (0.3, 0.5))
    unique: bool = only("draw", False)

    def unused(self) -> dict[str, str]:
        found = super().unused()
        if self.files() and not self.width:
            found["size"] = f"the puzzles come from data.{self.files()}"
        return found

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.walls) == 2,
            f"data.walls: expected a least and a greatest share, got {self.walls}",
        )


def default_min_path(shape: MazeShape) -> int:
    """110 moves for 30×30, as in the paper; else three fifths of rows and columns together, 12 for
    10×10, which one or two of ten random boards exceed."""
    return 110 if shape == MazeShape(30, 30) else sum(shape.sides()) * 3 // 5


class Maze(BoardPuzzle):
    """A shortest path from S to G."""

    def given_shape(self, data: MazeData) -> MazeShape | None:
        return MazeShape(data.size, data.width) if data.width else None

    def fits(self, seq_len: int, vocab_size: int | None = None) -> bool:
        return seq_len > 1 and vocab_size in (None, VOCAB_SIZE)

    def columns(self, inputs: Array, labels: Array) -> int:
        """The width with which most of the first paths are whole, for it is stored nowhere.

        Of equally good ones, that of the board nearest to a square.
        """
        x, y = inputs[:64].astype(np.int64), labels[:64].astype(np.int64)
        length = inputs.shape[1]
        widths = [width for width in range(1, length + 1) if length % width == 0]
        best, fewest = length, math.inf
        for width in sorted(widths, key=lambda width: abs(math.log(width * width / length))):
            wrong = sum(int(bad.sum()) for _, bad, _ in self.check(x, y, width, test=True))
            if wrong < fewest:
                best, fewest = width, wrong
            if not wrong:
                break
        return best

    def units(self, seq_len: int) -> tuple[tuple[Array, ...], ...]:
        """Each cell with its neighbours; with all that are up to four moves away, walls or not; and
        rows with columns."""
        rows, columns = MazeShape.for_cells(seq_len).sides()
        grid = np.arange(seq_len).reshape(rows, columns)
        row, column = grid // columns, grid % columns
        moves = np.abs(row.reshape(-1, 1) - row.ravel())
        moves += np.abs(column.reshape(-1, 1) - column.ravel())
        near, around = (tuple(map(np.flatnonzero, moves <= most)) for most in (1, 4))
        return near, around, (*grid, *grid.T)

    # --- text -------------------------------------------------------------------------------------

    def parse(self, text: str, seq_len: int) -> Array:
        """As in `Puzzle`; blanks are cells, at both ends too."""
        shape = MazeShape.for_cells(seq_len)
        board = parse(text, shape)
        wrong = problem(board, shape)
        if wrong is None and solve_many(board[None], shape)[1][0] < 0:
            wrong = "there is no way from S to G"
        if wrong:
            raise DataError(f"maze: {wrong}")
        return board

    def typing(self, seq_len: int) -> Typing:
        shape = MazeShape.for_cells(seq_len)
        what = f"a {shape} maze (# wall, . or blank free, one S, one G)"
        return Typing(what, {**{c: c for c in "# SG"}, ".": " "})

    # --- symmetries -------------------------------------------------------------------------------

    def transform(self, key: PRNGKeyArray, inputs: jax.Array) -> jax.Array:
        return symmetry.transform(key, inputs, MazeShape.for_cells(inputs.shape[0]))

    def restore(self, key: PRNGKeyArray, answer: jax.Array) -> jax.Array:
        return symmetry.transform(key, answer, MazeShape.for_cells(answer.shape[0]), undo=True)

    # --- rules ------------------------------------------------------------------------------------

    def valid(self, inputs: Array, predictions: Array) -> Array:
        """Paths from S to G."""
        return path_moves(predictions, inputs, MazeShape.for_cells(inputs.shape[1])) >= 0

    def obeys(self, inputs: Array, predictions: Array) -> Array:
        """Paths than which none is shorter; a search tells how long these are."""
        return optimal(predictions, inputs, MazeShape.for_cells(inputs.shape[1]))[1]

    def score(self, inputs: Array, labels: Array, predictions: Array) -> dict[str, Array]:
        """`valid` (a path) and `optimal` (a shortest one, of which the label is one)."""
        shape = MazeShape.for_cells(inputs.shape[1])
        return dict(zip(("valid", "optimal"), optimal(predictions, inputs, shape), strict=True))

    def verdict(self, question: Array, answer: Array) -> str:
        shape = MazeShape.for_cells(len(question))
        shortest = int(solve_many(question[None], shape)[1][0])
        moves = int(path_moves(answer[None], question[None], shape)[0])
        if moves < 0:
            return "What it marks is no path from S to G."
        if moves > shortest:
            return f"A path of {moves} moves; the shortest has {shortest}."
        return f"A path of {moves} moves, and none is shorter."

    def check(self, inputs: Array, labels: Array, columns: int, *, test: bool) -> Checks:
        shape = MazeShape(inputs.shape[1] // columns, columns)
        kept = (np.where(labels == PATH, FREE, labels) == inputs).all(1)
        ends = ((inputs == START).sum(1) == 1) & ((inputs == GOAL).sum(1) == 1)
        shortest, moves = search_any(inputs, shape)[1], path_moves(labels, inputs, shape)
        comparable = ends & kept & (shortest > 0)
        broken, longer = comparable & (moves < 0), comparable & (moves > shortest)
        return [
            *(
                (name, (array == token).sum(1) != 1, f"{letter} stands there not exactly once")
                for name, array in (("inputs", inputs), ("labels", labels))
                for token, letter in ((START, "S"), (GOAL, "G"))
            ),
            ("inputs", (inputs == PAD).any(1), "a cell of the question is pad"),
            ("inputs", (inputs == PATH).any(1), "the question shows path cells (o)"),
            ("labels", ~kept, "the answer changes the question, not only free cells to path"),
            ("inputs", ends & (shortest < 0), "no way leads from S to G"),
            ("labels", broken, "the path cells are not one path from S to G without detours"),
            ("labels", longer, "the path is not a shortest one"),
        ]

    # --- data sets --------------------------------------------------------------------------------

    def generate(self, data: MazeData) -> tuple[BoardPuzzles, BoardPuzzles]:
        shape = MazeShape(data.size, data.width or data.size)
        return generate_split(
            shape,
            data.num_train,
            data.num_test,
            data.min_path or default_min_path(shape),
            data.seed,
            walls=(data.walls[0], data.walls[1]),
            unique=data.unique,
        )

    def characters(self, shape: MazeShape, *, answer: bool) -> tuple[Mapping[str, int], str]:
        legal = CHARACTERS if answer else CHARACTERS[:-1]
        return {c: token for token, c in enumerate(legal, 1)}, f"one of {legal!r}"

    def solved(
        self, rows: CsvRows, questions: Array, answers: Array | None, shape: MazeShape
    ) -> tuple[Array, Array]:
        rows.refuse(
            ~is_question(questions), lambda row: f"question: {problem(questions[row], shape)}"
        )
        found, shortest = solve_many(questions, shape)
        rows.refuse(shortest < 0, lambda row: "unsolvable maze: there is no path from S to G")
        if answers is None:
            return found, shortest
        free = (questions == FREE) & (answers == PATH)
        refuse_changed(rows, questions, answers, free, shape)
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
        return answers, shortest

    def essence(self, puzzles: BoardPuzzles, data: MazeData) -> tuple[list[bytes], str]:
        return layouts(puzzles), "its walls are, up to rotation and reflection, those of"

    def augmented(self, puzzles: BoardPuzzles, num_aug: int, seed: int) -> tuple[Array, Array]:
        return symmetry.augmented(puzzles.questions, puzzles.answers, num_aug, seed, puzzles.shape)


MAZE = Maze(
    name="maze",
    about="generated mazes, or CSV files of them",
    data=MazeData,
    board_shape=MazeShape.for_cells,
    csv_hint="; blanks at both ends are cells",
    painter=PAINTER,
    good="optimal",
    words={
        "valid": "Held-out answers that are valid",
        "optimal": "Held-out answers that are optimal",
    },
)

"""Sudoku as a puzzle."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from hrm_jax.data.csv_files import CsvRows
from hrm_jax.data.errors import DataError
from hrm_jax.fields import require
from hrm_jax.puzzles.base import Array, Checks, Typing, only
from hrm_jax.puzzles.boards import BoardData, BoardPuzzle, BoardPuzzles, refuse_changed
from hrm_jax.puzzles.sudoku import symmetry
from hrm_jax.puzzles.sudoku.board import (
    SudokuShape,
    check_rules,
    contradictions,
    digits_of_text,
    is_solution,
    parse,
    to_tokens,
)
from hrm_jax.puzzles.sudoku.draw import PAINTER
from hrm_jax.puzzles.sudoku.generator import generate_split
from hrm_jax.puzzles.sudoku.hints import add_hints
from hrm_jax.puzzles.sudoku.solver import solve_many

_GIVENS = {4: (6, 10), 6: (14, 20), 9: (25, 30)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SudokuData(BoardData):
    """Which Sudokus: a data set folder, two CSV files, or else the generator.

    Attributes:
        size: Rows of generated boards: 4, 6 or 9.
        givens: Least and greatest number of givens of generated puzzles; () for the usual ones.
        check_symmetry: Whether CSV files are compared up to symmetry too, not only grid by grid.
            Generated splits never share a class.
        hints: Share of training draws in which some blanks are filled from the answer.
    """

    size: int = only("draw", 6)
    givens: tuple[int, ...] = only("draw", ())
    check_symmetry: bool = only("files", False)
    hints: float = only("train", 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.givens) in (0, 2),
            f"data.givens: expected a least and a greatest number, got {self.givens}",
        )
        require(0 <= self.hints <= 1, f"data.hints: expected a share 0 to 1, got {self.hints}")


class Sudoku(BoardPuzzle):
    """Each digit once in each row, column and box."""

    def units(self, seq_len: int) -> tuple[Array, ...]:
        """Rows, columns and boxes."""
        return tuple(SudokuShape.for_cells(seq_len).units())

    # --- text -------------------------------------------------------------------------------------

    def parse(self, text: str, seq_len: int) -> Array:
        """As in `Puzzle`; blanks around it are no cells."""
        shape = SudokuShape.for_cells(seq_len)
        board = parse(text.strip(), shape)
        if wrong := contradictions(board, shape):
            raise DataError(wrong)
        return to_tokens(board)

    def answer_text(self, tokens: Array) -> str:
        """As in `Puzzle`; a blank is no answer."""
        return self.to_text(tokens).replace(".", "?")

    def typing(self, seq_len: int) -> Typing:
        shape = SudokuShape.for_cells(seq_len)
        characters = {c: "." if c == "0" else c for c in digits_of_text(shape)}
        return Typing(
            f"a {shape} Sudoku (. for a blank)", {**characters, **dict.fromkeys(" \t|+-", "")}
        )

    # --- symmetries -------------------------------------------------------------------------------

    def augments(self, data: SudokuData) -> bool:
        return data.augment or data.hints > 0

    def augment(
        self, data: SudokuData, key: PRNGKeyArray, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """One random symmetry, and hints."""
        if data.augment:
            inputs, labels = super().augment(data, key, inputs, labels)
        if data.hints:
            inputs = add_hints(jax.random.fold_in(key, 1), inputs, labels, data.hints)
        return inputs, labels

    def transform(self, key: PRNGKeyArray, inputs: jax.Array) -> jax.Array:
        """One random symmetry."""
        return symmetry.transform(key, inputs, SudokuShape.for_cells(inputs.shape[0]))

    def restore(self, key: PRNGKeyArray, answer: jax.Array) -> jax.Array:
        return symmetry.undo(key, answer, SudokuShape.for_cells(answer.shape[0]))

    # --- rules ------------------------------------------------------------------------------------

    def valid(self, inputs: Array, predictions: Array) -> Array:
        """Full boards that keep the rules and the givens."""
        keeps = ((inputs == 1) | (inputs == predictions)).all(1)
        boards = predictions.astype(np.int8) - 1
        return np.asarray(keeps & is_solution(boards, SudokuShape.for_cells(inputs.shape[1])))

    def check(self, inputs: Array, labels: Array, columns: int, *, test: bool) -> Checks:
        shape = SudokuShape.for_cells(inputs.shape[1])
        legal = ((inputs >= 1) & (inputs < shape.vocab_size)).all(1)
        repeats = legal & ~check_rules(inputs - 1, shape)
        changed = ((inputs > 1) & (inputs != labels)).any(1)
        pads = (inputs == 0).any(1)
        return [
            ("inputs", pads, "a cell of the question is pad, expected blank or digit"),
            ("inputs", repeats, "a given digit stands twice in a unit"),
            ("labels", ~is_solution(labels - 1, shape), "the answer is no full valid grid"),
            ("labels", changed, "the answer changes a given"),
        ]

    # --- data sets --------------------------------------------------------------------------------

    def generate(self, data: SudokuData) -> tuple[BoardPuzzles, BoardPuzzles]:
        """As in `BoardPuzzle`: no two share a class of solution grids."""
        shape = SudokuShape.of(data.size)
        low, high = data.givens or _GIVENS[data.size]
        return generate_split(shape, data.num_train, data.num_test, (low, high), data.seed)

    def characters(self, shape: SudokuShape, *, answer: bool) -> tuple[Mapping[str, int], str]:
        values = {c: digit for c, digit in digits_of_text(shape).items() if digit or not answer}
        return values, f"a digit 1 to {shape.size}" + ("" if answer else ", . or 0")

    def solved(
        self, rows: CsvRows, questions: Array, answers: Array | None, shape: SudokuShape
    ) -> tuple[Array, Array]:
        """As in `BoardPuzzle`; each puzzle must have one solution, and is rated by guesses."""
        rows.refuse(
            ~check_rules(questions, shape),
            lambda row: f"contradictory puzzle: {contradictions(questions[row], shape)}",
        )
        if answers is not None:
            given = answers
            rows.refuse(
                ~is_solution(given, shape),
                lambda row: f"answer breaks the rules: {contradictions(given[row], shape)}",
            )
            refuse_changed(rows, questions, given, questions == 0, shape)
        counts, solutions, guesses = solve_many(questions, shape)
        rows.refuse(counts == 0, lambda row: "unsolvable puzzle: it has no solution")
        rows.refuse(counts > 1, lambda row: "puzzle with more than one solution")
        return (solutions if answers is None else answers), guesses

    def essence(self, puzzles: BoardPuzzles, data: SudokuData) -> tuple[list[bytes], str]:
        """The solution grids, up to symmetry if `data.check_symmetry`."""
        grids, words = puzzles.answers, "its solution grid is that of"
        if data.check_symmetry:
            grids = symmetry.canonical(grids, puzzles.shape)
            words = "its solution grid is, up to symmetry, that of"
        return [grid.tobytes() for grid in grids], words

    def tokens(self, boards: Array) -> Array:
        return to_tokens(boards)


SUDOKU = Sudoku(
    name="sudoku",
    about="generated Sudokus, or CSV files of them",
    data=SudokuData,
    board_shape=SudokuShape.for_cells,
    painter=PAINTER,
)

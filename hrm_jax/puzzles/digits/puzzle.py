"""The frame of puzzles in which no digit may stand twice in a unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from hrm_jax.data.csv_files import CsvRows
from hrm_jax.data.errors import DataError
from hrm_jax.fields import require
from hrm_jax.puzzles.base import Array, Checks, Typing, only
from hrm_jax.puzzles.boards import BoardData, BoardPuzzle, refuse_changed
from hrm_jax.puzzles.digits.board import (
    DigitShape,
    check_rules,
    contradictions,
    digits_of_text,
    is_solution,
    parse,
    peers,
    to_tokens,
)
from hrm_jax.puzzles.digits.solver import solve_many
from hrm_jax.puzzles.digits.symmetry import Symmetry, apply, inverse


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitData(BoardData):
    """Boards of digits.

    Attributes:
        givens: Least and greatest number of givens of generated puzzles; () for the usual ones.
    """

    givens: tuple[int, ...] = only("draw", ())

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.givens) in (0, 2),
            f"data.givens: expected a least and a greatest number, got {self.givens}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DigitPuzzle(BoardPuzzle):
    """Each digit once in each unit of a `DigitShape`. Tokens: 0 pad, 1 blank, digit + 1.

    `random_symmetry` draws a symmetry of boards of such a shape.
    """

    random_symmetry: Callable[[PRNGKeyArray, Any], Symmetry]

    def units(self, seq_len: int) -> tuple[tuple[Array, ...], ...]:
        """Rows with columns, then boxes if there are any."""
        shape: DigitShape = self.board_shape(seq_len)
        lines, boxes = np.split(shape.units(), [2 * shape.size])
        return tuple(tuple(kind) for kind in (lines, boxes) if len(kind))

    def values(self, seq_len: int) -> int:
        """The digits."""
        return self.board_shape(seq_len).size

    # --- text -------------------------------------------------------------------------------------

    def parse(self, text: str, seq_len: int) -> Array:
        """As in `Puzzle`; blanks around it are no cells."""
        shape: DigitShape = self.board_shape(seq_len)
        board = parse(text.strip(), shape)
        if wrong := contradictions(board, shape):
            raise DataError(wrong)
        return to_tokens(board)

    def answer_text(self, tokens: Array) -> str:
        return self.to_text(tokens).replace(".", "?")

    def typing(self, seq_len: int) -> Typing:
        shape: DigitShape = self.board_shape(seq_len)
        characters = {c: "." if c == "0" else c for c in digits_of_text(shape)}
        return Typing(
            f"a {shape} {self.painter.name} (. for a blank)",
            {**characters, **dict.fromkeys(" \t|+-", "")},
        )

    # --- symmetries -------------------------------------------------------------------------------

    def transform(self, key: PRNGKeyArray, inputs: jax.Array) -> jax.Array:
        shape = self.board_shape(inputs.shape[0])
        return apply(self.random_symmetry(key, shape), inputs, shape)

    def restore(self, key: PRNGKeyArray, answer: jax.Array) -> jax.Array:
        shape = self.board_shape(answer.shape[0])
        return apply(inverse(self.random_symmetry(key, shape)), answer, shape)

    # --- rules ------------------------------------------------------------------------------------

    def valid(self, inputs: Array, predictions: Array) -> Array:
        """Full boards that keep the rules and the givens."""
        keeps = ((inputs == 1) | (inputs == predictions)).all(1)
        boards = predictions.astype(np.int8) - 1
        return np.asarray(keeps & is_solution(boards, self.board_shape(inputs.shape[1])))

    def possible(self, inputs: Array) -> Array:
        """Digits that stand in no unit of the cell."""
        shape: DigitShape = self.board_shape(inputs.shape[1])
        stands = inputs[..., None] == np.arange(shape.vocab_size)
        stands[..., :2] = False
        free = peers(shape) @ stands.astype(np.float32) == 0
        free[..., :2] = False
        return np.asarray(np.where((inputs == 1)[..., None], True, stands) & free)

    def check(self, inputs: Array, labels: Array, columns: int, *, test: bool) -> Checks:
        shape: DigitShape = self.board_shape(inputs.shape[1])
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

    # --- files ------------------------------------------------------------------------------------

    def characters(self, shape: DigitShape, *, answer: bool) -> tuple[Mapping[str, int], str]:
        values = {c: digit for c, digit in digits_of_text(shape).items() if digit or not answer}
        return values, f"a digit 1 to {shape.size}" + ("" if answer else ", . or 0")

    def solved(
        self, rows: CsvRows, questions: Array, answers: Array | None, shape: DigitShape
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

    def tokens(self, boards: Array) -> Array:
        return to_tokens(boards)

"""A trained puzzle model, ready to use."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from hrm_jax.compilation import jit
from hrm_jax.data.domino import scores as domino_scores
from hrm_jax.data.errors import DataError
from hrm_jax.data.maze import board as maze_board
from hrm_jax.data.maze.scores import path_moves
from hrm_jax.data.sudoku.board import (
    SudokuShape,
    contradictions,
    from_tokens,
    is_solution,
    parse,
    to_tokens,
)
from hrm_jax.models import act
from hrm_jax.models.act import ACTCarry, Batch, Halting
from hrm_jax.models.puzzle_models import PuzzleModelConfig
from hrm_jax.models.recurrent import Thought
from hrm_jax.tasks.evaluation import solve_puzzles

Puzzle = Literal["sudoku", "maze", "domino"]


@dataclasses.dataclass(frozen=True)
class Solution:
    """The answer to one puzzle.

    Attributes:
        tokens: Predicted tokens [S].
        steps: ACT steps taken.
        q_halt: Halting value at the last step; its sigmoid is the model's belief to be right.
        trace: Predicted tokens after each step [steps, S]; empty [0, S] if not asked for.
        text: The board as text (Sudoku and mazes; else "").
        trace_text: The board after each step as text (the same, with a trace).
        valid: Whether the board obeys the rules and keeps the givens (Sudoku), the answer is a
            path from S to G (mazes), or the move is legal (dominoes); else None.
    """

    tokens: npt.NDArray[np.uint8]
    steps: int
    q_halt: float
    trace: npt.NDArray[np.uint8]
    text: str = ""
    trace_text: tuple[str, ...] = ()
    valid: bool | None = None

    def __str__(self) -> str:
        return self.text or str(self.tokens)


def _text(tokens: npt.NDArray[Any], shape: SudokuShape) -> str:
    """A board as text; "?" where the model gives something that is no digit."""
    digits = tokens.astype(int) - 1
    return "".join(str(d) if 1 <= d <= shape.size else "?" for d in digits)


def _maze_text(tokens: npt.NDArray[Any]) -> str:
    """A board as text; "?" where the model gives padding."""
    return "".join(("?" + maze_board.CHARACTERS)[t] for t in tokens)


def _checked(text: str, shape: SudokuShape) -> npt.NDArray[Any]:
    board = parse(text, shape)
    wrong = contradictions(board, shape)
    if wrong:
        raise DataError(f"{text}: {wrong}")
    return board


def _guess(length: int, vocab_size: int) -> Puzzle | None:
    if (length, vocab_size) in ((16, 6), (36, 8), (81, 11)):
        return "sudoku"
    if (length, vocab_size) == (72, 8):
        return "domino"
    return "maze" if vocab_size == maze_board.VOCAB_SIZE else None


class PuzzleModel:
    """Weights with their configuration, in functional form.

    Attributes:
        config: Sizes.
        variables: `params`, `constants` and, if any, `tables`.
        puzzle: What the tokens mean, if known: "sudoku", "maze" or "domino".
        max_steps: Most ACT steps that `solve` takes by default.
    """

    def __init__(
        self,
        config: PuzzleModelConfig,
        variables: Mapping[str, Any],
        puzzle: Puzzle | None = None,
        max_steps: int | None = None,
    ) -> None:
        """Makes a model.

        Args:
            config: Sizes.
            variables: Weights.
            puzzle: What the tokens mean; None guesses from length and vocabulary.
            max_steps: Most ACT steps that `solve` takes by default; None for those of training.
        """
        self.config = config
        self.variables = jax.device_put(dict(variables))
        self.puzzle = puzzle or _guess(config.seq_len, config.vocab_size)
        self.max_steps = max_steps or config.halt_max_steps

    def initial_carry(self, batch: Batch) -> ACTCarry:
        """A carry in which every row has halted, for batches shaped like `batch`.

        Args:
            batch: `inputs` int [B, S] and `puzzle_identifiers` int [B].
        """
        return act.initial_carry(self.config, {k: jnp.asarray(v) for k, v in batch.items()})

    @functools.cached_property
    def _step(self) -> Any:
        return jit(functools.partial(act.act_step, self.config))

    def act_step(self, carry: ACTCarry, batch: Batch) -> tuple[ACTCarry, Thought]:
        """One ACT step of evaluation: rows that have halted take their puzzle from `batch`.

        As in the reference, a row halts after `config.halt_max_steps` steps.

        Args:
            carry: From `initial_carry` or the step before.
            batch: `inputs` int [B, S] and `puzzle_identifiers` int [B].

        Returns:
            The new carry (z_H, z_L, steps, halted, current_data) and logits [B, S, V], q_halt [B],
            q_continue [B].
        """
        return self._step(self.variables, carry, {k: jnp.asarray(v) for k, v in batch.items()})

    def solve_tokens(
        self,
        inputs: npt.ArrayLike,
        puzzle_identifiers: npt.ArrayLike | None = None,
        *,
        max_steps: int | None = None,
        halting: Halting = "q",
        trace: bool = False,
        slots: int = 32,
    ) -> list[Solution]:
        """Solves puzzles given as tokens.

        Args:
            inputs: Integers [N, S].
            puzzle_identifiers: Integers [N]; 0 (no identifier) where left out.
            max_steps: Most ACT steps; defaults to `self.max_steps` and may exceed that of training.
            halting: "q" stops where the model wants to, "fixed" after `max_steps`.
            trace: Whether to keep the answer after each step.
            slots: Puzzles that think at a time.

        Raises:
            ValueError: The shape or a token does not fit the model.
        """
        tokens = np.asarray(inputs)
        if tokens.ndim != 2 or (self.config.seq_len and tokens.shape[1] != self.config.seq_len):
            raise ValueError(
                f"expected tokens [N, {self.config.seq_len}], got an array of shape {tokens.shape}"
            )
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.config.vocab_size:
            raise ValueError(f"expected tokens 0..{self.config.vocab_size - 1}")
        if not len(tokens):
            return []
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps: expected at least 1, got {max_steps}")
        identifiers = np.zeros(len(tokens), np.int32)
        if puzzle_identifiers is not None:
            identifiers = np.asarray(puzzle_identifiers, np.int32)
        solved = solve_puzzles(
            self.config,
            self.variables,
            tokens,
            identifiers,
            slots=slots,
            halting=halting,
            max_steps=max_steps or self.max_steps,
            trace=trace,
        )
        return [self._solution(row, tokens[row], solved) for row in range(len(tokens))]

    def _solution(self, row: int, question: npt.NDArray[Any], solved: act.Solved) -> Solution:
        tokens, steps = solved.predictions[row], int(solved.steps[row])
        trace = np.zeros((0, len(tokens)), np.uint8)
        if solved.trace is not None:
            trace = np.asarray(solved.trace[row][:steps])
        solution = Solution(np.asarray(tokens), steps, float(solved.q_halt[row]), trace)
        if self.puzzle == "maze":
            maze = maze_board.MazeShape.for_cells(len(tokens))
            return dataclasses.replace(
                solution,
                text=_maze_text(tokens),
                trace_text=tuple(_maze_text(board) for board in trace),
                valid=bool(path_moves(tokens[None], question[None], maze)[0] >= 0),
            )
        if self.puzzle == "domino":
            legal_move, _ = domino_scores.judge(question[None], tokens[None, :3])
            return dataclasses.replace(solution, valid=bool(legal_move[0]))
        if self.puzzle is None:
            return solution
        shape = SudokuShape.for_cells(len(tokens))
        board = tokens.astype(np.int8) - 1
        legal = bool(((board >= 1) & (board <= shape.size)).all())
        keeps = bool(((question == 1) | (question == tokens)).all())
        return dataclasses.replace(
            solution,
            text=_text(tokens, shape),
            trace_text=tuple(_text(board, shape) for board in trace),
            valid=legal and keeps and bool(is_solution(from_tokens(tokens), shape)),
        )

    def solve(self, puzzles: str | Sequence[str] | npt.ArrayLike, **options: Any) -> Any:
        """Solves one puzzle or many.

        Args:
            puzzles: A Sudoku ("." or "0" is a blank) or maze (of `# SG`, blanks are cells) as
                text, row by row; a sequence of them; tokens [S], or tokens [N, S].
            **options: As in `solve_tokens`.

        Returns:
            A `Solution`, or a list of them for many puzzles.

        Raises:
            DataError: A text is no such puzzle, or contradicts itself.
            ValueError: Tokens do not fit the model.
        """
        if isinstance(puzzles, str):
            return self.solve([puzzles], **options)[0]
        if isinstance(puzzles, Sequence) and puzzles and isinstance(puzzles[0], str):
            if self.puzzle == "maze":
                boards = np.stack([maze_board.parse(str(text)) for text in puzzles])
                return self.solve_tokens(boards, **options)
            if self.puzzle != "sudoku":
                raise ValueError("this model's puzzles have no form as text; give tokens instead")
            shape = SudokuShape.for_cells(self.config.seq_len)
            boards = np.stack([_checked(str(text), shape) for text in puzzles])
            return self.solve_tokens(to_tokens(boards), **options)
        tokens = np.asarray(puzzles)
        if tokens.ndim == 1:
            return self.solve_tokens(tokens[None], **options)[0]
        return self.solve_tokens(tokens, **options)

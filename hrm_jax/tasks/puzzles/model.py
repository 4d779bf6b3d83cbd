"""A trained puzzle model, ready to use."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import PRNGKeyArray

from hrm_jax.compilation import jit
from hrm_jax.data.errors import DataError
from hrm_jax.models import act
from hrm_jax.models.act import ACTCarry, Halting, PuzzleBatch
from hrm_jax.models.recurrent import RecurrentConfig, Thought
from hrm_jax.puzzles.arc import tokens as arc_tokens
from hrm_jax.puzzles.domino import text as domino_text
from hrm_jax.puzzles.domino.encoding import encode
from hrm_jax.puzzles.maze import board as maze_board
from hrm_jax.puzzles.maze.scores import path_moves
from hrm_jax.puzzles.sudoku.board import (
    SudokuShape,
    contradictions,
    parse,
    to_tokens,
)
from hrm_jax.tasks.puzzles.domino import DominoTask
from hrm_jax.tasks.puzzles.evaluation import solve_puzzles
from hrm_jax.tasks.puzzles.maze import MazeTask
from hrm_jax.tasks.puzzles.sudoku import SudokuTask
from hrm_jax.tasks.puzzles.task import PuzzleTask
from hrm_jax.tasks.puzzles.votes import cast, elect, obeying

Puzzle = Literal["sudoku", "maze", "domino", "arc"]


@dataclasses.dataclass(frozen=True)
class Solution:
    """The answer to one puzzle.

    Attributes:
        tokens: Predicted tokens [S].
        steps: ACT steps taken.
        q_halt: Halting value at the last step; its sigmoid is the model's belief to be right.
        trace: Predicted tokens after each step [steps, S]; empty [0, S] if not asked for.
        text: The board as text (Sudoku and mazes), the move (dominoes), or a line of colours for
            each row of the grid at the origin (ARC); else "".
        trace_text: The board after each step as text (the same, with a trace).
        valid: Whether the board obeys the rules and keeps the givens (Sudoku), the answer is a
            path from S to G (mazes), or the move is legal (dominoes); else None.
        votes: How many votes this answer got.
        total_steps: ACT steps of all votes together.
    """

    tokens: npt.NDArray[np.uint8]
    steps: int
    q_halt: float
    trace: npt.NDArray[np.uint8]
    text: str = ""
    trace_text: tuple[str, ...] = ()
    valid: bool | None = None
    votes: int = 1
    total_steps: int = 0

    def __str__(self) -> str:
        return self.text or str(self.tokens)


def _text(tokens: npt.NDArray[Any], shape: SudokuShape) -> str:
    """A board as text; "?" where the model gives something that is no digit."""
    digits = tokens.astype(int) - 1
    return "".join(str(d) if 1 <= d <= shape.size else "?" for d in digits)


def _maze_text(tokens: npt.NDArray[Any]) -> str:
    """A board as text; "?" where the model gives padding."""
    return "".join(("?" + maze_board.CHARACTERS)[t] for t in tokens)


def _arc_text(tokens: npt.NDArray[Any]) -> str:
    """The grid at the origin, a line for each row."""
    return "\n".join("".join(map(str, row)) for row in arc_tokens.decode(tokens))


def _sudoku(text: str, length: int) -> npt.NDArray[Any]:
    shape = SudokuShape.for_cells(length)
    board = parse(text, shape)
    wrong = contradictions(board, shape)
    if wrong:
        raise DataError(f"{text}: {wrong}")
    return to_tokens(board)


def _maze(text: str, length: int) -> npt.NDArray[Any]:
    shape = maze_board.MazeShape.for_cells(length)
    board = maze_board.parse(text, shape)
    wrong = maze_board.problem(board, shape)
    if wrong:
        raise DataError(f"maze: {wrong}")
    return board


def _domino(text: str, length: int) -> npt.NDArray[Any]:
    return encode(domino_text.parse(text))


_KINDS: Mapping[Any, type[PuzzleTask]] = {
    "sudoku": SudokuTask,
    "maze": MazeTask,
    "domino": DominoTask,
}
_PARSERS: Mapping[Any, Callable[[str, int], npt.NDArray[Any]]] = {
    "sudoku": _sudoku,
    "maze": _maze,
    "domino": _domino,
}


def _guess(length: int, vocab_size: int) -> Puzzle | None:
    if (length, vocab_size) in ((16, 6), (36, 8), (81, 11)):
        return "sudoku"
    if (length, vocab_size) == (72, 8):
        return "domino"
    if vocab_size == arc_tokens.VOCAB_SIZE and math.isqrt(length) ** 2 == length:
        return "arc"
    return "maze" if vocab_size == maze_board.VOCAB_SIZE else None


class PuzzleModel:
    """Weights with their configuration, in functional form.

    Attributes:
        config: Sizes.
        variables: `params`, `constants` and, if any, `tables`.
        puzzle: What the tokens mean, if known: "sudoku", "maze", "domino" or "arc".
        kind: The task that knows the rules and symmetries of such puzzles.
        max_steps: Most ACT steps that `solve` takes by default.
    """

    def __init__(
        self,
        config: RecurrentConfig,
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
        self.kind = _KINDS.get(self.puzzle, PuzzleTask)  # type: ignore[type-abstract]
        self.max_steps = max_steps or config.halt_max_steps

    def initial_carry(self, batch: PuzzleBatch) -> ACTCarry:
        """A carry in which every row has halted, for batches shaped like `batch`.

        Args:
            batch: `inputs` int [B, S] and `puzzle_identifiers` int [B].
        """
        return act.initial_carry(self.config, {k: jnp.asarray(v) for k, v in batch.items()})

    @functools.cached_property
    def _step(self) -> Any:
        return jit(functools.partial(act.act_step, self.config))

    def act_step(self, carry: ACTCarry, batch: PuzzleBatch) -> tuple[ACTCarry, Thought]:
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
        votes: int = 1,
        verify: bool = False,
        others: Sequence[PuzzleModel] = (),
        seed: int = 0,
    ) -> list[Solution]:
        """Solves puzzles given as tokens.

        Args:
            inputs: Integers [N, S].
            puzzle_identifiers: Integers [N]; 0 (no identifier) where left out.
            max_steps: Most ACT steps; defaults to `self.max_steps` and may exceed that of training.
            halting: "q" stops where the model wants to, "fixed" after `max_steps`.
            trace: Whether to keep the answer after each step.
            slots: Puzzles that think at a time.
            votes: How many answers to find for each puzzle: one to the puzzle as it is, the others
                under random symmetries. The answer with most votes is taken.
            verify: Whether only answers that obey the rules count, where there is one.
            others: Models that vote too (of other checkpoints), `votes` times each.
            seed: Seed of the symmetries.

        Raises:
            ValueError: The shape or a token does not fit the model, or there is no such vote on
                its puzzles.
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
        for name, value in (("max_steps", max_steps), ("votes", votes)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        identifiers = np.zeros(len(tokens), np.int32)
        if puzzle_identifiers is not None:
            identifiers = np.asarray(puzzle_identifiers, np.int32)
        options: dict[str, Any] = {
            "votes": votes,
            "max_steps": max_steps or self.max_steps,
            "halting": halting,
            "trace": trace,
            "slots": slots,
        }
        ballots = []
        for number, model in enumerate((self, *others)):
            key = jax.random.fold_in(jax.random.key(seed), number)
            ballots += model.ballots(tokens, identifiers, key=key, **options)
        obeys = obeying(self.kind, tokens, ballots) if verify else None
        elected = elect(ballots, obeys, self.kind.answer_length)
        return [
            dataclasses.replace(
                self._solution(row, tokens[row], elected.answers),
                votes=int(elected.votes[row]),
                total_steps=int(elected.steps[row]),
            )
            for row in range(len(tokens))
        ]

    def ballots(
        self,
        inputs: npt.NDArray[Any],
        puzzle_identifiers: npt.NDArray[Any],
        *,
        votes: int,
        key: PRNGKeyArray,
        plain: act.Solved | None = None,
        **options: Any,
    ) -> list[act.Solved]:
        """Finds several answers to each puzzle, for `hrm_jax.tasks.puzzles.votes.elect`.

        Args:
            inputs: Tokens [N, S].
            puzzle_identifiers: Integers [N].
            votes, key, plain: As in `hrm_jax.tasks.puzzles.votes.cast`.
            **options: As in `hrm_jax.tasks.puzzles.evaluation.solve_puzzles`.
        """

        def solve(tokens: npt.NDArray[Any]) -> act.Solved:
            return solve_puzzles(self.config, self.variables, tokens, puzzle_identifiers, **options)

        return cast(self.kind, solve, inputs, votes, key, plain)

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
            return dataclasses.replace(
                solution,
                text=domino_text.move_text(tokens),
                trace_text=tuple(domino_text.move_text(answer) for answer in trace),
                valid=bool(DominoTask.obeys(question[None], tokens[None])[0]),
            )
        if self.puzzle == "arc":
            grids = tuple(_arc_text(board) for board in trace)
            return dataclasses.replace(solution, text=_arc_text(tokens), trace_text=grids)
        if self.puzzle is None:
            return solution
        shape = SudokuShape.for_cells(len(tokens))
        return dataclasses.replace(
            solution,
            text=_text(tokens, shape),
            trace_text=tuple(_text(board, shape) for board in trace),
            valid=bool(SudokuTask.obeys(question[None], tokens[None])[0]),
        )

    def solve(self, puzzles: str | Sequence[str] | npt.ArrayLike, **options: Any) -> Any:
        """Solves one puzzle or many.

        Args:
            puzzles: A Sudoku ("." or "0" is a blank) or maze (of `# SG`, blanks are cells) as
                text, row by row, or a domino position (`table 2|5 5|3; hand 2|3 0|2`); a sequence
                of them; tokens [S], or tokens [N, S].
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
            if self.puzzle not in _PARSERS:
                raise ValueError("this model's puzzles have no form as text; give tokens instead")
            to_board = _PARSERS[self.puzzle]
            boards = [to_board(str(text), self.config.seq_len) for text in puzzles]
            return self.solve_tokens(np.stack(boards), **options)
        tokens = np.asarray(puzzles)
        if tokens.ndim == 1:
            return self.solve_tokens(tokens[None], **options)[0]
        return self.solve_tokens(tokens, **options)

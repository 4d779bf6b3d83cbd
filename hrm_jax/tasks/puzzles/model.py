"""A trained puzzle model, ready to use."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from hrm_jax.compilation import jit
from hrm_jax.data.errors import DataError
from hrm_jax.models import act
from hrm_jax.models.act import ACTCarry, Halting, PuzzleBatch
from hrm_jax.models.recurrent import RecurrentConfig, Thought
from hrm_jax.puzzles import guess
from hrm_jax.puzzles.base import Puzzle
from hrm_jax.puzzles.text_files import read_line
from hrm_jax.tasks.puzzles.evaluation import checked_indices, solve_puzzles
from hrm_jax.tasks.puzzles.losses import LossName
from hrm_jax.tasks.puzzles.search import Searched, search, searching_alone
from hrm_jax.tasks.puzzles.votes import cast_all, elect, obeying


@dataclasses.dataclass(frozen=True)
class Solution:
    """The answer to one puzzle, tokens [S].

    Attributes:
        steps: ACT steps taken.
        q_halt: Halting value at the last step; its sigmoid is the model's belief to be right.
        trace: Predicted tokens after each step [steps, S]; empty [0, S] if not asked for.
        text: The answer as text, as `Puzzle.answer_text` gives it; "" where the puzzle is unknown.
        trace_text: The answer after each step as text (the same, with a trace).
        valid: What `Puzzle.valid` says of the answer; None where it cannot be told.
        votes: How many votes this answer got.
        total_steps: ACT steps of all votes, or of all questions of a search, together.
        questions: How often the network was asked in a search.
    """

    tokens: npt.NDArray[Any]
    steps: int
    q_halt: float
    trace: npt.NDArray[Any]
    text: str = ""
    trace_text: tuple[str, ...] = ()
    valid: bool | None = None
    votes: int = 1
    total_steps: int = 0
    questions: int = 1

    def __str__(self) -> str:
        return self.text or str(self.tokens)


class PuzzleModel:
    """Weights (`params`, `constants` and, if any, `tables`) with their configuration.

    `puzzle` says what the tokens mean, None if it is not known; `max_steps` are the most ACT steps
    that `solve` takes by default; `loss` is the token loss that it was trained with.
    """

    def __init__(
        self,
        config: RecurrentConfig,
        variables: Mapping[str, Any],
        puzzle: Puzzle | None = None,
        max_steps: int | None = None,
        loss: LossName = "stablemax",
    ) -> None:
        """Makes a model; None guesses the puzzle from its sizes, and takes training's steps."""
        self.loss: LossName = loss
        self.config = config
        self.variables = jax.device_put(dict(variables))
        self.puzzle = puzzle or guess(config.seq_len, config.vocab_size)
        self.max_steps = max_steps or config.halt_max_steps

    def initial_carry(self, batch: PuzzleBatch) -> ACTCarry:
        """A carry in which every row has halted, for batches shaped like that of `act_step`."""
        return act.initial_carry(self.config, self._checked(batch))

    @functools.cached_property
    def _step(self) -> Any:
        return jit(functools.partial(act.act_step, self.config))

    def act_step(self, carry: ACTCarry, batch: PuzzleBatch) -> tuple[ACTCarry, Thought]:
        """One ACT step of evaluation: rows that have halted take their puzzle from `batch`, which
        has `inputs` int [B, S] and `puzzle_identifiers` int [B].

        As in the reference, a row halts after `config.halt_max_steps` steps. ValueError for tokens
        and identifiers that the model has no rows for, in whatever row.
        """
        return self._step(self.variables, carry, self._checked(batch, len(carry.halted)))

    def _checked(self, batch: PuzzleBatch, rows: int | None = None) -> dict[str, jax.Array]:
        """The arrays of a batch of so many rows; those that are being traced hold nothing yet."""
        checked, config = dict(batch), self.config
        more = {"inputs": (config.seq_len or None,), "puzzle_identifiers": ()}
        stops = {"inputs": config.vocab_size, "puzzle_identifiers": config.num_puzzle_identifiers}
        for name, shape in more.items():
            if name not in batch:
                raise ValueError(
                    f"batch: {name} is missing, expected inputs int [B, S] and "
                    f"puzzle_identifiers int [B]"
                )
            if not isinstance(batch[name], jax.core.Tracer):
                checked[name] = checked_indices(name, batch[name], (rows, *shape), stops[name])
            rows = len(checked[name])
        return {name: jnp.asarray(values) for name, values in checked.items()}

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
        search: int = 0,
    ) -> list[Solution]:
        """Solves puzzles given as tokens [N, S].

        Args:
            puzzle_identifiers: Integers [N], of those that the model has; 0 (no identifier) where
                left out.
            max_steps: Most ACT steps; defaults to `self.max_steps` and may exceed that of training.
            halting: "q" stops where the model wants to, "fixed" after `max_steps`.
            trace: Whether to keep the answer after each step.
            slots: Puzzles that think at a time.
            votes: How many answers to find for each puzzle: one to the puzzle as it is, the others
                under random symmetries, of that seed. The answer with most votes is taken.
            verify: Whether only answers that obey the rules count, where there is one.
            others: Models that vote too (of other checkpoints), `votes` times each.
            search: The most questions to the network about a puzzle in a search that it guides, see
                `hrm_jax.tasks.puzzles.search.search`; 0 for no search. `votes`, `verify`, `others`
                and `trace` are not with it.
        """
        config = self.config
        tokens = checked_indices(
            "tokens", inputs, (None, config.seq_len or None), config.vocab_size
        )
        if puzzle_identifiers is not None:
            puzzle_identifiers = checked_indices(
                "puzzle_identifiers",
                puzzle_identifiers,
                (len(tokens),),
                config.num_puzzle_identifiers,
            )
        if search:
            others_too: Any = {"others or last": others, "trace": trace}
            searching_alone(search, votes=votes > 1, verify=verify, **others_too)
        if not len(tokens):
            return []
        for name, value in (("max_steps", max_steps), ("votes", votes)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if search:
            options = {"max_steps": max_steps or self.max_steps, "halting": halting, "slots": slots}
            return self._searched(tokens, puzzle_identifiers, search, **options)
        ballots = cast_all(
            (self, *others),
            tokens,
            puzzle_identifiers,
            votes=votes,
            seed=seed,
            max_steps=max_steps or self.max_steps,
            halting=halting,
            trace=trace,
            slots=slots,
        )
        obeys = obeying(self.known(), tokens, ballots) if verify else None
        elected = elect(ballots, obeys, self.puzzle.answer_length if self.puzzle else None)
        return [
            dataclasses.replace(
                self._solution(row, tokens[row], elected.answers),
                votes=int(elected.votes[row]),
                total_steps=int(elected.steps[row]),
            )
            for row in range(len(tokens))
        ]

    def _searched(
        self,
        tokens: npt.NDArray[Any],
        identifiers: npt.NDArray[Any] | None,
        most: int,
        **options: Any,
    ) -> list[Solution]:
        found = self.search(tokens, identifiers, most, **options)
        return [
            dataclasses.replace(
                self._solution(row, tokens[row], found.answers),
                questions=int(found.questions[row]),
                total_steps=int(found.steps[row]),
            )
            for row in range(len(tokens))
        ]

    def search(
        self,
        inputs: npt.NDArray[Any],
        identifiers: npt.NDArray[Any] | None,
        most: int,
        *,
        slots: int = 32,
        **options: Any,
    ) -> Searched:
        """Answers to tokens [N, S], as `hrm_jax.tasks.puzzles.search.search` finds them.

        The options are those of `solve_puzzles`; `slots` questions are asked at once. There are no
        restarts (`restart_after`): a guess takes their place. DataError where the puzzle's
        vocabulary is not the model's.
        """
        puzzle, size = self.known(), self.config.vocab_size
        if not puzzle.fits(inputs.shape[1], size):
            raise DataError(
                f"search: {puzzle.name} puzzles of {inputs.shape[1]} tokens have a vocabulary of "
                f"{puzzle.vocab_size(inputs.shape[1])}, the model one of {size}"
            )
        if identifiers is None:
            identifiers = np.zeros(len(inputs), np.int32)
        config = dataclasses.replace(self.config, restart_after=0)
        options |= {"logits": True, "slots": slots}
        solve = functools.partial(solve_puzzles, config, self.variables, **options)
        return search(puzzle, solve, inputs, identifiers, most, at_once=slots)

    def answers(
        self, inputs: npt.NDArray[Any], identifiers: npt.NDArray[Any] | None = None, **options: Any
    ) -> act.Solved:
        """Answers to tokens [N, S], as `hrm_jax.tasks.puzzles.evaluation.solve_puzzles` gives."""
        if identifiers is None:
            identifiers = np.zeros(len(inputs), np.int32)
        return solve_puzzles(self.config, self.variables, inputs, identifiers, **options)

    def known(self) -> Puzzle:
        """The puzzle, or DataError where it is not known."""
        if self.puzzle is None:
            raise DataError(
                f"{self.config.seq_len} tokens of a vocabulary of {self.config.vocab_size} are "
                f"none of the puzzles that are known here; give PuzzleModel the `puzzle`"
            )
        return self.puzzle

    def _solution(self, row: int, question: npt.NDArray[Any], solved: act.Solved) -> Solution:
        tokens, steps = solved.predictions[row], int(solved.steps[row])
        trace = np.zeros((0, len(tokens)), tokens.dtype)
        if solved.trace is not None:
            trace = np.asarray(solved.trace[row][:steps])
        solution = Solution(np.asarray(tokens), steps, float(solved.q_halt[row]), trace)
        if self.puzzle is None:
            return solution
        valid = self.puzzle.valid(question[None], tokens[None])
        return dataclasses.replace(
            solution,
            text=self.puzzle.answer_text(tokens),
            trace_text=tuple(map(self.puzzle.answer_text, trace)),
            valid=None if valid is None else bool(valid[0]),
        )

    def parse(self, texts: Sequence[Any]) -> npt.NDArray[np.uint8]:
        """Puzzles as text turned into tokens [N, S]; DataError where a text is none."""
        boards = []
        for number, text in enumerate(texts, 1):
            try:
                boards.append(read_line(str(text), self.known(), self.config.seq_len))
            except DataError as error:
                raise DataError(f"puzzle {number}: {error}" if len(texts) > 1 else error) from error
        return np.stack(boards)

    def solve(self, puzzles: str | Sequence[str] | npt.ArrayLike, **options: Any) -> Any:
        """Solves one puzzle or many: a `Solution`, or a list of them.

        A puzzle is text, such as a Sudoku ("." or "0" is a blank), a maze (of `# SG` row by row,
        blanks are cells) or a domino position (`table 2|5 5|3; hand 2|3 0|2`), or tokens [S]; many
        are a sequence of texts, or tokens [N, S]. The options are as in `solve_tokens`.
        """
        if isinstance(puzzles, str):
            return self.solve([puzzles], **options)[0]
        if isinstance(puzzles, Sequence) and puzzles and isinstance(puzzles[0], str):
            return self.solve_tokens(self.parse(puzzles), **options)
        tokens = np.asarray(puzzles)
        if tokens.ndim == 1:
            return self.solve_tokens(tokens[None], **options)[0]
        return self.solve_tokens(tokens, **options)

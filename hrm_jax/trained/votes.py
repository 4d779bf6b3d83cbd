"""Held-out figures of answers that were voted on: symmetries, checkpoints, the rules."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.models.act import Solved
from hrm_jax.puzzles.base import Puzzle
from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.puzzles.evaluation import answers_compared
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.tasks.puzzles.votes import elect, obeying
from hrm_jax.trained.load import load
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import read_config


def load_last(workdir: str | os.PathLike[str], last: int) -> list[PuzzleModel]:
    """Loads the models of the `last` newest checkpoints, the newest first.

    Raises:
        WorkdirError, CheckpointError, ValueError: There are not so many, or one is damaged.
    """
    if last < 1:
        raise ValueError(f"last: expected at least 1, got {last}")
    read_config(workdir)
    folder = pathlib.Path(workdir) / "checkpoints"
    steps = sorted((int(x.name) for x in folder.glob("*") if x.name.isdigit()), reverse=True)
    if len(steps) < last:
        kept = ", ".join(map(str, reversed(steps))) or "none"
        raise CheckpointError(
            f"{folder}: last={last}, but the checkpoints there are: {kept}; training keeps more "
            f"with --config.keep_checkpoints={last}"
        )
    return [load(workdir, step) for step in steps[:last]]


def voted_figures(
    puzzle: Puzzle, puzzles: PuzzleSet, ballots: Sequence[Solved], *, verify: bool = False
) -> Figures:
    """Compares what a vote chooses with the labels.

    Args:
        puzzle: What they are.
        puzzles: Questions and answers.
        ballots: Answers to the first N of them, from `tasks.puzzles.votes.cast_all`.
        verify: Whether to count only the votes that obey the rules too.

    Returns:
        Those of `tasks.puzzles.evaluation.answers_compared` as `voted/…` and `voted/agreement`
        (mean share of the votes that the answer got), or, where the puzzle pools votes, those of
        `Puzzle.tally`; `voted/votes` (votes for each puzzle) and `voted/steps` (ACT steps of all
        votes together, mean over puzzles). The same under `verified/` where only votes that obey
        the rules count; their shares are of all votes. Nothing of a vote of one.

    Raises:
        DataError: There are no rules to check for such puzzles.
    """
    inputs = puzzles.inputs[: len(ballots[0].steps)]
    rules: dict[str, npt.NDArray[Any] | None] = {"voted": None} if len(ballots) > 1 else {}
    if verify:
        rules["verified"] = obeying(puzzle, inputs, ballots)
    figures: dict[str, Any] = {}
    for name, obeys in rules.items():
        if puzzle.pools:
            found = puzzle.tally(puzzles, [(x.predictions, x.q_halt) for x in ballots])
        else:
            elected = elect(ballots, obeys, puzzle.answer_length)
            found = dict(answers_compared(puzzles, elected.answers.predictions, puzzle))
            found["agreement"] = float(np.mean(elected.votes)) / len(ballots)
        found["votes"] = len(ballots)
        found["steps"] = float(np.mean(np.sum([x.steps for x in ballots], axis=0)))
        figures |= {f"{name}/{k}": v for k, v in found.items()}
    return figures

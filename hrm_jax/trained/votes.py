"""Held-out figures of answers that were voted on: symmetries, checkpoints, the rules."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.models.act import Solved
from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.puzzles.evaluation import answers_compared
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.tasks.puzzles.votes import elect, obeying
from hrm_jax.trained.load import load
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import read_config


def load_last(workdir: str | os.PathLike[str], last: int) -> list[PuzzleModel]:
    """Loads the models of the newest checkpoints, the newest first.

    Args:
        workdir: The run's folder.
        last: How many.

    Raises:
        WorkdirError: There is no run in `workdir`.
        CheckpointError: There are not so many checkpoints, or one is damaged.
        ValueError: `last` is less than 1.
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
    models: list[PuzzleModel],
    puzzles: PuzzleSet,
    plain: Solved,
    *,
    votes: int = 1,
    verify: bool = False,
    seed: int = 0,
    **options: Any,
) -> Figures:
    """Lets models vote on the answers to a set and compares with its labels.

    Args:
        models: All vote; the first one has given `plain`.
        puzzles: Questions and answers.
        plain: Answers of the first model to the first N puzzles as they are.
        votes: Answers of each model to each puzzle, all but one under random symmetries.
        verify: Whether to count only the votes that obey the rules too.
        seed: Seed of the symmetries.
        **options: As in `hrm_jax.tasks.puzzles.evaluation.solve_puzzles`.

    Returns:
        Those of `tasks.puzzles.evaluation.answers_compared` as `voted/…`; `voted/agreement` (mean
        share of the votes that the answer got), `voted/votes` (votes for each puzzle) and
        `voted/steps` (ACT steps of all votes together, mean over puzzles). The same under
        `verified/` where only votes that obey the rules count; their shares are of all votes.

    Raises:
        DataError: There are no symmetries, or no rules to check, for such puzzles.
    """
    count = len(plain.steps)
    inputs, identifiers = puzzles.inputs[:count], puzzles.example_identifiers()[:count]
    kind = models[0].kind
    if verify:
        kind.obeys(inputs[:1], plain.predictions[:1])  # complains before the work, not after it
    ballots: list[Solved] = []
    for number, model in enumerate(models):
        ballots += model.ballots(
            inputs,
            identifiers,
            votes=votes,
            key=jax.random.fold_in(jax.random.key(seed), number),
            plain=None if number else plain.replace(trace=None),
            **options,
        )
    rules: dict[str, npt.NDArray[np.bool_] | None] = {}
    if len(ballots) > 1:
        rules["voted"] = None
    if verify:
        rules["verified"] = obeying(kind, inputs, ballots)
    figures: dict[str, Any] = {}
    for name, obeys in rules.items():
        elected = elect(ballots, obeys, kind.answer_length)
        compared = answers_compared(puzzles, elected.answers.predictions, kind.scores)
        figures |= {f"{name}/{k}": v for k, v in compared.items()}
        figures[f"{name}/agreement"] = float(np.mean(elected.votes)) / len(ballots)
        figures[f"{name}/votes"] = len(ballots)
        figures[f"{name}/steps"] = float(np.mean(elected.steps))
    return figures

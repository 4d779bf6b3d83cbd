"""Held-out figures of answers that were voted on: symmetries, checkpoints, the rules."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.inference.load import load
from hrm_jax.models.act import Solved
from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.puzzle_model import PuzzleModel
from hrm_jax.tasks.votes import Elected, elect, obeying
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
        **options: As in `hrm_jax.tasks.evaluation.solve_puzzles`.

    Returns:
        `voted/exact_accuracy`, `voted/accuracy`, `voted/blank_accuracy` and the shares of the
        task's own verdicts as those of `eval/`; `voted/agreement` (mean share of the votes that
        the answer got), `voted/votes` (votes for each puzzle) and `voted/steps` (ACT steps of all
        votes together, mean over puzzles). The same under `verified/` where only votes that obey
        the rules count; their shares are of all votes.

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
        figures |= {f"{name}/{k}": v for k, v in _scores(kind, puzzles, elected).items()}
        figures[f"{name}/agreement"] = float(np.mean(elected.votes)) / len(ballots)
        figures[f"{name}/votes"] = len(ballots)
        figures[f"{name}/steps"] = float(np.mean(elected.steps))
    return figures


def _scores(kind: Any, puzzles: PuzzleSet, elected: Elected) -> Figures:
    """What `evaluate_puzzles` says of plain answers, of those that won; without their prefix."""
    answers = elected.answers.predictions
    inputs = puzzles.inputs[: len(answers)]
    labels = np.asarray(puzzles.labels[: len(answers)], np.int32)
    ignored = puzzles.metadata.ignore_label_id
    counted = np.ones(labels.shape, bool) if ignored is None else labels != ignored
    right = answers == labels

    def share(of: npt.NDArray[np.bool_]) -> float:
        number = of.sum(1)
        rows = number > 0
        return float(((right & of).sum(1)[rows] / number[rows]).mean()) if rows.any() else 1.0

    return {
        "exact_accuracy": float((right | ~counted).all(1).mean()),
        "accuracy": share(counted),
        "blank_accuracy": share(counted & (inputs != labels)),
        **{k: float(np.mean(v)) for k, v in kind.scores(inputs, labels, answers).items()},
    }

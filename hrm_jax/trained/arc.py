"""What only ARC runs have: data sets of tasks that the run knows, votes, the file for Kaggle."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.files import write_text
from hrm_jax.models.act import Solved
from hrm_jax.puzzles.arc.build import read_arc
from hrm_jax.puzzles.arc.vote import submission as make_submission
from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.puzzles.arc import ArcTest, ballot_figures
from hrm_jax.tasks.puzzles.evaluation import solve_puzzles
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.training.workdir import read_identity


def read_test(folder: str | os.PathLike[str], workdir: str | os.PathLike[str]) -> ArcTest:
    """Reads the test split of a data set folder, checked to be of tasks that a run knows.

    Args:
        folder: Data set folder, such as one with more augmentations in the test.
        workdir: The run's folder.

    Raises:
        DataError: The folder is missing or bad, or its puzzle identifiers are not the run's.
    """
    if not pathlib.Path(folder).is_dir():
        raise DataError(f"{folder}: no such folder; expected one made by build_dataset.py arc")
    data = read_arc(folder)
    stored = read_identity(workdir)
    if stored and stored.sha256.get("identifiers") != data.identifiers_digest():
        raise DataError(
            f"{folder}: its {len(data.identifiers)} puzzle identifiers are not the "
            f"{stored.counts.get('identifiers', 0)} that {workdir} was trained on, and a model "
            f"knows tasks by these alone; expected a data set of the run's sources, num_aug and "
            f"seed (test_aug may differ)"
        )
    return ArcTest.of(data)


def check_submission(puzzles: PuzzleSet, path: str | os.PathLike[str]) -> None:
    """Checks, before any work is done, that `pooled_figures` can write a submission.

    Raises:
        DataError: Puzzles of another kind, or a folder is in the way.
    """
    if not isinstance(puzzles, ArcTest):
        raise DataError("submission: only the answers of ARC runs make one")
    if pathlib.Path(path).is_dir():
        raise DataError(f"submission: {path} is a folder, expected the name of a file")


def pooled_figures(
    models: Sequence[PuzzleModel],
    puzzles: ArcTest,
    plain: Solved,
    *,
    submission: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Figures:
    """Lets the augmentations vote on the test inputs, those of all models together.

    Args:
        models: All vote; the first one has given `plain`.
        puzzles: Test inputs under their augmentations.
        plain: Answers of the first model to the first N examples.
        submission: File to write for Kaggle, atomically: two answers to each test input that was
            solved.
        **options: As in `hrm_jax.tasks.puzzles.evaluation.solve_puzzles`.

    Returns:
        Those of `tasks.puzzles.arc.ballot_figures` as `voted/…`, `voted/votes` (votes for each
        example) and `voted/steps` (ACT steps of all of them, mean over examples); {} for one model.
    """
    count = len(plain.steps)
    inputs, identifiers = puzzles.inputs[:count], puzzles.example_identifiers()[:count]
    ballot, steps = puzzles.vote(plain), plain.steps
    for model in models[1:]:
        solved = solve_puzzles(model.config, model.variables, inputs, identifiers, **options)
        ballot.add(solved.predictions, solved.q_halt)
        steps = steps + solved.steps
    if submission is not None:
        write_text(submission, json.dumps(make_submission(ballot)) + "\n")
    if len(models) == 1:
        return {}
    figures = {f"voted/{k}": v for k, v in ballot_figures(ballot, len(models)).items()}
    return {**figures, "voted/votes": len(models), "voted/steps": float(steps.mean())}

"""What only ARC runs have: data sets of tasks that the run knows, and the file for Kaggle."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable

from hrm_jax.data.arc.build import read_arc
from hrm_jax.data.arc.vote import submission
from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.files import write_text
from hrm_jax.models.act import Solved
from hrm_jax.tasks.arc import ArcTest
from hrm_jax.tasks.base import Figures
from hrm_jax.training.workdir import read_identity

Tally = Callable[[PuzzleSet, Solved], Figures]


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


def submitting(tally: Tally, puzzles: PuzzleSet, path: str | os.PathLike[str]) -> Tally:
    """Makes `tally` write Kaggle's `submission.json` besides, atomically.

    Args:
        tally: Figures of answers, for `evaluate_puzzles`.
        puzzles: What will be solved.
        path: File to write: two answers to each test input that was solved.

    Raises:
        DataError: Puzzles of another kind, or a folder is in the way; raised at once.
    """
    if not isinstance(puzzles, ArcTest):
        raise DataError("submission: only the answers of ARC runs make one")
    if pathlib.Path(path).is_dir():
        raise DataError(f"submission: {path} is a folder, expected the name of a file")

    def both(puzzles: PuzzleSet, solved: Solved) -> Figures:
        assert isinstance(puzzles, ArcTest)
        write_text(path, json.dumps(submission(puzzles.vote(solved))) + "\n")
        return tally(puzzles, solved)

    return both

"""Held-out figures of a trained model."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from hrm_jax import tasks
from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.models.act import Halting, Solved
from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.language.task import LanguageConfig
from hrm_jax.tasks.puzzles.arc import ArcTask, ArcTest
from hrm_jax.tasks.puzzles.evaluation import evaluate_puzzles
from hrm_jax.tasks.puzzles.sudoku import SudokuTask
from hrm_jax.tasks.puzzles.task import PuzzleTask, read_data_folder
from hrm_jax.trained import arc
from hrm_jax.trained.load import load
from hrm_jax.trained.votes import load_last, voted_figures
from hrm_jax.training.workdir import WorkdirError, read_config, read_identity


def held_out(workdir: str | os.PathLike[str]) -> PuzzleSet:
    """The test puzzles of a run, checked to be those it was trained beside.

    Raises:
        WorkdirError: There is no run, or the data have changed since.
    """
    folder = pathlib.Path(workdir)
    config = tasks.parse(read_config(folder))
    _, test, identity = tasks.kind(config).load(
        config.data,  # type: ignore[attr-defined]
        folder / "data",
    )
    stored = read_identity(folder)
    wrong = stored.differences(identity) if stored else []
    if wrong:
        raise WorkdirError(
            f"the data of {folder} have changed since it was trained:\n  "
            + "\n  ".join(wrong)
            + "\nGive the puzzles to evaluate on with --data."
        )
    return test


def read_puzzles(path: str | os.PathLike[str], kind: type[PuzzleTask] = SudokuTask) -> PuzzleSet:
    """Reads puzzles with answers: a CSV file, or the test split of a data set folder.

    Args:
        path: File or folder.
        kind: The task that knows the CSV files.

    Raises:
        DataError: The file is missing or bad.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_dir():
        return read_data_folder(path, "test")
    return kind.read_csv(path)


def evaluate(
    workdir: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    checkpoint: str | int = "last",
    max_steps: int | None = None,
    halting: Halting = "q",
    slots: int = 32,
    limit: int | None = None,
    submission: str | os.PathLike[str] | None = None,
    votes: int = 1,
    verify: bool = False,
    last: int = 1,
    seed: int = 0,
) -> Figures:
    """Evaluates a run's model.

    Args:
        workdir: The run's folder.
        data: CSV file or data set folder, or for a language model what its `data.test` takes; None
            takes the run's own held-out data.
        checkpoint: As in `load`.
        max_steps: Most ACT steps; defaults to the run's `eval_max_steps`.
        halting: "q" stops where the model wants to, "fixed" after `max_steps`.
        slots: Puzzles that think at a time.
        limit: Only so many puzzles, windows or pairs.
        submission: File to write with the answers as Kaggle wants them; of ARC runs.
        votes: How many answers to find for each puzzle, all but one under random symmetries.
        verify: Whether to evaluate too what the votes that obey the rules say.
        last: How many of the newest checkpoints vote, each as often; they vote on `submission` too.
        seed: Seed of the symmetries.

    Returns:
        Of a language model the figures of its task. Else those of `evaluate_puzzles`: of the plain
        answers of the checkpoint, or the newest. Behind them, where there is a vote, those of
        `hrm_jax.trained.votes.voted_figures`, or of `hrm_jax.trained.arc.pooled_figures`.

    Raises:
        WorkdirError, CheckpointError, DataError: What was given does not fit.
    """
    config = tasks.parse(read_config(pathlib.Path(workdir)))
    if isinstance(config, LanguageConfig):
        if max_steps is not None or submission is not None or votes != 1 or verify or last != 1:
            raise DataError("max_steps, submission, votes, verify and last are for puzzles only")
        task = tasks.build(config)
        source = None if data is None else str(data)
        model = load(workdir, checkpoint)
        return task.score(model.variables["params"], *task.held_out(source, limit or 0))
    if last != 1 and checkpoint != "last":
        raise DataError(f"last={last} and checkpoint={checkpoint!r}: give one or the other")
    models = [load(workdir, checkpoint)] if last == 1 else load_last(workdir, last)
    model = models[0]
    kind = tasks.kind(config)
    if data is None:
        puzzles = held_out(workdir)
    elif kind is ArcTask:
        puzzles = arc.read_test(data, workdir)
    else:
        puzzles = read_puzzles(data, kind)
    if puzzles.metadata.seq_len != model.config.seq_len:
        raise DataError(
            f"{data}: puzzles have {puzzles.metadata.seq_len} cells, the model was trained on "
            f"{model.config.seq_len}"
        )
    for name, value in (("max_steps", max_steps), ("limit", limit), ("votes", votes)):
        if value is not None and value < 1:
            raise DataError(f"{name}: expected at least 1, got {value}")
    if (votes > 1 or verify) and kind is ArcTask:
        raise DataError(
            "votes and verify are not for ARC, whose evaluation votes over all augmentations "
            "(eval/pass_at_1, …)"
        )
    if submission is not None:
        arc.check_submission(puzzles, submission)
    plain: list[Solved] = []

    def keep(puzzles: PuzzleSet, solved: Solved) -> Figures:
        plain.append(solved)
        return kind.tally(puzzles, solved)

    options: dict[str, Any] = {
        "slots": slots,
        "halting": halting,
        "max_steps": max_steps or model.max_steps,
    }
    figures = evaluate_puzzles(
        model.config,
        model.variables,
        puzzles,
        limit=limit,
        scores=kind.scores,
        tally=keep,
        **options,
    )
    voted: Figures = {}
    if isinstance(puzzles, ArcTest):
        if last > 1 or submission is not None:
            voted = arc.pooled_figures(models, puzzles, plain[0], submission=submission, **options)
    elif votes > 1 or last > 1 or verify:
        voted = voted_figures(
            models, puzzles, plain[0], votes=votes, verify=verify, seed=seed, **options
        )
    return {**figures, **voted}

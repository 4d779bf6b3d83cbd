"""Held-out figures of a trained model."""

from __future__ import annotations

import os
import pathlib

from hrm_jax import tasks
from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.inference.load import load
from hrm_jax.models.act import Halting
from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.evaluation import evaluate_puzzles
from hrm_jax.tasks.puzzles import PuzzleTask, read_data_folder
from hrm_jax.tasks.sudoku import SudokuTask
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
) -> Figures:
    """Evaluates a run's model.

    Args:
        workdir: The run's folder.
        data: CSV file or data set folder; None takes the run's own test puzzles.
        checkpoint: As in `load`.
        max_steps: Most ACT steps; defaults to the run's `eval_max_steps`.
        halting: "q" stops where the model wants to, "fixed" after `max_steps`.
        slots: Puzzles that think at a time.
        limit: Only the first so many puzzles.

    Returns:
        Figures as of `evaluate_puzzles`.

    Raises:
        WorkdirError, CheckpointError, DataError: What was given does not fit.
    """
    model = load(workdir, checkpoint)
    kind = tasks.kind(tasks.parse(read_config(pathlib.Path(workdir))))
    puzzles = held_out(workdir) if data is None else read_puzzles(data, kind)
    if puzzles.metadata.seq_len != model.config.seq_len:
        raise DataError(
            f"{data}: puzzles have {puzzles.metadata.seq_len} cells, the model was trained on "
            f"{model.config.seq_len}"
        )
    for name, value in (("max_steps", max_steps), ("limit", limit)):
        if value is not None and value < 1:
            raise DataError(f"{name}: expected at least 1, got {value}")
    return evaluate_puzzles(
        model.config,
        model.variables,
        puzzles,
        slots=slots,
        halting=halting,
        max_steps=max_steps or model.max_steps,
        limit=limit,
        scores=kind.scores,
    )

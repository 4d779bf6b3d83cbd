"""Held-out figures of a trained model."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import jax

from hrm_jax import tasks
from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.files import write_text
from hrm_jax.models.act import Halting
from hrm_jax.puzzles import PUZZLES
from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.language.task import LanguageConfig
from hrm_jax.tasks.puzzles.evaluation import figures_of
from hrm_jax.tasks.puzzles.votes import cast_all
from hrm_jax.trained.load import load
from hrm_jax.trained.votes import load_last, voted_figures
from hrm_jax.training.workdir import WorkdirError, read_config, read_identity


def held_out(workdir: str | os.PathLike[str]) -> PuzzleSet:
    """The test puzzles of a run, checked to be those it was trained beside.

    Raises:
        WorkdirError: There is no run, or the data have changed since.
    """
    folder = pathlib.Path(workdir)
    config: Any = tasks.parse(read_config(folder))
    _, test, identity = PUZZLES[config.task].load(config.data, folder / "data")
    stored = read_identity(folder)
    wrong = stored.differences(identity) if stored else []
    if wrong:
        raise WorkdirError(
            f"the data of {folder} have changed since it was trained:\n  "
            + "\n  ".join(wrong)
            + "\nGive the puzzles to evaluate on with --data."
        )
    return test


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
        submission: File to write, atomically, with the answers of all votes as a contest wants
            them; see `Puzzle.submission`.
        votes: How many answers to find for each puzzle, all but one under random symmetries.
        verify: Whether to evaluate too what the votes that obey the rules say.
        last: How many of the newest checkpoints vote, each as often.
        seed: Seed of the symmetries.

    Returns:
        Of a language model the figures of its task. Else those of `evaluate_puzzles`: of the plain
        answers of the checkpoint, or the newest. Behind them, where there is a vote, those of
        `hrm_jax.trained.votes.voted_figures`.

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
    puzzle = PUZZLES[config.task]
    run = read_identity(workdir)
    puzzles = held_out(workdir) if data is None else puzzle.read_test(data, run)
    if puzzles.metadata.seq_len != model.config.seq_len:
        raise DataError(
            f"{data}: puzzles have {puzzles.metadata.seq_len} cells, the model was trained on "
            f"{model.config.seq_len}"
        )
    for name, value in (("max_steps", max_steps), ("limit", limit), ("votes", votes)):
        if value is not None and value < 1:
            raise DataError(f"{name}: expected at least 1, got {value}")
    # What cannot be done is said before the work, not after it.
    if votes > 1:
        jax.eval_shape(puzzle.transform, jax.random.key(seed), puzzles.inputs[0])
    if verify:
        puzzle.obeys(puzzles.inputs[:1], puzzles.labels[:1])
    if submission is not None:
        puzzle.submission(puzzles, [])
        if pathlib.Path(submission).is_dir():
            raise DataError(f"submission: {submission} is a folder, expected the name of a file")
    inputs, identifiers = puzzles.inputs[:limit], puzzles.example_identifiers()[:limit]
    options: dict[str, Any] = {
        "slots": slots,
        "halting": halting,
        "max_steps": max_steps or model.max_steps,
    }
    plain = model.answers(inputs, identifiers, trace=True, **options)
    figures = figures_of(puzzles, plain, puzzle)
    ballots = cast_all(
        models,
        inputs,
        identifiers,
        votes=votes,
        seed=seed,
        plain=plain.replace(trace=None),
        **options,
    )
    if submission is not None:
        answers = puzzle.submission(puzzles, [(x.predictions, x.q_halt) for x in ballots])
        write_text(submission, json.dumps(answers) + "\n")
    return {**figures, **voted_figures(puzzle, puzzles, ballots, verify=verify)}

"""Held-out figures of a trained model."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from hrm_jax import tasks
from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.files import write_text
from hrm_jax.models.act import Halting, Solved
from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.base import Puzzle
from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.puzzles.evaluation import answers_compared, figures_of
from hrm_jax.tasks.puzzles.votes import cast_all, elect, obeying
from hrm_jax.trained.load import load, load_last
from hrm_jax.training.workdir import WorkdirError, read_config, read_identity


def held_out(workdir: str | os.PathLike[str]) -> PuzzleSet:
    """The test puzzles of a run; WorkdirError if they have changed since it was trained."""
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
        data: CSV file or data set folder, or for a language model what its `data.test` takes; None
            takes the run's own held-out data.
        checkpoint: As in `load`.
        max_steps: Most ACT steps; defaults to the run's `eval_max_steps`.
        halting, slots: As in `solve_puzzles`.
        limit: Only so many puzzles, windows or pairs.
        submission: File to write, atomically, with the answers of all votes as a contest wants
            them; see `Puzzle.submission`.
        votes: How many answers to find for each puzzle, all but one under symmetries drawn by
            `seed`.
        verify: Whether to evaluate too what the votes that obey the rules say.
        last: How many of the newest checkpoints vote, each as often.

    Returns:
        Of a language model the figures of its task. Else those of `evaluate_puzzles`: of the plain
        answers of the checkpoint, or the newest. Behind them, where there is a vote, those of
        `voted_figures`.
    """
    config = tasks.parse(read_config(workdir))
    if config.task not in PUZZLES:
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
    steps = max_steps or model.max_steps
    options: Any = {"slots": slots, "halting": halting, "max_steps": steps}
    plain = model.answers(inputs, identifiers, trace=True, **options)
    figures = figures_of(puzzles, plain, puzzle)
    options |= {"votes": votes, "seed": seed, "plain": plain.replace(trace=None)}
    ballots = cast_all(models, inputs, identifiers, **options)
    if submission is not None:
        answers = puzzle.submission(puzzles, [(x.predictions, x.q_halt) for x in ballots])
        write_text(submission, json.dumps(answers) + "\n")
    return {**figures, **voted_figures(puzzle, puzzles, ballots, verify=verify)}


def voted_figures(
    puzzle: Puzzle, puzzles: PuzzleSet, ballots: Sequence[Solved], *, verify: bool = False
) -> Figures:
    """Compares what a vote of `cast_all` on the first N puzzles chooses with their labels.

    Returns:
        Those of `tasks.puzzles.evaluation.answers_compared` as `voted/…` and `voted/agreement`
        (mean share of the votes that the answer got), or, where the puzzle pools votes, those of
        `Puzzle.tally`; `voted/votes` (votes for each puzzle) and `voted/steps` (ACT steps of all
        votes together, mean over puzzles). If `verify` says so, the same under `verified/` where
        only votes that obey the rules count; their shares are of all votes. Nothing of a vote of
        one.
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

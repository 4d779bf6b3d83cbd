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
from hrm_jax.files import atomic_path, write_text
from hrm_jax.models.act import Halting, Solved
from hrm_jax.paths import path_of
from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.base import Puzzle
from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.puzzles.evaluation import answers_compared, figures_of
from hrm_jax.tasks.puzzles.search import Searched, searching_alone
from hrm_jax.tasks.puzzles.votes import cast_all, elect, obeying
from hrm_jax.tasks.relational.task import QuestionConfig
from hrm_jax.tasks.rl.task import RLConfig
from hrm_jax.trained.load import load, load_last, read_base
from hrm_jax.training.workdir import WorkdirError, read_config, read_identity


def held_out(workdir: str | os.PathLike[str]) -> PuzzleSet:
    """The test puzzles of a run; WorkdirError if they have changed since it was trained."""
    folder = path_of(workdir)
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
    halting: Halting | None = None,
    slots: int | None = None,
    limit: int | None = None,
    submission: str | os.PathLike[str] | None = None,
    votes: int = 1,
    verify: bool = False,
    last: int = 1,
    seed: int | None = None,
    save_outputs: str | os.PathLike[str] | None = None,
    save_logits: bool = False,
    search: int = 0,
) -> Figures:
    """Evaluates a run's model.

    Args:
        data: CSV file or data set folder, or for a language model what its `data.test` takes; None
            takes the run's own held-out data.
        checkpoint: As in `load`.
        max_steps: Most ACT steps, or steps of an episode; defaults to the run's `eval_max_steps`.
        halting, slots: As in `solve_puzzles`; None for "q" and 64.
        limit: Only so many puzzles, windows or pairs; so many episodes.
        submission: File to write, atomically, with the answers of all votes as a contest wants
            them; see `Puzzle.submission`.
        votes: How many answers to find for each puzzle, all but one under symmetries drawn by
            `seed`, 0 if None. Of an agent it is the seed of its episodes, by default that of the
            evaluations of training.
        verify: Whether to evaluate too what the votes that obey the rules say.
        last: How many of the newest checkpoints vote, each as often.
        save_outputs: `.npz` file to write, atomically: inputs, labels and plain answers [N, S],
            puzzle_identifiers, steps and q_halt [N] (its sigmoid is the belief to be right), and
            where there is a vote all votes [V, N, S] and votes_q_halt [V, N], or of a search the
            answers as searched [N, S], and searched_questions and searched_steps [N].
        save_logits: Whether the file has the logits of the plain answers too, float32 [N, S, V].
        search: The most questions about a puzzle in a search, see `PuzzleModel.solve_tokens`; 0 for
            no search. Not with `votes`, `verify`, `last` and `submission`.

    Returns:
        Of a language model or an agent the figures of its task. Else those of `evaluate_puzzles`:
        of the plain answers of the checkpoint, or the newest. Behind them, where there is a vote,
        those of `voted_figures`; where there is a search, those of `answers_compared` as
        `searched/…`, `searched/obeys` (share of answers that obey the rules), and
        `searched/questions` and `searched/steps` (means over puzzles of what it asked, and of the
        ACT steps of that).
    """
    config = tasks.parse(read_config(workdir))
    data = None if data is None else path_of(data)
    if config.task not in PUZZLES:
        plays = isinstance(config, RLConfig)
        not_taken = {
            **({"data": data} if plays else {"max_steps": max_steps, "seed": seed}),
            **{"halting": halting, "slots": slots},
            **{"submission": submission, "save_outputs": save_outputs},
            **{"save_logits": save_logits or None, "verify": verify or None},
            **{"search": search or None},
            **{"votes": None if votes == 1 else votes, "last": None if last == 1 else last},
        }
        given = [name for name, value in not_taken.items() if value is not None]
        if given:
            kind = "an agent" if plays else "a language model"
            if isinstance(config, QuestionConfig):
                kind = "a network for questions"
            raise DataError(f"{', '.join(given)}: not for {kind}, of which {workdir} is a run")
        for name, value in (("max_steps", max_steps), ("limit", limit)):
            if plays and value is not None and value < 1:
                raise DataError(f"{name}: expected at least 1, got {value}")
        base = {"base": read_base(config.base)} if config.base else {}
        task = tasks.build(config, pathlib.Path(workdir) / "data", **base)
        if plays:
            return task.score(load(workdir, checkpoint).variables, limit, seed, max_steps)
        source = None if data is None else str(data)
        model = load(workdir, checkpoint)
        return task.score(model.variables["params"], *task.held_out(source, limit or 0))
    if seed is not None and votes == 1:
        raise DataError(f"seed: {seed} has no effect: it draws symmetries, and votes is 1")
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
    if search:
        others = {"votes": votes > 1, "verify": verify, "last": last > 1, "submission": submission}
        searching_alone(search, **others)
        puzzle.possible(puzzles.inputs[:1])
    if votes > 1:
        jax.eval_shape(puzzle.transform, jax.random.key(seed or 0), puzzles.inputs[0])
    if verify or search:
        puzzle.obeys(puzzles.inputs[:1], puzzles.labels[:1])
    if submission is not None:
        puzzle.submission(puzzles, [])
    for name, file in (("submission", submission), ("save_outputs", save_outputs)):
        if file is not None and pathlib.Path(file).is_dir():
            raise DataError(f"{name}: {file} is a folder, expected the name of a file")
    if save_outputs is not None and pathlib.Path(save_outputs).suffix != ".npz":
        raise DataError(f"save_outputs: {save_outputs}: expected a name that ends in .npz")
    if save_logits and save_outputs is None:
        raise DataError("save_logits: there is no save_outputs to write them to")
    inputs, identifiers = puzzles.inputs[:limit], puzzles.example_identifiers()[:limit]
    known = model.config.num_puzzle_identifiers
    if identifiers.max() >= known:
        raise DataError(
            f"{data}: puzzle identifier {identifiers.max()} is not one of the {known} that the "
            f"model knows"
        )
    steps = max_steps or model.max_steps
    options: Any = {
        "slots": 64 if slots is None else slots,
        "halting": halting or "q",
        "max_steps": steps,
    }
    plain = model.answers(inputs, identifiers, trace=True, logits=save_logits, **options)
    figures = figures_of(puzzles, plain, puzzle)
    if search:
        found = model.search(inputs, identifiers, search, **options)
        figures = {**figures, **_searched_figures(puzzle, puzzles, found)}
    options |= {"votes": votes, "seed": seed or 0, "plain": plain.replace(trace=None, logits=None)}
    ballots = cast_all(models, inputs, identifiers, **options)
    if submission is not None:
        answers = puzzle.submission(puzzles, [(x.predictions, x.q_halt) for x in ballots])
        write_text(submission, json.dumps(answers) + "\n")
    if save_outputs is not None:
        arrays = {
            "inputs": inputs,
            "labels": puzzles.labels[:limit],
            "puzzle_identifiers": identifiers,
            "answers": plain.predictions,
            "steps": plain.steps,
            "q_halt": plain.q_halt,
        }
        if save_logits:
            arrays["logits"] = plain.logits
        if search:
            arrays["searched"] = found.answers.predictions
            arrays |= {"searched_questions": found.questions, "searched_steps": found.steps}
        if len(ballots) > 1:
            arrays["votes"] = np.stack([x.predictions for x in ballots])
            arrays["votes_q_halt"] = np.stack([x.q_halt for x in ballots])
        with atomic_path(save_outputs) as path:
            np.savez(path, **arrays)
    return {**figures, **voted_figures(puzzle, puzzles, ballots, verify=verify)}


def _searched_figures(puzzle: Puzzle, puzzles: PuzzleSet, found: Searched) -> Figures:
    answers = found.answers.predictions
    figures = dict(answers_compared(puzzles, answers, puzzle))
    figures["obeys"] = float(puzzle.obeys(puzzles.inputs[: len(answers)], answers).mean())
    figures["questions"] = float(found.questions.mean())
    figures["steps"] = float(found.steps.mean())
    return {f"searched/{name}": value for name, value in figures.items()}


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

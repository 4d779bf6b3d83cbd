"""Keeps what the evaluation asks for out of what is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.arc.augment import canonical
from hrm_jax.puzzles.arc.reader import ArcTask, Grid


def without_leaks(
    training: Sequence[ArcTask], evaluation: Sequence[ArcTask]
) -> tuple[list[ArcTask], list[str]]:
    """Refuses sources that share tasks, and leaves out single training pairs that give answers.

    Pairs are compared up to turning, mirroring and recolouring, because training shows them so.
    ARC-AGI-1 itself repeats one evaluation task, 070dd51e, in the training task 40853293, and the
    test pair of another, 50a16a69, recoloured in caa06a1f. Such few pairs are left out of the
    training; in words they are returned beside the tasks that remain. The evaluation tasks' own
    demonstrations stay, even where one gives an answer: solvers are given them.

    Raises:
        DataError: A training task has the name of an evaluation task, or the answers of more than
            one in a hundred evaluation tasks are in the training; names the first few.
    """
    names = {task.name for task in training}
    same = [f"{x.name} (a training task has its name)" for x in evaluation if x.name in names]
    _refuse(same, len(evaluation))
    answers: dict[bytes, str] = {}
    questions: dict[bytes, ArcTask] = {}
    for task in evaluation:
        for source, target in task.test:
            if target is None:
                questions[canonical([source])] = task
            else:
                answers[canonical([source, target])] = task.name

    def asked_by(task: ArcTask, source: Grid, target: Grid | None) -> str | None:
        """The evaluation task whose test a pair of a training task answers."""
        if target is not None and (name := answers.get(canonical([source, target]))):
            return name
        other = questions.get(canonical([source])) if questions else None
        # Where the answer is not known, the same input under another rule is no leak (ARC-AGI-1 has
        # ten such tasks): the training task must have one of its demonstrations too.
        if other and {*map(canonical, other.train)} & {*map(canonical, task.train)}:
            return other.name
        return None

    kept, found = [], []
    for task in training:
        asked: set[str] = set()
        rest: dict[str, Any] = {"train": [], "test": []}
        for split, pairs in rest.items():
            for pair in getattr(task, split):
                if name := asked_by(task, *pair):
                    asked.add(name)
                else:
                    pairs.append(pair)
        found += [(name, task.name) for name in sorted(asked)]
        if any(rest.values()):
            kept.append(ArcTask(task.name, tuple(rest["train"]), tuple(rest["test"])))
    if 100 * len({name for name, _ in found}) > len(evaluation):
        _refuse([f"{name} (its test pair is in {place})" for name, place in found], len(evaluation))
    return kept, [f"{place}: what it holds of {name}'s test" for name, place in found]


def _refuse(shared: list[str], tasks: int) -> None:
    if shared:
        raise DataError(
            f"{len(shared)} of {tasks} evaluation tasks are among the training tasks: "
            f"{', '.join(shared[:3])}{', …' if len(shared) > 3 else ''}; choose other sources "
            f"(ARC-AGI-2's training tasks include most of ARC-AGI-1's evaluation tasks)"
        )

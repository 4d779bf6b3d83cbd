"""What worlds and questions look like, before anything is trained on them."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_format import Report
from hrm_jax.puzzles.inspect import Inspection
from hrm_jax.tasks.relational.data import FamilyData, SceneData, WorldData
from hrm_jax.tasks.relational.drawing import contact_sheet, told

KINDS: Mapping[str, type[WorldData]] = {kind.kind: kind for kind in (SceneData, FamilyData)}

_DRAWN = 1000  # worlds of each part


def inspect_worlds(
    kind: str,
    split: str = "train",
    *,
    num: int = 3,
    max_reports: int = 20,
    output: str | os.PathLike[str] | None = None,
) -> Inspection:
    """Draws worlds of both parts, as a run with a set of 1000 does, and shows `num` of one.

    Its metadata are how often each answer is right, by kind of question. Violations are worlds that
    are in the other part too. `output` is a PNG to write, with a dozen worlds and right answers.
    """
    if num < 0 or max_reports < 1:
        raise DataError(f"num is {num}, max_reports {max_reports}; expected from 0 and from 1")
    if split not in ("train", "test"):
        raise DataError(f"{kind}: there is no split {split!r}, only train and test")
    data = KINDS[kind](num_train=_DRAWN, num_test=_DRAWN)
    questions = data.questions
    train, test = data.parts()
    assert train is not None
    shown, others = (train, test) if split == "train" else (test, train)
    right = shown.answers()
    frequencies = {}
    for name in dict.fromkeys(questions.kinds):
        found = right[:, np.array(questions.kinds) == name]
        numbers, counts = np.unique(found[found >= 0], return_counts=True)
        frequencies[name] = ", ".join(
            f"{questions.answers[k]} {count / counts.sum():.1%}"
            for k, count in zip(numbers, counts, strict=True)
        )
    report = Report(max_reports)
    known = set(others.identities())
    twice = np.array([key in known for key in shown.identities()])
    report.add_rows(split, twice, "is in the other part too")
    if output is not None:
        contact_sheet(output, shown, questions, right, f"{kind}, {split}: right answers")
    return Inspection(
        kind=kind,
        metadata=frequencies,
        sizes={"worlds": len(shown), "questions": int((right >= 0).sum())},
        examples=["\n".join(told(shown, questions, right, k)) for k in range(min(num, _DRAWN))],
        violations=report.violations,
        total=report.total,
    )

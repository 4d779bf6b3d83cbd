"""Shares of questions that were answered rightly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hrm_jax.data.questions.base import Questions
from hrm_jax.tasks.base import Figures

Answers = npt.NDArray[np.integer]
"""Numbers of answers [W, K]; −1 of a right answer where there is none."""


def shares(found: Answers, answers: Answers, questions: Questions) -> Figures:
    """The figures of `QuestionTask.evaluate` for answers beside the right ones."""
    counted, right = answers >= 0, found == answers
    kinds = np.array(questions.kinds)
    parts = {
        "": np.full(len(kinds), True),
        "relational_": questions.relational,
        "non_relational_": ~questions.relational,
        **{f"{kind}_": kinds == kind for kind in dict.fromkeys(questions.kinds)},
    }
    right_of = {
        f"eval/{name}accuracy": float(right[:, part].sum() / max(1, counted[:, part].sum()))
        for name, part in parts.items()
    }
    return {**right_of, "eval/questions": int(counted.sum())}


def most_common(answers: Answers, questions: Questions) -> Answers:
    """What somebody answers who sees no world: to all questions of a kind the answer that is right
    most often."""
    found = np.empty_like(answers)
    for kind in dict.fromkeys(questions.kinds):
        part = np.array(questions.kinds) == kind
        right = answers[:, part]
        found[:, part] = np.bincount(right[right >= 0], minlength=1).argmax()
    return found

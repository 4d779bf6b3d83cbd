"""What to tell and to draw at the end of a run on questions."""

from __future__ import annotations

import pathlib
import shlex
from typing import Any

from hrm_jax.tasks.base import Figures, State
from hrm_jax.tasks.relational.drawing import contact_sheet, told
from hrm_jax.tasks.relational.evaluation import most_common, shares


def report(task: Any, state: State, figures: Figures, folder: pathlib.Path) -> str:
    """Figures by kind of question beside those of a guess, and what to do next; draws
    `contact_sheet.png`. `figures` are those of the last evaluation."""
    questions, right = task.questions, task.test.answers()
    found = task.answers(task.weights(state)["params"], task.test)
    guess = shares(most_common(right, questions), right, questions)
    lines = ["Held-out questions, right (in brackets: always the most common answer):"]
    for name, words in {
        "relational": "about several objects",
        "non_relational": "about one object",
        **{kind: f"  {kind.replace('_', ' ')}" for kind in dict.fromkeys(questions.kinds)},
    }.items():
        share, guessed = (x[f"eval/{name}_accuracy"] for x in (figures, guess))
        lines.append(f"  {words:24} {share:7.2%}  ({guessed:.1%})")
    number = figures["eval/questions"]
    title = (
        f"Held-out worlds: {figures['eval/accuracy']:.2%} of {number:,} questions answered rightly"
    )
    contact_sheet(folder / "plots" / "contact_sheet.png", task.test, questions, found, title)
    run, weights = (shlex.quote(str(x)) for x in (folder, folder / "model.safetensors"))
    lines += [
        "",
        "One world, and what the model says of it:",
        *(f"  {line}" for line in told(task.test, questions, found, 0)),
        "",
        f"Files: {folder}/metrics.jsonl, plots/, checkpoints/, best/, config.json",
        "Next:",
        f"  python launch/evaluate.py --workdir={run}",
        f"  python launch/export.py --workdir={run} --format=safetensors --output={weights}",
    ]
    return "\n".join(lines)

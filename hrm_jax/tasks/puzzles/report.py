"""What to tell and to draw at the end of a run on puzzles."""

from __future__ import annotations

import pathlib
import shlex
from typing import Any

import numpy as np

from hrm_jax.puzzles.drawing.contact_sheet import contact_sheet
from hrm_jax.puzzles.drawing.traces import trace_gif, trace_text
from hrm_jax.tasks.base import Figures, State
from hrm_jax.tasks.puzzles.evaluation import solve_puzzles

_SHOWN = 4096  # test puzzles, at most, of which some are drawn
_STEPS = 8  # ACT steps, at most, that are shown one by one, where there is a choice
_LONGEST = 200  # characters of a puzzle on a command line


def report(task: Any, state: State, figures: Figures, folder: pathlib.Path) -> str:
    """Figures, an example, and what to do next; draws `contact_sheet.png` and `reasoning.gif`.

    `state` is whole on this device, and `figures` are those of the last evaluation.
    """
    lines = []
    if "eval/exact_accuracy" in figures:
        lines.append(
            f"Held-out puzzles solved: {figures['eval/exact_accuracy']:.1%} of "
            f"{figures['eval/puzzles']:,} (cells right: {figures['eval/accuracy']:.1%}; "
            f"mean ACT steps: {figures['eval/steps']:.2f})."
        )
    for name, words in task.puzzle.words.items():
        if f"eval/{name}" in figures:
            lines.append(f"{words}: {figures[f'eval/{name}']:.1%}.")
    if by_step := figures.get("eval/exact_accuracy_by_step"):
        after = [
            n
            for n in range(1, len(by_step) + 1)
            if len(by_step) <= _STEPS or n & (n - 1) == 0 or n == len(by_step)
        ]
        shares = ", ".join(f"{by_step[n - 1]:.1%}" for n in after)
        lines += [f"Solved after {', '.join(map(str, after))} ACT steps: {shares}.", ""]
    run, weights = (shlex.quote(str(x)) for x in (folder, folder / "model.safetensors"))
    commands = [
        f"  python launch/evaluate.py --workdir={run} --halting=fixed",
        f"  python launch/export.py --workdir={run} --format=safetensors --output={weights}",
    ]
    question, shown = _show(task, state, folder)
    if shown:
        lines.append(shown)
        if task.puzzle.game or task.puzzle.typing(task.config.model.seq_len):
            commands.insert(0, f"  python launch/play.py --workdir={run}")
        if len(question) < _LONGEST:
            commands.insert(0, f'  python launch/solve.py --workdir={run} --trace "{question}"')
    lines += [
        f"Files: {folder}/metrics.jsonl, plots/, checkpoints/, best/, config.json",
        "Next:",
        *commands,
    ]
    return "\n".join(lines)


def _show(task: Any, state: State, folder: pathlib.Path) -> tuple[str, str]:
    """Draws plots; returns one of the puzzles, and how it was solved, as text."""
    config, puzzles = task.config, task.evaluated
    inputs, labels = puzzles.inputs[:_SHOWN], puzzles.labels[:_SHOWN]
    solved = solve_puzzles(  # as in the evaluation before, so that the program is compiled already
        config.model,
        task.weights(state),
        inputs,
        puzzles.example_identifiers()[:_SHOWN],
        slots=config.eval_slots,
        max_steps=config.eval_max_steps or config.model.halt_max_steps,
        trace=True,
    )
    counted = labels != puzzles.metadata.ignore_label_id
    known = counted.any(1)
    if not known.any():  # ARC's public tests
        return "", ""
    verdicts = task.puzzle.score(inputs, labels.astype(np.int32), solved.predictions)
    exact = ((solved.predictions == labels) | ~counted).all(1)
    good = verdicts.get(task.puzzle.good, exact)
    contact_sheet(
        folder / "plots" / "contact_sheet.png",
        task.puzzle.painter,
        inputs[known],
        labels[known],
        solved.predictions[known],
        solved.steps[known],
        good[known],
        {name: verdict[known] for name, verdict in verdicts.items()},
    )
    if not task.puzzle.as_text:
        return "", ""
    # The puzzle that took longest among those solved shows most, up to some steps.
    telling = np.where(solved.steps <= _STEPS, solved.steps, -solved.steps)
    best = int(np.lexsort((telling, good))[-1])
    question, boards = inputs[best], solved.trace[best, : solved.steps[best]]
    painter = task.puzzle.painter
    if not painter.panels:
        shown = f"One of them, and the model's answer:\n{painter.text(question, boards[-1])}\n"
    else:
        trace_gif(folder / "plots" / "reasoning.gif", painter, question, boards)
        trace = trace_text(painter, question, boards[:_STEPS])
        steps = "" if len(boards) <= _STEPS else f" of the first {_STEPS}"
        shown = f"One of them, the board after each{steps} ACT step{'s' * bool(steps)}:\n{trace}"
    return task.puzzle.to_text(question), shown

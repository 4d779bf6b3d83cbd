"""What a run on puzzles tells at its end: its figures, and one of the puzzles."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax.puzzles.domino import check as domino
from hrm_jax.puzzles.drawing import maze_boards, sudoku_boards
from hrm_jax.puzzles.drawing.contact_sheet import contact_sheet
from hrm_jax.puzzles.maze.board import MazeShape
from hrm_jax.puzzles.maze.board import to_text as maze_text
from hrm_jax.puzzles.sudoku.board import to_text as sudoku_text
from hrm_jax.tasks.base import Figures, State
from hrm_jax.tasks.puzzles.evaluation import solve_puzzles

Array = npt.NDArray[Any]

_SHOWN = 4096  # test puzzles, at most, of which some are drawn
_BOARDS = "One of them, the board after each ACT step:"
_FIGURES = {
    "valid": "Held-out answers that are valid",
    "legal": "Held-out answers that are legal",
    "optimal": "Held-out answers that are optimal",
    "pass_at_1": "Held-out tests whose first answer is right (pass@1)",
    "pass_at_2": "Held-out tests with a right answer among two (pass@2)",
    "cell_accuracy": "Cells that are right in the first answers",
    "copy_cell_accuracy": "The same of answers that copy the input",
    "colour_cell_accuracy": "The same of answers in the most frequent colour",
}


def _show_one(kind: str, question: Array, boards: Array, folder: pathlib.Path) -> str:
    """A puzzle [S] and the board after each ACT step [K, S] as text; a Sudoku is animated too."""
    if kind == "domino":
        return domino.render(question, boards[-1])
    if kind == "maze":
        shape = MazeShape.for_cells(len(question))
        return maze_boards.trace_text([maze_text(board) for board in boards], shape)
    given, *texts = ("".join("?.123456789"[t] for t in board) for board in (question, *boards))
    size = round(len(question) ** 0.5)
    sudoku_boards.trace_gif(folder / "plots" / "reasoning.gif", given, texts, size)
    return sudoku_boards.trace_text(given, texts, size)


def _show(task: Any, state: State, folder: pathlib.Path) -> tuple[str, str]:
    """Draws the contact sheet; returns one of the puzzles, and its solution as text."""
    config, puzzles = task.config, task.evaluated()
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
    verdicts = task.scores(inputs, labels.astype(np.int32), solved.predictions)
    exact = ((solved.predictions == labels) | ~counted).all(1)
    good = verdicts.get("optimal", exact)
    contact_sheet(
        folder / "plots" / "contact_sheet.png",
        config.task,
        *(x[known] for x in (inputs, labels, solved.predictions, solved.steps, good)),
        verdicts={name: verdict[known] for name, verdict in verdicts.items()},
    )
    if config.task == "arc":
        return "", ""
    # The puzzle that took longest among those solved shows most.
    best = int(np.lexsort((solved.steps, good))[-1])
    boards = solved.trace[best, : solved.steps[best]]
    question = sudoku_text(inputs[best].astype(np.int8) - 1) if config.task == "sudoku" else ""
    return question, _show_one(config.task, inputs[best], boards, folder)


def report(task: Any, state: State, figures: Figures, folder: pathlib.Path) -> str:
    """What to tell the user at the end of a run: figures, examples, what to do next.

    Draws `plots/contact_sheet.png`, and of a Sudoku `plots/reasoning.gif`.

    Args:
        task: What was trained.
        state: The last state.
        figures: The last evaluation.
        folder: The run's workdir.
    """
    lines = []
    if "eval/exact_accuracy" in figures:
        lines.append(
            f"Held-out puzzles solved: {figures['eval/exact_accuracy']:.1%} of "
            f"{figures['eval/puzzles']:,} (cells right: {figures['eval/accuracy']:.1%}; "
            f"mean ACT steps: {figures['eval/steps']:.2f})."
        )
    for name, words in _FIGURES.items():
        if f"eval/{name}" in figures:
            lines.append(f"{words}: {figures[f'eval/{name}']:.1%}.")
    if by_step := figures.get("eval/exact_accuracy_by_step"):
        shares = ", ".join(f"{share:.1%}" for share in by_step)
        lines += [f"Solved after 1, 2, … ACT steps: {shares}.", ""]
    commands = [
        f"  python launch/evaluate.py --workdir={folder} --halting=fixed",
        f"  python launch/export.py --workdir={folder} --format=safetensors "
        f"--output={folder}/model.safetensors",
    ]
    question, shown = _show(task, state, folder)
    if shown:
        moves = task.config.task == "domino"
        lines.append("One of them, and the model's move:" if moves else _BOARDS)
        lines += [shown.rstrip("\n"), ""]
        commands.insert(0, f"  python launch/play.py --workdir={folder}")
    if question:
        commands.insert(0, f'  python launch/solve.py --workdir={folder} --trace "{question}"')
    lines += [
        f"Files: {folder}/metrics.jsonl, plots/, checkpoints/, best/, config.json",
        "Next:",
        *commands,
    ]
    return "\n".join(lines)

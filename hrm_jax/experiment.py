"""One experiment from its configuration to its figures: what `launch/train.py` runs."""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hrm_jax import tasks
from hrm_jax.data.sudoku.board import to_text
from hrm_jax.inference.load import load
from hrm_jax.interop.torch import load_hrm, load_trm
from hrm_jax.models.trm import TRMConfig
from hrm_jax.tasks.base import RunConfig
from hrm_jax.tasks.puzzle_model import PuzzleModel
from hrm_jax.training.loop import RunResult, run
from hrm_jax.training.workdir import WorkdirError
from hrm_jax.viz.curves import plot_run
from hrm_jax.viz.sudoku_boards import trace_gif, trace_text

log = logging.getLogger("hrm_jax")


def _initial_variables(config: Any) -> Mapping[str, Any] | None:
    """Weights that `init_from` names: a workdir, or a file with the reference's names."""
    if not config.init_from:
        return None
    path = pathlib.Path(config.init_from)
    if not path.exists():
        raise WorkdirError(f"config.init_from: {path}: no such file or workdir")
    if (path / "config.json").exists():
        return load(path).variables
    sizes = dict(vars(config.model))
    for name in ("seq_len", "vocab_size", "num_puzzle_identifiers"):
        if sizes[name] == getattr(type(config.model)(), name):
            del sizes[name]
    load_weights = load_trm if isinstance(config.model, TRMConfig) else load_hrm
    return load_weights(
        path,
        sizes,
        seq_len=config.model.seq_len or None,
        reset_puzzle_table=config.reset_puzzle_table,
    ).variables


def _describe(config: RunConfig, task: Any) -> None:
    """The first lines of output: what is about to happen."""
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves((shapes.params, shapes.tables)))
    device = jax.devices()[0]
    log.info("Preset: %s.", config.preset or "none")
    log.info(
        "%s parameters; %s steps of %d puzzles on %d × %s.",
        f"{count:,}",
        f"{config.steps:,}",
        config.batch_size,
        jax.device_count(),
        device.device_kind,
    )
    if config.expect:
        log.info("To expect: %s", config.expect)
    sizes = task.identity.counts
    log.info("Data: %s.", ", ".join(f"{v:,} {k.replace('_', ' ')}" for k, v in sizes.items()))


def train(
    config: Mapping[str, Any], workdir: str | os.PathLike[str], *, progress: bool = True
) -> RunResult:
    """Trains what `config` describes in `workdir`, or goes on with it, and draws its plots.

    Args:
        config: Nested mapping, for instance what a file in `configs/` returns.
        workdir: Folder for everything the run leaves.
        progress: Whether to show a progress bar.

    Returns:
        How the run ended.

    Raises:
        ConfigError, DataError, WorkdirError, CheckpointError, NonFiniteError: See
            `hrm_jax.training.loop.run`.
    """
    parsed = tasks.parse(config)
    folder = pathlib.Path(workdir)
    # Names of half-written checkpoints have a suffix.
    resumes = any(x.name.isdigit() for x in (folder / "checkpoints").glob("*"))
    variables = None if resumes else _initial_variables(parsed)
    task = tasks.build(parsed, folder / "data", variables)
    _describe(parsed, task)
    result = run(task, folder, progress=progress)
    plot_run(folder / "metrics.jsonl", folder / "plots")
    return result


def _show_one(task: Any, result: RunResult, folder: pathlib.Path) -> tuple[str, str]:
    """A Sudoku and its board after each ACT step as text; the latter is drawn as a GIF too."""
    config = task.config
    model = PuzzleModel(
        config.model, result.state.variables(), max_steps=config.eval_max_steps or None
    )
    # All of the test set, as in the evaluation before: that program is compiled already.
    tokens = task.test.inputs
    solutions = model.solve_tokens(tokens, trace=True, slots=config.eval_slots)
    # The puzzle that took longest among those solved shows most.
    best = max(range(len(solutions)), key=lambda i: (bool(solutions[i].valid), solutions[i].steps))
    question, solution = to_text(tokens[best].astype(np.int8) - 1), solutions[best]
    size = round(len(question) ** 0.5)
    trace_gif(folder / "plots" / "reasoning.gif", question, solution.trace_text, size)
    return question, trace_text(question, solution.trace_text, size)


def report(result: RunResult, workdir: str | os.PathLike[str]) -> str:
    """What to tell the user at the end of a run: figures, a puzzle being solved, what to do next.

    Args:
        result: From `train`.
        workdir: The run's folder.
    """
    folder = pathlib.Path(workdir)
    figures = result.figures
    task: Any = result.task
    config = task.config
    by_step = ", ".join(f"{x:.1%}" for x in figures.get("eval/exact_accuracy_by_step", []))
    lines = [
        f"Held-out puzzles solved: {figures['eval/exact_accuracy']:.1%} of "
        f"{figures['eval/puzzles']:,} (cells right: {figures['eval/accuracy']:.1%}; "
        f"mean ACT steps: {figures['eval/steps']:.2f}).",
    ]
    for name in ("valid", "legal", "optimal"):
        if f"eval/{name}" in figures:
            lines.append(f"Held-out answers that are {name}: {figures[f'eval/{name}']:.1%}.")
    lines += [f"Solved after 1, 2, … ACT steps: {by_step}.", ""]
    commands = [
        f"  python launch/evaluate.py --workdir={folder} --halting=fixed",
        f"  python launch/export.py --workdir={folder} --format=safetensors "
        f"--output={folder}/model.safetensors",
    ]
    if config.task == "sudoku":
        question, board = _show_one(task, result, folder)
        lines += ["One of them, the board after each ACT step:", board, ""]
        commands.insert(0, f'  python launch/solve.py --workdir={folder} --trace "{question}"')
    lines += [
        f"Files: {folder}/metrics.jsonl, plots/, checkpoints/, best/, config.json",
        "Next:",
        *commands,
    ]
    return "\n".join(lines)

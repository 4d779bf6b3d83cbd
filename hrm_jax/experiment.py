"""One experiment from its configuration to its figures: what `launch/train.py` runs."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from hrm_jax import tasks
from hrm_jax.engine.language import LanguageModel
from hrm_jax.interop.hugging_face import from_hugging_face
from hrm_jax.interop.torch import load_hrm, load_trm
from hrm_jax.models.planner_executor import PlannerExecutorConfig
from hrm_jax.models.trm import TRMConfig
from hrm_jax.puzzles.drawing.contact_sheet import contact_sheet
from hrm_jax.puzzles.drawing.traces import trace_gif, trace_text
from hrm_jax.puzzles.painters import PAINTERS
from hrm_jax.puzzles.sudoku.board import to_text as sudoku_text
from hrm_jax.tasks.base import RunConfig
from hrm_jax.tasks.language.report import language_report
from hrm_jax.tasks.language.task import LanguageConfig, LanguageTask
from hrm_jax.tasks.puzzles.evaluation import solve_puzzles
from hrm_jax.trained.load import load
from hrm_jax.training.loop import RunResult, run
from hrm_jax.training.processes import first_before_others, is_first
from hrm_jax.training.sharding import for_evaluation
from hrm_jax.training.workdir import WorkdirError, read_config
from hrm_jax.viz.curves import plot_run

log = logging.getLogger("hrm_jax")

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


def _language_from(path: pathlib.Path) -> tuple[Any, Mapping[str, Any]]:
    """Sizes and weights of a language model: a workdir, or a folder of Hugging Face's."""
    if not path.exists():
        raise WorkdirError(f"config.init_from: {path}: no such folder or workdir")
    if not (path / "checkpoints").exists():
        sizes, params = from_hugging_face(path)
        return sizes, {"params": params}
    model = load(path)
    if not isinstance(model, LanguageModel):
        raise WorkdirError(f"config.init_from: {path}: the workdir of a run of puzzles")
    return model.config, model.variables


def _with_sizes(config: LanguageConfig, sizes: Any) -> LanguageConfig:
    """The config with the sizes of the weights it starts from, but for what is free to choose."""
    free = ["dropout", "dtype", "remat"]
    lengths = ["max_length"]
    if isinstance(sizes, PlannerExecutorConfig):
        lengths.append("planner_length")
    if sizes.positions != "learned":  # then no weight depends on them
        free += [x for x in lengths if getattr(config.model, x, 0) > getattr(sizes, x)]
    kept = {name: getattr(config.model, name) for name in free}
    return dataclasses.replace(config, model=dataclasses.replace(sizes, **kept))


def _describe(config: RunConfig, task: Any) -> None:
    """The first lines of output: what is about to happen."""
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves((shapes.params, shapes.tables)))
    device = jax.devices()[0]
    log.info("Preset: %s.", config.preset or "none")
    log.info(
        "%s parameters; %s steps of %d %s on %s%d × %s.",
        f"{count:,}",
        f"{config.steps:,}",
        config.batch_size,
        {"text": "windows", "pairs": "pairs"}.get(config.task, "puzzles"),
        f"{jax.process_count()} processes with " if jax.process_count() > 1 else "",
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
    parsed: Any = tasks.parse(config)
    folder = pathlib.Path(workdir)
    # Names of half-written checkpoints have a suffix.
    resumes = any(x.name.isdigit() for x in (folder / "checkpoints").glob("*"))
    variables = None
    if parsed.init_from and isinstance(parsed, LanguageConfig):
        if resumes:
            sizes = tasks.parse(read_config(folder)).model  # type: ignore[attr-defined]
        else:
            sizes, variables = _language_from(pathlib.Path(parsed.init_from))
        parsed = _with_sizes(parsed, sizes)
    elif not resumes:
        variables = _initial_variables(parsed)
    with first_before_others("data"):  # which it may have to make
        task = tasks.build(parsed, folder / "data", variables)
    _describe(parsed, task)
    result = run(task, folder, progress=progress)
    if is_first():
        plot_run(folder / "metrics.jsonl", folder / "plots")
    return result


def _show_one(kind: str, question: Array, boards: Array, folder: pathlib.Path) -> str:
    """A puzzle [S] and the board after each ACT step [K, S] as text; a Sudoku is animated too."""
    painter = PAINTERS[kind]
    if kind == "domino":
        return painter.text(question, boards[-1])
    if kind == "sudoku":
        trace_gif(folder / "plots" / "reasoning.gif", painter, question, boards)
    return trace_text(painter, question, boards)


def _show(task: Any, result: RunResult, folder: pathlib.Path) -> tuple[str, str]:
    """Draws the contact sheet; returns one of the puzzles, and its solution as text."""
    config, puzzles = task.config, task.evaluated()
    inputs, labels = puzzles.inputs[:_SHOWN], puzzles.labels[:_SHOWN]
    solved = solve_puzzles(  # as in the evaluation before, so that the program is compiled already
        config.model,
        result.state.variables(),
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
        PAINTERS[config.task],
        inputs[known],
        labels[known],
        solved.predictions[known],
        solved.steps[known],
        good[known],
        {name: verdict[known] for name, verdict in verdicts.items()},
    )
    if config.task == "arc":
        return "", ""
    # The puzzle that took longest among those solved shows most.
    best = int(np.lexsort((solved.steps, good))[-1])
    boards = solved.trace[best, : solved.steps[best]]
    question = sudoku_text(inputs[best].astype(np.int8) - 1) if config.task == "sudoku" else ""
    return question, _show_one(config.task, inputs[best], boards, folder)


def report(result: RunResult, workdir: str | os.PathLike[str]) -> str:
    """What to tell the user at the end of a run: figures, examples, what to do next.

    Of puzzles it draws `plots/contact_sheet.png`, and of a Sudoku `plots/reasoning.gif`. All
    processes of a run call it; those that are not the first have nothing to tell.

    Args:
        result: From `train`.
        workdir: The run's folder.
    """
    folder = pathlib.Path(workdir)
    figures = result.figures
    task: Any = result.task
    result = dataclasses.replace(result, state=for_evaluation(result.state))
    if not is_first():
        return ""
    if isinstance(task, LanguageTask):
        return language_report(task, result.state, figures, folder)
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
    question, shown = _show(task, result, folder)
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

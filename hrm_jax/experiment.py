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

from hrm_jax import tasks
from hrm_jax.engine.language import LanguageModel
from hrm_jax.interop.hugging_face import from_hugging_face
from hrm_jax.interop.torch import load_hrm, load_trm
from hrm_jax.models.planner_executor import PlannerExecutorConfig
from hrm_jax.models.trm import TRMConfig
from hrm_jax.tasks.base import RunConfig
from hrm_jax.tasks.language.report import language_report
from hrm_jax.tasks.language.task import LanguageConfig, LanguageTask
from hrm_jax.tasks.puzzles import report as puzzles
from hrm_jax.trained.load import load
from hrm_jax.training.loop import RunResult, run
from hrm_jax.training.processes import first_before_others, is_first
from hrm_jax.training.sharding import for_evaluation
from hrm_jax.training.workdir import WorkdirError, read_config
from hrm_jax.viz.curves import plot_run

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
    return puzzles.report(task, result.state, figures, folder)

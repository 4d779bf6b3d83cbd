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
from hrm_jax.compilation import divide_cpu
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError
from hrm_jax.interop.weights import read_weights
from hrm_jax.paths import path_of
from hrm_jax.tasks.base import RunConfig, Task
from hrm_jax.trained.load import read_base
from hrm_jax.training.checkpoints import load_weights
from hrm_jax.training.loop import RunResult, run
from hrm_jax.training.processes import first_before_others, is_first
from hrm_jax.training.sharding import for_evaluation
from hrm_jax.training.workdir import WorkdirError, locked, read_config
from hrm_jax.viz.curves import plot_run

log = logging.getLogger("hrm_jax")


def _weights_to_start_from(path: pathlib.Path, config: Any) -> tuple[Any, Mapping[str, Any]]:
    if not path.exists():
        raise WorkdirError(f"config.init_from: {path}: no such file, folder or workdir")
    if not (path / "checkpoints").is_dir():
        return read_weights(path, config)
    stored: Any = tasks.parse(read_config(path))
    if refused := config.refuses(stored):
        raise ConfigError(f"config.init_from: {path}: {refused}")
    return stored.model, load_weights(path)[0]


def _describe(task: Task) -> None:
    """The first lines of output: what is about to happen."""
    config: RunConfig = task.config
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves((shapes.params, shapes.tables)))
    device = jax.devices()[0]
    log.info("Preset: %s.", config.preset or "none")
    log.info(
        "%s parameters; %s steps of %d %s on %s%d × %s.",
        f"{count:,}",
        f"{config.steps:,}",
        config.batch_size,
        task.unit,
        f"{jax.process_count()} processes with " if jax.process_count() > 1 else "",
        jax.device_count(),
        device.device_kind,
    )
    if config.expect:
        log.info("To expect: %s", config.expect)
    sizes = task.identity.counts
    log.info("Data: %s.", ", ".join(f"{v:,} {k.replace('_', ' ')}" for k, v in sizes.items()))


def train(
    config: Mapping[str, Any],
    workdir: str | os.PathLike[str],
    *,
    progress: bool = True,
    base: LanguageModel | None = None,
) -> RunResult:
    """Trains what `config` describes in `workdir`, or goes on with it, and draws its plots. `base`
    is the model that it names, if it has been read already. Raises what
    `hrm_jax.training.loop.run` raises, and `DataError`."""
    parsed: Any = tasks.parse(config)
    divide_cpu(parsed.mesh.cpu_devices)
    folder = path_of(workdir)
    with locked(folder):
        # Names of half-written checkpoints have a suffix.
        resumes = any(x.name.isdigit() for x in (folder / "checkpoints").glob("*"))
        given: dict[str, Any] = {}
        if parsed.base:
            given["base"] = base or read_base(parsed.base)
        if parsed.init_from:
            if resumes:
                sizes = tasks.parse(read_config(folder)).model  # type: ignore[attr-defined]
            else:
                sizes, given["variables"] = _weights_to_start_from(
                    pathlib.Path(parsed.init_from), parsed
                )
            parsed = tasks.kind(parsed).with_sizes(parsed, sizes)
        with first_before_others("data"):  # which it may have to make
            task = tasks.build(parsed, folder / "data", **given)
        _describe(task)
        result = run(task, folder, progress=progress)
        if is_first():
            plot_run(folder / "metrics.jsonl", folder / "plots")
        return result


def report(result: RunResult, workdir: str | os.PathLike[str]) -> str:
    """What to tell the user at the end of a run, in its first process; all of them call it."""
    state = for_evaluation(result.state)
    if not is_first():
        return ""
    return result.task.report(state, result.figures, path_of(workdir))

"""Trains branches one after the other and keeps what comes of each, with the training before."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from hrm_jax import experiment, tasks
from hrm_jax.data.text.branches import branch_folder, packaged_branches
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import to_mapping
from hrm_jax.files import read_json, write_json
from hrm_jax.interop.weights import write_weights
from hrm_jax.paths import path_of
from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.language.adapted import AdaptedModel
from hrm_jax.tasks.language.instruct_config import InstructConfig
from hrm_jax.trained.pretrained import PRETRAINED, pretrained_folder
from hrm_jax.training.loop import RunResult
from hrm_jax.training.workdir import WorkdirError

log = logging.getLogger("hrm_jax")

CONFIG, METRICS = "training_config.json", "training_metrics.json"


class InterruptedTraining(Exception):
    """A signal, whose number is its argument, has ended a training whose state is saved."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """What has come of a branch."""

    branch: str
    folder: pathlib.Path  # `current/`
    metrics: Mapping[str, Any]  # as in `training_metrics.json`
    samples: tuple[str, ...] = ()  # lines with answers to held-out instructions
    new: bool = True  # whether it has been trained now


def train_branch(
    config: Mapping[str, Any],
    output: str | os.PathLike[str],
    logs: str | os.PathLike[str],
    *,
    base: LanguageModel | None = None,
    resume: bool = False,
    merged: bool = False,
    samples: bool = False,
    progress: bool = True,
) -> Trained:
    """Trains the branch of a configuration, and writes into `output`

        current/   the adapter as peft has it (or the whole model as transformers has it), its
                   tokenizer, training_config.json and training_metrics.json, which says what was
                   measured; with `merged`, the whole model with its adapter too, in merged/
        previous/  what was in current/ before
        run/       the workdir of the training

    and into `logs` what was said meanwhile, `training_<branch>_<time>.log`. `base` is the model of
    the configuration, if it has been read already. With `resume` a training that was interrupted
    goes on, and one that is finished, with the same configuration, is left as it is.
    With `samples`, held-out instructions are answered by the model that has been trained now.

    Raises:
        DataError: The branch is missing, or its records are not as expected.
        WorkdirError: A training there is unfinished, and `resume` is not set.
        InterruptedTraining: A signal came; the training can go on.
    """
    parsed: Any = tasks.parse(config)
    output, branch = path_of(output), parsed.data.branch
    root = pathlib.Path(parsed.data.root) if parsed.data.root else packaged_branches()
    data = branch_folder(root, branch)
    settings = _settings(parsed, data, output, path_of(logs))
    current, run = output / "current", output / "run"
    if resume and (done := _finished(current, settings)) is not None:
        return Trained(branch, current, done, new=False)
    if not resume:
        _clear(run, current)
    start = time.perf_counter()
    with _logged(path_of(logs), branch):
        log.info("Branch %s: %s.", branch, data)
        result = experiment.train(config, run, progress=progress, base=base)
        if result.reason == "interrupted":
            raise InterruptedTraining(result.signal)
        model: AdaptedModel = result.task.adapted(result.state, branch)  # type: ignore[attr-defined]
        metrics = _metrics(parsed, result, time.perf_counter() - start)
        with _rotated(output) as folder:
            write_weights(model, folder, "hugging_face" if model.lora is None else "peft")
            if merged and model.lora is not None:
                write_weights(model, folder / "merged", "hugging_face")
            created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            write_json(folder / CONFIG, {**settings, "created_at": created})
            write_json(folder / METRICS, {**metrics, "trained_at": created})
        for name, value in metrics.items():
            log.info("%s: %s", name, value)
    lines = tuple(result.task.samples(model)) if samples else ()  # type: ignore[attr-defined]
    return Trained(branch, current, metrics, lines)


def base_name(model: str) -> str:
    """The folder of a configuration's model, for peft."""
    return str(pretrained_folder(model) if model in PRETRAINED else path_of(model).absolute())


def _settings(
    config: InstructConfig, data: pathlib.Path, output: pathlib.Path, logs: pathlib.Path
) -> dict[str, Any]:
    """What `training_config.json` says, without the time."""
    adapters = None
    if config.adapt == "lora":
        values = to_mapping(config.lora)
        adapters = {f"lora_{k}" if k in ("alpha", "dropout") else k: v for k, v in values.items()}
    return {
        "branch": config.data.branch,
        "model": config.model,
        "data_path": str(data),
        "output_dir": str(output),
        "logs_dir": str(logs),
        "training_params": {
            "epochs": config.epochs,
            "batch_size": config.batch_size,
            "learning_rate": config.optimizer.learning_rate,
            "max_seq_length": config.data.length,
            "held_out": config.data.held_out,
            "end_weight": config.end_weight,
            "seed": config.seed,
        },
        "use_lora": config.adapt == "lora",
        "lora_config": adapters,
    }


def _metrics(config: InstructConfig, result: RunResult, seconds: float) -> dict[str, Any]:
    counts = result.task.identity.counts
    figures: Figures = result.figures
    return {
        "branch": config.data.branch,
        "model": config.model,
        "use_lora": config.adapt == "lora",
        **{name: value for name, value in figures.items() if not isinstance(value, list)},
        "steps": result.step,
        "epochs": config.epochs,
        "examples_trained": counts["training_records"],
        "examples_held_out": counts["held_out_records"],
        "seconds": round(seconds, 1),
    }


def _finished(current: pathlib.Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures of a finished training with these settings."""
    if not (current / CONFIG).is_file() or not (current / METRICS).is_file():
        return None
    before = read_json(current / CONFIG)
    before.pop("created_at", None)
    same = {**settings, "lora_config": _as_json(settings["lora_config"])}
    return read_json(current / METRICS) if before == same else None


def _as_json(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _clear(run: pathlib.Path, current: pathlib.Path) -> None:
    """Makes room for a new training. The workdir of one whose outcome is kept may go."""
    if not run.exists():
        return
    saved = any(x.name.isdigit() for x in (run / "checkpoints").glob("*"))
    kept = current / METRICS
    if saved and not (kept.is_file() and kept.stat().st_mtime >= run.stat().st_mtime):
        raise WorkdirError(
            f"{run}: holds an unfinished training; --resume goes on with it, and removing the "
            "folder begins anew"
        )
    shutil.rmtree(run)


@contextlib.contextmanager
def _rotated(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder that becomes `current/` when it is complete; that becomes `previous/`."""
    current, previous = output / "current", output / "previous"
    base = pathlib.Path(tempfile.mkdtemp(prefix=".new.", dir=output))
    try:
        new, old = base / "new", base / "old"
        new.mkdir()
        yield new
        if current.is_dir():
            if previous.is_dir():
                previous.rename(old)
            current.rename(previous)
        new.rename(current)
    finally:
        shutil.rmtree(base, ignore_errors=True)


@contextlib.contextmanager
def _logged(folder: pathlib.Path, branch: str) -> Iterator[None]:
    """Writes what is logged into a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    now = time.strftime("%Y%m%d_%H%M%S")
    handler = logging.FileHandler(folder / f"training_{branch}_{now}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    except Exception as error:
        log.error("%s: %s", type(error).__name__, error)
        raise
    finally:
        log.removeHandler(handler)
        handler.close()

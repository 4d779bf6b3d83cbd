"""Where a run's figures go: `metrics.jsonl` always, TensorBoard and W&B if asked."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np

from hrm_jax.data.errors import reading
from hrm_jax.files import atomic_path, read_json, write_json, write_text, writing
from hrm_jax.paths import path_of
from hrm_jax.tasks.base import Metrics
from hrm_jax.training.processes import is_first

log = logging.getLogger("hrm_jax")


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Lines of a `metrics.jsonl`, without those that a crash or a bad disk has spoilt."""
    return _read(path_of(path))[0]


def _read(path: pathlib.Path) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The lines of figures, and those that are none."""
    lines, bad = [], []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            value = json.loads(line.decode())
            if type(value["step"]) is not int:
                raise TypeError("not as `MetricWriter` writes it")
            lines.append(value)
        except (ValueError, TypeError, LookupError, RecursionError):
            bad.append(line)
    return lines, bad


def _put_aside(path: pathlib.Path, bad: list[bytes]) -> None:
    """Adds spoilt lines of a file to the file beside it for such."""
    beside = path.with_name(f"{path.name}.damaged")
    log.warning("%s: %d damaged lines are left out, and kept in %s.", path, len(bad), beside.name)
    before = beside.read_bytes() if beside.exists() else b""
    with atomic_path(beside) as temporary:
        temporary.write_bytes(before + b"".join(line + b"\n" for line in bad))


def _wandb_id(folder: pathlib.Path) -> str:
    """W&B's name for the run in a workdir: drawn once, kept in `wandb.json`. A workdir that has
    been moved keeps it; a copy, which knows the place of the first, gets one of its own."""
    path, here = folder / "wandb.json", str(folder.resolve())
    stored = {"id": secrets.token_hex(8), "workdir": here}
    if path.exists():
        with reading(path, "the W&B run's id; without it the run goes on under a new one"):
            stored = read_json(path)
            first = pathlib.Path(stored["workdir"])
            if str(first) != here and (first / path.name).exists():
                other = read_json(first / path.name)
                stored = {"id": secrets.token_hex(8)} if other["id"] == stored["id"] else stored
            stored = {"id": str(stored["id"]), "workdir": here}
    elif (folder / "wandb").is_dir():
        stored["id"] = folder.resolve().name  # as it was before ids were drawn
    write_json(path, stored)
    return stored["id"]


class Meter:
    """Gathers what steps report, from `step` on, until it is logged."""

    def __init__(self, step: int) -> None:
        self.reset(step)

    def reset(self, step: int) -> None:
        self.step = step
        self.reports: list[Metrics] = []
        self._start = time.perf_counter()
        self._spent = {"waiting": 0.0, "paused": 0.0}

    @contextlib.contextmanager
    def clock(self, what: Literal["waiting", "paused"]) -> Iterator[None]:
        """Times waiting for data, when the devices may be idle, or pauses, which do not count."""
        start = time.perf_counter()
        yield
        self._spent[what] += time.perf_counter() - start

    def read(self, step: int) -> dict[str, float]:
        """Averages since the last time as `train/…`, of what has a count, and how fast it went."""
        seconds = time.perf_counter() - self._start - self._spent["paused"]
        totals: dict[str, Any] = {}
        for report in jax.device_get(self.reports):
            for name, both in report.items():
                totals[name] = np.asarray(both, np.float64) + totals.get(name, 0)
        figures = {f"train/{k}": float(both[0] / both[1]) for k, both in totals.items() if both[1]}
        figures["train/steps_per_second"] = (step - self.step) / seconds
        figures["train/data_wait"] = self._spent["waiting"] / seconds
        self.reset(step)
        return figures


class MetricWriter:
    """Writes flat figures by step. Only process 0 writes."""

    def __init__(
        self, workdir: str | os.PathLike[str], step: int, *, tensorboard: bool, wandb: str
    ) -> None:
        """Opens the files; lines of steps after `step`, from which the run goes on, are dropped,
        since that part of it is done again; damaged ones go into `metrics.jsonl.damaged`. Raises
        `ImportError` where W&B is asked for and missing, `OSError` where it does not answer."""
        self._file: Any = None
        self._tensorboard: Any = None
        self._wandb: Any = None
        if not is_first():
            return
        self._folder = path_of(workdir)
        self._path = self._folder / "metrics.jsonl"
        lines, bad = _read(self._path)
        if bad:
            _put_aside(self._path, bad)
        write_text(
            self._path, "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step)
        )
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - closed by `close`
        if tensorboard:
            self._open_tensorboard(step)
        if wandb:
            self._open_wandb(wandb)

    def _open_tensorboard(self, step: int) -> None:
        # Not its `SummaryWriter`, whose queue blocks for ever once its thread has met a full disk.
        from tensorboardX.event_file_writer import EventsWriter  # slow import
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        folder = self._folder / "tensorboard"
        folder.mkdir(exist_ok=True)
        with writing(folder):
            self._tensorboard = EventsWriter(str(folder / "events"))
        self._event = lambda name, value, step: Event(
            wall_time=time.time(), step=step, summary=scalar(name, value)
        )
        begins = SessionLog(status=SessionLog.START)  # what was written of later steps is dropped
        self._tensorboard.write_event(
            Event(wall_time=time.time(), step=step + 1, session_log=begins)
        )

    def _open_wandb(self, project: str) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("config.wandb needs: pip install 'hrm_jax[wandb]'") from error
        name = _wandb_id(self._folder)
        try:
            self._wandb = wandb.init(
                project=project, dir=str(self._folder), id=name, resume="allow"
            )
        except Exception as error:  # its errors have a base of their own
            raise OSError(
                f"config.wandb={project!r}: W&B did not take the run ({error}). Set "
                "WANDB_MODE=offline to keep figures in the workdir, for `wandb sync`"
            ) from error

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """Writes one line of figures: numbers, or lists of numbers."""
        if self._file is None:
            return
        with writing(self._path):
            self._file.write(json.dumps({"step": step, **figures}) + "\n")
            self._file.flush()
        numbers = {k: v for k, v in figures.items() if isinstance(v, int | float)}
        if self._tensorboard is not None:
            with writing(self._folder / "tensorboard"):
                for name, value in numbers.items():
                    self._tensorboard.write_event(self._event(name, value, step))
                self._tensorboard.flush()
        if self._wandb is not None:
            try:
                self._wandb.log(numbers, step=step)
            except Exception as error:  # its own process may be gone; the run does not need it
                log.warning("config.wandb: no more figures go to W&B: %s", error)
                self._wandb = None

    def close(self) -> None:
        with contextlib.ExitStack() as closing:
            for sink in (self._file, self._tensorboard):
                if sink is not None:
                    closing.callback(sink.close)
            if self._wandb is not None:
                closing.callback(self._wandb.finish)

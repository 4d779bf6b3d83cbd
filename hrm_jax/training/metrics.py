"""Where a run's figures go: `metrics.jsonl` always, TensorBoard and W&B if asked."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np

from hrm_jax.files import write_text
from hrm_jax.tasks.base import Metrics
from hrm_jax.training.processes import is_first


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Lines of a `metrics.jsonl`; one that was cut off by a crash is left out."""
    path = pathlib.Path(path)
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines


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
        since that part of it is done again. Raises `ImportError` where W&B is asked for and
        missing."""
        self._file = self._tensorboard = self._wandb = None
        if not is_first():
            return
        folder = pathlib.Path(workdir)
        path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by `close`
        if tensorboard:
            from tensorboardX import SummaryWriter  # slow import

            self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        if wandb:
            try:
                import wandb as client
            except ImportError as error:
                raise ImportError("config.wandb needs: pip install 'hrm_jax[wandb]'") from error
            self._wandb = client.init(
                project=wandb, dir=str(folder), id=folder.resolve().name, resume="allow"
            )

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """Writes one line of figures: numbers, or lists of numbers."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._file.flush()
        numbers = {k: v for k, v in figures.items() if isinstance(v, int | float)}
        if self._tensorboard is not None:
            for name, value in numbers.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        for sink in (self._file, self._tensorboard):
            if sink is not None:
                sink.close()
        if self._wandb is not None:
            self._wandb.finish()

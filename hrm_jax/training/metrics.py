"""Where a run's figures go: `metrics.jsonl` always, TensorBoard and W&B if asked."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from hrm_jax.files import write_text
from hrm_jax.tasks.base import Metrics
from hrm_jax.training.processes import is_first


def averages(metrics: Sequence[Metrics], prefix: str) -> dict[str, float]:
    """Averages of (sum, count) pairs over several steps; names with a count of 0 are left out."""
    totals: dict[str, list[float]] = {}
    for step in jax.device_get(list(metrics)):
        for name, (total, count) in step.items():
            both = totals.setdefault(name, [0.0, 0.0])
            both[0] += float(total)
            both[1] += float(count)
    return {prefix + k: total / count for k, (total, count) in totals.items() if count}


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Lines of a `metrics.jsonl`; one that was cut off by a crash is left out."""
    path = pathlib.Path(path)
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


class Meter:
    """Gathers what steps report until it is logged; the clock leaves out pauses."""

    def __init__(self, step: int) -> None:
        """Args: step: Where the run stands."""
        self.step = step
        self._steps: list[Metrics] = []
        self._start, self._waited = time.perf_counter(), 0.0

    @property
    def last(self) -> Metrics | None:
        """Of the newest step that was not logged yet."""
        return self._steps[-1] if self._steps else None

    def add(self, metrics: Metrics) -> None:
        """Takes what one step reports."""
        self._steps.append(metrics)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """For data, in which time the devices may be idle."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While something else than training is done."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def read(self, step: int) -> dict[str, float]:
        """Averages since the last time as `train/…`, and how fast it went; starts anew."""
        seconds = time.perf_counter() - self._start
        figures = averages(self._steps, "train/")
        figures["train/steps_per_second"] = (step - self.step) / seconds
        figures["train/data_wait"] = self._waited / seconds
        self.step, self._steps = step, []
        self._start, self._waited = time.perf_counter(), 0.0
        return figures


class MetricWriter:
    """Writes flat figures by step. Only process 0 writes."""

    def __init__(
        self, workdir: str | os.PathLike[str], step: int, *, tensorboard: bool, wandb: str
    ) -> None:
        """Opens the files; lines of steps after `step`, from which the run goes on, are dropped,
        since that part of it is done again.

        Raises:
            ImportError: W&B is asked for and not installed.
        """
        self._file = None
        self._tensorboard = None
        self._wandb = None
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
        """Flushes and closes everything."""
        for sink in (self._file, self._tensorboard):
            if sink is not None:
                sink.close()
        if self._wandb is not None:
            self._wandb.finish()

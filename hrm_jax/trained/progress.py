"""How far a run has come, from what it has written down."""

from __future__ import annotations

import dataclasses
import math
import os

from hrm_jax import tasks
from hrm_jax.fields import unknown_field
from hrm_jax.paths import path_of
from hrm_jax.training.metrics import read_metrics
from hrm_jax.training.workdir import WorkdirError, read_config

_FLAT = 0.002  # of its size, by which a figure has to change to be said to


@dataclasses.dataclass(frozen=True)
class Progress:
    """Evaluations of a run so far.

    Attributes:
        metric: The figure that is followed.
        evaluations: Steps, and its value there.
        step, steps: That the run has come to, and goes to.
        seconds_left: Until then, by its last speed; None where it is not known.
    """

    metric: str
    evaluations: tuple[tuple[int, float], ...]
    step: int
    steps: int
    seconds_left: float | None

    @property
    def done(self) -> bool:
        return self.step >= self.steps

    def lines(self) -> list[str]:
        """A table: each value, its change from the first and from the one before, and a mark."""
        lines = [f"{'step':>9} {self.metric:>28} {'from the first':>15} {'from the last':>15}"]
        before = first = None
        for step, value in self.evaluations:
            first = value if first is None else first
            before = value if before is None else before
            mark = _mark(before, value)
            changes = f"{_change(first, value):>15} {_change(before, value):>15}"
            lines.append(f"{step:>9,} {value:>28.6g} {changes} {mark}")
            before = value
        if not self.evaluations:
            lines.append("no evaluation yet")
        left = "" if self.seconds_left is None else f", about {_told(self.seconds_left)} left"
        state = "done" if self.done else f"step {self.step:,} of {self.steps:,}{left}"
        return [*lines, f"{state}."]


def progress(workdir: str | os.PathLike[str], metric: str = "") -> Progress:
    """Reads a run's progress; by default of the figure by which its best weights are kept, or that
    is shown beside its bar, or else the first. `WorkdirError` where there is no run, or it has not
    measured such a figure."""
    folder = path_of(workdir)
    config = tasks.parse(read_config(folder))
    records = read_metrics(folder / "metrics.jsonl")
    known: dict[str, dict[int, float]] = {}
    for record in records:
        for name, value in record.items():
            if name.startswith("eval/") and isinstance(value, int | float):
                known.setdefault(name, {})[record["step"]] = float(value)
    shown = [x for x in tasks.kind(config).shown.values() if x.startswith("eval/")]
    wanted = [x for x in (config.best_metric, *shown, *known) if x]
    chosen = metric or next((x for x in wanted if x in known), wanted[0] if wanted else "eval/loss")
    if metric and known and metric not in known:
        raise WorkdirError(f"{folder}: {unknown_field(metric, known)}")
    step = max((record["step"] for record in records), default=0)
    speeds = [x["train/steps_per_second"] for x in records if x.get("train/steps_per_second")]
    left = (config.steps - step) / speeds[-1] if speeds and config.steps > step else None
    values = tuple(sorted(known.get(chosen, {}).items()))
    return Progress(chosen, values, step, config.steps, left)


def _change(before: float, now: float) -> str:
    if before == now:
        return "="
    relative = f" ({(now - before) / abs(before):+.1%})" if before else ""
    return f"{now - before:+.4g}{relative}"


def _mark(before: float, now: float) -> str:
    if not (math.isfinite(before) and math.isfinite(now)):
        return "?"
    if abs(now - before) <= _FLAT * abs(before):
        return "→"
    return "↑" if now > before else "↓"


def _told(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"

"""What a run of a scheduler has come to: its evaluations, and what it does when."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from hrm_jax import tasks
from hrm_jax.files import atomic_path
from hrm_jax.paths import path_of
from hrm_jax.tasks.infinito.environment import MODES, OBSERVATIONS
from hrm_jax.tasks.infinito.policies import LEARNT, Row
from hrm_jax.tasks.infinito.scheduler import SchedulerConfig, SchedulerTask
from hrm_jax.trained.load import read_base
from hrm_jax.training.checkpoints import load_weights
from hrm_jax.training.metrics import read_metrics
from hrm_jax.training.workdir import WorkdirError, read_config

_HIGH, _LOW = 3.0, 1.0  # standard deviation of the means of evaluations: the guide's limits
_PARTS = 5  # of an episode, and of what Φ was, in the tables of actions
_COLOURS = ("#0072b2", "#d55e00", "#009e73")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Returns of the unseen orders [E] at a step of training."""

    step: int
    returns: npt.NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.returns.mean())

    @property
    def deviation(self) -> float:
        return float(self.returns.std())


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Evaluations of a scheduler's run, and what its policy does on unseen orders.

    Attributes:
        row: Actions and what they led to; None where none was played.
    """

    evaluations: tuple[Evaluation, ...]
    row: Row | None = None

    @property
    def best(self) -> Evaluation:
        return max(self.evaluations, key=lambda x: x.mean)

    def lines(self) -> list[str]:
        """Tables, and what they say."""
        found = [
            f"{'step':>9} {'mean':>9} {'deviation':>10} {'least':>9} {'most':>9} {'change':>9}"
        ]
        before = self.evaluations[0].mean
        for one in self.evaluations:
            low, high = float(one.returns.min()), float(one.returns.max())
            found.append(
                f"{one.step:>9,} {one.mean:>9.3f} {one.deviation:>10.3f} {low:>9.3f} {high:>9.3f} "
                f"{one.mean - before:>+9.3f}"
            )
            before = one.mean
        return [*found, *self._verdicts(), *([] if self.row is None else _actions(self.row))]

    def _verdicts(self) -> list[str]:
        means = np.array([x.mean for x in self.evaluations])
        steadiest = min(self.evaluations, key=lambda x: x.deviation)
        widest = max(self.evaluations, key=lambda x: x.deviation)
        found = [f"Best: {self.best.mean:.3f}, at step {self.best.step:,}."]
        if self.best is not self.evaluations[-1]:
            found.append(
                "It is not the last: what came after it was worse; `best/` has its weights."
            )
        found.append(
            f"Orders differ least at step {steadiest.step:,} ({steadiest.deviation:.3f}), most at "
            f"step {widest.step:,} ({widest.deviation:.3f})."
        )
        if len(means) < 2:
            return [*found, "One evaluation: nothing can be said of a trend."]
        half = len(means) // 2
        first, second = means[:half].mean(), means[half:].mean()
        spread = float(means.std())
        kind = "high" if spread > _HIGH else "low" if spread < _LOW else "middling"
        return [
            *found,
            f"First half of the evaluations {first:.3f}, second half {second:.3f} "
            f"({second - first:+.3f}).",
            f"Standard deviation of the means: {spread:.3f}, {kind} (the guide: above {_HIGH:g} "
            f"high, below {_LOW:g} low).",
        ]

    def plot(self, path: pathlib.Path) -> None:
        """Draws returns by evaluation and, where episodes were played, actions and Φ by step."""
        picture = Figure(figsize=(8, 4 if self.row is None else 8), layout="constrained")
        axes = picture.subplots(1 if self.row is None else 2, 1, squeeze=False)[:, 0]
        steps = [x.step for x in self.evaluations]
        axes[0].errorbar(
            steps,
            [x.mean for x in self.evaluations],
            [x.deviation for x in self.evaluations],
            marker="o",
            capsize=3,
            label="mean and standard deviation of the orders",
        )
        axes[0].set(xlabel="training step", ylabel="return", title="Return on unseen orders")
        axes[0].legend()
        if self.row is not None:
            shares = [np.mean(self.row.actions == i, axis=1) for i in range(len(MODES))]
            ticks = np.arange(len(self.row.actions))
            axes[1].stackplot(ticks, shares, labels=list(MODES), colors=_COLOURS, alpha=0.6)
            axes[1].set(xlabel="step of the episode", ylabel="share of actions", ylim=(0, 1))
            axes[1].legend(loc="lower left")
            other = axes[1].twinx()
            other.plot(ticks, np.mean(self.row.measured.phi[:-1], axis=1), color="black")
            other.set(ylabel="Φ (0 to 10)", ylim=(0, 10), title="What it does, and Φ (line)")
        with atomic_path(path) as temporary:
            picture.savefig(temporary, dpi=120, format="png")


def _actions(row: Row) -> list[str]:
    """Shares of the actions by time, by what Φ was, and by each other observation that varies."""
    phi = np.asarray(row.measured.phi)[:-1]
    ticks = np.broadcast_to(np.arange(len(phi))[:, None], phi.shape)
    found = ["", f"{'actions':>27} " + " ".join(f"{x:>7}" for x in MODES) + f" {'steps':>7}"]
    steps = np.linspace(0, len(phi), _PARTS + 1).round().astype(int)
    found += _shares(row, ticks, steps, "step {:.0f} to {:.0f}", 1.0)
    told = {"Φ": phi} | {x: row.seen[..., i] for i, x in enumerate(OBSERVATIONS) if x != "phi"}
    for name, values in told.items():
        values = np.asarray(values, np.float64).round(2)
        edges = np.unique(np.quantile(values, np.linspace(0, 1, _PARTS + 1)).round(2))
        if len(edges) > 1:
            edges[-1] += 0.01
            found += _shares(row, values, edges, f"{name} {{:.2f}} to {{:.2f}}", 0.01)
    return found


def _shares(
    row: Row, values: npt.NDArray[Any], edges: npt.NDArray[Any], said: str, least: float
) -> list[str]:
    found = []
    for low, high in itertools.pairwise(edges):
        chosen = row.actions[(values >= low) & (values < high)]
        if len(chosen):
            shares = (np.mean(chosen == number) for number in range(len(MODES)))
            told = " ".join(f"{x:>7.0%}" for x in shares)
            found.append(f"{said.format(low, high - least):>27} {told} {len(chosen):>7,}")
    return found


def analyze(workdir: str | os.PathLike[str], orders: int = 4, plot: bool = True) -> Analysis:
    """Analyzes a scheduler's run, plays so many unseen orders with its last policy, and draws
    `plots/analysis.png`.

    Raises:
        WorkdirError: There is no run, it is of something else, or has not been evaluated.
    """
    folder = path_of(workdir)
    config = tasks.parse(read_config(folder))
    if not isinstance(config, SchedulerConfig):
        raise WorkdirError(f"{folder}: a run of {config.task!r}, expected one of a scheduler")
    if orders < 0:
        raise ValueError(f"orders: expected 0 or more, got {orders}")
    returns = {
        record["step"]: np.array(record["eval/returns"], np.float64)
        for record in read_metrics(folder / "metrics.jsonl")
        if record.get("eval/returns")
    }
    if not returns:
        raise WorkdirError(f"{folder}: no evaluation yet; the first is at {config.eval_every}")
    row = None
    if orders:
        task = SchedulerTask(config, folder / "data", base=read_base(config.base))
        row = task.row(LEARNT, task.frozen(jnp.asarray), load_weights(folder)[0], orders)
    found = Analysis(tuple(Evaluation(*x) for x in sorted(returns.items())), row)
    if plot:
        (folder / "plots").mkdir(exist_ok=True)
        found.plot(folder / "plots" / "analysis.png")
    return found

"""Learning curves from the `metrics.jsonl` of a run."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from hrm_jax.files import atomic_path

Curve = tuple[list[int], list[float]]  # steps, values

_BY_STEP = "eval/exact_accuracy_by_step"
_PICTURES = {
    "loss": ("Loss", "loss"),
    "accuracy": ("Accuracy", "share that is right"),
    "return": ("Return", "sum of an episode's rewards"),
}
_BAND = ("eval/return_iqm_low", "eval/return_iqm_high")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
_SMOOTHED_FROM = 200  # curves with so many points are drawn faint, with a running mean on top


def plot_run(
    metrics_path: str | os.PathLike[str], folder: str | os.PathLike[str]
) -> list[pathlib.Path]:
    """Draws the curves of a run as PNG files.

    `loss.png`: all figures named `*loss`; `accuracy.png`: all named `*accuracy`, in percent;
    `return.png`: all named `*return`, with the interval over seeds where there are several;
    `exact_accuracy_by_step.png`: exact accuracy after each ACT step, at the last evaluation.
    A picture whose figures do not occur is not written; those that are, are returned.

    The metrics are one JSON object a line, with `step` and flat names such as `train/loss`;
    `eval/exact_accuracy_by_step` is a list [T]. Lines that are not whole (the last one of a run
    that was killed) are skipped, and so are figures that are no finite numbers. Where a step occurs
    twice, the later line counts.
    """
    records = list(_records(pathlib.Path(metrics_path)))
    curves, pictures = _curves(records), {}
    for name, (title, ylabel) in _PICTURES.items():
        chosen = {figure: curve for figure, curve in curves.items() if figure.endswith(name)}
        if chosen:
            pictures[name], axes = _figure(title, "training step", ylabel)
            _draw(axes, chosen)
            if name == "accuracy":
                _percent_axis(axes)
            if name == "return" and all(figure in curves for figure in _BAND):
                (steps, low), (_, high) = (curves[figure] for figure in _BAND)
                label = "95% interval over seeds"
                axes.fill_between(steps, low, high, alpha=0.2, color="#555555", label=label)
                axes.legend()
    evaluated = [record for record in records if _are_shares(record.get(_BY_STEP))]
    if evaluated:
        step, accuracies = evaluated[-1]["step"], evaluated[-1][_BY_STEP]
        title = f"Exact accuracy against thinking time, training step {step:,}"
        picture, axes = _figure(title, "ACT steps", "puzzles solved exactly")
        pictures["exact_accuracy_by_step"] = picture
        _draw_by_step(axes, accuracies)
    paths = []
    for name, picture in pictures.items():
        paths.append(pathlib.Path(folder) / f"{name}.png")
        with atomic_path(paths[-1]) as temporary:
            picture.savefig(temporary, dpi=120)
    return paths


def _records(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            step = record.get("step") if isinstance(record, dict) else None
            if isinstance(step, int) and 0 <= step < 2**53:
                yield record


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that a picture can show."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < 1e300  # of any size in JSON, and false for NaN


def _are_shares(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_number, value))


def _curves(records: list[dict[str, Any]]) -> dict[str, Curve]:
    """The finite scalar figures by name, in the order of the steps."""
    curves: dict[str, dict[int, float]] = {}
    for record in records:
        for name, value in record.items():
            if _is_number(value):
                curves.setdefault(name, {})[record["step"]] = float(value)
    return {
        name: (sorted(points), [points[step] for step in sorted(points)])
        for name, points in sorted(curves.items())
    }


def _figure(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure, axes


def _draw(axes: Axes, curves: dict[str, Curve]) -> None:
    """Draws curves: one colour for each figure; training thin, evaluation with markers."""
    figures = sorted({name.rpartition("/")[2] for name in curves}, key=lambda f: (len(f), f))
    for name, (steps, values) in curves.items():
        colour = _COLOURS[figures.index(name.rpartition("/")[2]) % len(_COLOURS)]
        if name.startswith("eval/"):
            axes.plot(steps, values, "o--", color=colour, markersize=4, label=name, zorder=3)
        elif len(steps) < _SMOOTHED_FROM:
            axes.plot(steps, values, color=colour, linewidth=1.3, label=name)
        else:
            window = len(steps) // 50
            mean = np.convolve(values, np.ones(window) / window, mode="valid")
            middle = steps[window // 2 : window // 2 + len(mean)]
            axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.25)
            axes.plot(middle, mean, color=colour, linewidth=1.6, label=name)
    axes.set_ylim(bottom=min(0.0, *(value for _, values in curves.values() for value in values)))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")


def _draw_by_step(axes: Axes, accuracies: list[float]) -> None:
    steps = range(1, len(accuracies) + 1)
    axes.plot(steps, accuracies, "o-", color=_COLOURS[0], markersize=4)
    last = (len(accuracies), accuracies[-1])
    axes.annotate(f"{last[1]:.1%}", last, (0, 8), textcoords="offset points", ha="center")
    axes.set_xlim(0.5, len(accuracies) + 0.5)
    _percent_axis(axes)


def _percent_axis(axes: Axes) -> None:
    axes.set_ylim(-0.02, 1.06)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))

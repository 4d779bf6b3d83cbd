"""Learning curves."""

import json

import numpy as np
import pytest
from PIL import Image

from hrm_jax.viz import curves
from hrm_jax.viz.curves import plot_run

ALL = ["loss.png", "accuracy.png", "exact_accuracy_by_step.png"]


def _lines(steps):
    for step in steps:
        record = {"step": step, "train/loss": 3 / (1 + step), "train/exact_accuracy": step / 100}
        if step % 20 == 0:
            record |= {
                "eval/exact_accuracy": step / 200,
                "eval/steps": 3.5,
                "eval/exact_accuracy_by_step": [step / 400, step / 200],
            }
        yield json.dumps(record) + "\n"


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(_lines(range(0, 100, 5))))
    return path


@pytest.fixture
def drawn(monkeypatch):
    """What reaches the drawing functions."""
    calls = {}
    draw, draw_by_step = curves._draw, curves._draw_by_step

    def spy(axes, given):
        calls.update(given)
        draw(axes, given)

    def spy_by_step(axes, accuracies):
        calls["by_step"] = accuracies
        draw_by_step(axes, accuracies)

    monkeypatch.setattr(curves, "_draw", spy)
    monkeypatch.setattr(curves, "_draw_by_step", spy_by_step)
    return calls


def test_three_pictures(metrics, tmp_path):
    folder = tmp_path / "plots"
    written = plot_run(metrics, folder)
    assert [p.name for p in written] == ALL
    assert sorted(p.name for p in folder.iterdir()) == sorted(ALL)
    for path in written:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.size == (960, 540)
            pixels = np.asarray(image.convert("RGB"))
            assert (pixels.std(axis=(0, 1)) > 5).all()


def test_the_curves_are_the_figures(metrics, tmp_path, drawn):
    plot_run(metrics, tmp_path)
    assert drawn.keys() == {
        "train/loss",
        "train/exact_accuracy",
        "eval/exact_accuracy",
        "by_step",
    }
    assert drawn["eval/exact_accuracy"] == ([0, 20, 40, 60, 80], [0, 0.1, 0.2, 0.3, 0.4])
    assert drawn["by_step"] == [0.2, 0.4]  # the last evaluation


def test_torn_lines_are_skipped(metrics, tmp_path, drawn):
    with open(metrics, "a") as file:
        file.write('{"step": 100, "train/loss": 7')
    plot_run(metrics, tmp_path)
    assert drawn["train/loss"][0][-1] == 95
    with open(metrics, "a") as file:  # the run that took over appends to the torn line
        file.writelines(_lines([100, 105]))
    plot_run(metrics, tmp_path)
    assert drawn["train/loss"][0][-2:] == [95, 105]


def test_a_step_done_again_counts_once(metrics, tmp_path, drawn):
    with open(metrics, "a") as file:
        file.write(json.dumps({"step": 90, "train/loss": 7.0}) + "\n")
    plot_run(metrics, tmp_path)
    steps, values = drawn["train/loss"]
    assert steps == list(range(0, 100, 5))
    assert values[steps.index(90)] == 7.0


def test_what_is_not_finite_is_left_out(tmp_path, drawn):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1, "train/loss": NaN}\n{"step": 2, "train/loss": 1.5}\n')
    assert [p.name for p in plot_run(path, tmp_path)] == ["loss.png"]
    assert drawn["train/loss"] == ([2], [1.5])


def test_lines_of_other_kinds_are_left_out(tmp_path, drawn):
    path = tmp_path / "m.jsonl"
    good = {"step": 1, "train/loss": 1.5, "eval/exact_accuracy_by_step": [0.25, 0.5]}
    by_step = ["0.5", {"a": 1}, [1, "x"], [None], [True], [[0.5]], 0.5, [10**400]]
    bad = [json.dumps({"step": 2, "eval/exact_accuracy_by_step": value}) for value in by_step]
    bad += [json.dumps({"step": step, "train/loss": 9.0}) for step in (10**400, -1, 2.5, "3")]
    values = ("true", "1" + "0" * 400, "1" * 5000)
    bad += [f'{{"step": 2, "train/loss": {value}}}' for value in values]
    path.write_text("\n".join([json.dumps(good), *bad, "[" * 100_000, "\0"]))
    assert len(plot_run(path, tmp_path)) == 2
    assert drawn["train/loss"] == ([1], [1.5])
    assert drawn["by_step"] == [0.25, 0.5]


def test_nothing_to_draw(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1, "train/lr": 0.1, "eval/exact_accuracy_by_step": []}\n\n[1]\n')
    assert plot_run(path, tmp_path / "plots") == []
    with pytest.raises(FileNotFoundError):
        plot_run(tmp_path / "none.jsonl", tmp_path)


def test_long_curves_are_smoothed():
    _, axes = curves._figure("", "", "")
    noise = [float(i % 2) for i in range(1000)]
    curves._draw(axes, {"train/loss": (list(range(1000)), noise)})
    raw, mean = (np.asarray(line.get_ydata()) for line in axes.get_lines())
    assert raw.tolist() == noise
    np.testing.assert_allclose(mean, 0.5, atol=0.05)

"""The loop: what it writes, when it stops, and that devices and microbatches change nothing."""

import dataclasses
import errno
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from hrm_jax import tasks
from hrm_jax.compilation import jit
from hrm_jax.fields import ConfigError
from hrm_jax.tasks.puzzles.evaluation import evaluate_puzzles
from hrm_jax.tasks.puzzles.task import PuzzleTask
from hrm_jax.trained.evaluate import evaluate
from hrm_jax.trained.load import load
from hrm_jax.training import loop
from hrm_jax.training.checkpoints import CheckpointError, load_weights
from hrm_jax.training.loop import NonFiniteError
from hrm_jax.training.metrics import read_metrics
from hrm_jax.training.sharding import make_mesh


def _task(config, workdir, kind=PuzzleTask):
    return kind(tasks.parse(config), workdir / "data")


def _steps(workdir, folder="checkpoints"):
    return sorted(int(p.name) for p in (workdir / folder).iterdir() if p.name.isdigit())


def _assert_close(a, b, rtol):
    """Trees of parameters are equal up to `rtol` of the largest entry of each array."""
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        scale = np.abs(np.asarray(y)).max()
        np.testing.assert_allclose(
            x, y, rtol=0, atol=rtol * scale, err_msg=jax.tree_util.keystr(path)
        )


def test_what_a_run_leaves(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"config.json", "identity.json", "metrics.jsonl", "checkpoints", "best"} <= names
    lines = read_metrics(trained / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
    assert all("train/loss" in line for line in lines[:4])
    assert lines[-1]["step"] == 4
    assert lines[-1]["eval/puzzles"] == 8
    assert len(lines[-1]["eval/exact_accuracy_by_step"]) == 3
    assert json.loads((trained / "config.json").read_text())["model"]["vocab_size"] == 6
    assert _steps(trained) == [2, 4]
    assert _steps(trained, "best") == [4]


def test_only_the_last_checkpoints_are_kept(straight):
    assert _steps(straight[0]) == [4, 6, 8]  # keep_checkpoints is 3


def test_the_best_weights_are_kept(tmp_path, tiny, start):
    class Scripted(PuzzleTask):
        def evaluate(self, state):
            return {"eval/exact_accuracy": [0.1, 0.5, 0.4, 0.5][int(state.step) - 1]}

    start(_task(tiny(eval_every=1, checkpoint_every=1), tmp_path, Scripted), tmp_path)
    assert _steps(tmp_path, "best") == [2]
    best, step = load_weights(tmp_path, "best")
    assert step == 2
    same, _ = load_weights(tmp_path, 2)
    jax.tree.map(np.testing.assert_array_equal, best, same)


def test_early_stopping(tmp_path, tiny, start):
    class Scripted(PuzzleTask):
        def evaluate(self, state):
            return {"eval/exact_accuracy": [0.1, 0.5, 0.505, 0.5, 0.9][int(state.step) - 1]}

    rule = {"metric": "eval/exact_accuracy", "patience": 2, "min_delta": 0.01}
    config = tiny(steps=9, eval_every=1, checkpoint_every=50, early_stopping=rule)
    result = start(_task(config, tmp_path, Scripted), tmp_path)
    assert (result.reason, result.step) == ("early_stopping", 4)
    assert _steps(tmp_path) == [4]
    assert _steps(tmp_path, "best") == [3]  # best by value, min_delta or not
    again = start(_task(config, tmp_path, Scripted), tmp_path)
    assert (again.reason, again.step) == ("early_stopping", 4)
    config["early_stopping"]["patience"] = 3  # more patience: the run goes on, and improves
    config["steps"] = 5
    again = start(_task(config, tmp_path, Scripted), tmp_path)
    assert (again.reason, again.step) == ("finished", 5)


def test_an_unknown_figure_is_named(tmp_path, tiny, start):
    with pytest.raises(ConfigError, match=r"eval/exact_acuracy.*eval/exact_accuracy"):
        start(tiny(best_metric="eval/exact_acuracy", eval_every=1), tmp_path)


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_numbers_that_are_not_finite_stop_the_run(name, tmp_path, tiny, start):
    class Poisoned(PuzzleTask):
        def step(self, state, batch):
            bad = state.step == 4
            state, metrics = super().step(state, batch)
            value = jnp.where(bad, jnp.array([jnp.nan, 1.0]), metrics[name])
            return state, {**metrics, name: value}

    with pytest.raises(NonFiniteError, match=rf"step 5: {name} is nan.*checkpoints"):
        start(_task(tiny(steps=9, log_every=50), tmp_path, Poisoned), tmp_path)
    assert _steps(tmp_path) == [2, 4]
    assert load(tmp_path).config.seq_len == 16
    assert start(tiny(steps=6), tmp_path).step == 6


def test_a_learning_rate_that_is_far_too_high_stops_the_run(tmp_path, tiny, start):
    config = tiny(
        steps=30,
        checkpoint_every=1,
        optimizer__name="adamw",
        optimizer__learning_rate=1e38,
        optimizer__weight_decay=1.0,
    )
    with pytest.raises(NonFiniteError, match=r"is (nan|inf)"):
        start(config, tmp_path)


def test_a_full_disk_is_an_error_and_old_checkpoints_load(
    straight, workdir, tiny, start, monkeypatch, assert_same_state
):
    save = ocp.CheckpointManager.save

    def full(self, step, *args, **kwargs):
        if step >= 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(self, step, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", full)
        with pytest.raises(
            CheckpointError, match=r"could not be written.*No space left.*kept there: 2, 4"
        ):
            start(tiny(steps=8), workdir)
    assert load(workdir).config.seq_len == 16
    assert_same_state(start(tiny(steps=8), workdir).state, straight[1].state)


def test_a_disk_that_is_really_full(workdir, tmp_path, tiny, start):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        run = pathlib.Path(shutil.copytree(workdir, small / "run"))
        with pytest.raises((CheckpointError, OSError), match=r"No space left|could not be written"):
            start(tiny(steps=60, checkpoint_every=1, keep_checkpoints=50), run)
        assert load(run).config.seq_len == 16
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_workdir_that_cannot_be_written(tmp_path, tiny):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OSError, match="file"):
        loop.run(_task(tiny(), tmp_path), file / "run", progress=False)


@pytest.fixture
def on_devices(monkeypatch):
    """Makes the loop use only so many devices."""

    def use(number):
        monkeypatch.setattr(
            loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:number])
        )

    return use


def test_four_devices_train_like_one(straight, tmp_path, tiny, start, on_devices):
    assert len(straight[1].state.rows.z_H.sharding.device_set) == 4
    on_devices(1)
    result = start(tiny(steps=8), tmp_path)
    assert len(result.state.rows.z_H.sharding.device_set) == 1
    _assert_close(result.state.params, straight[1].state.params, 1e-4)
    _assert_close(result.state.tables, straight[1].state.tables, 1e-4)
    np.testing.assert_array_equal(result.state.rows.steps, straight[1].state.rows.steps)


def test_checkpoints_move_between_numbers_of_devices(workdir, tiny, start, on_devices):
    before, _ = load_weights(workdir)
    for devices, step in ((2, 4), (1, 4), (4, 4), (2, 5)):
        on_devices(devices)
        result = start(tiny(steps=step), workdir)
        assert result.step == step
        assert len(result.state.rows.z_H.sharding.device_set) == devices
        if step == 4:
            jax.tree.map(np.testing.assert_array_equal, before["params"], result.state.params)
            figures = _task(tiny(), workdir).evaluate(result.state)
            figures.pop("eval/puzzles_per_second")
            assert figures == {k: result.figures[k] for k in figures}


def test_devices_must_divide_the_batch(tmp_path, tiny, start):
    with pytest.raises(ConfigError, match="6 rows cannot be divided among 4 devices"):
        start(tiny(batch_size=6), tmp_path)


def test_microbatches_give_the_same_run(straight, tmp_path, tiny, start, figures):
    result = start(tiny(steps=8, microbatch_size=4), tmp_path)
    _assert_close(result.state.params, straight[1].state.params, 1e-4)
    ours = [x["train/loss"] for x in figures(tmp_path) if "train/loss" in x]
    theirs = [x["train/loss"] for x in figures(straight[0]) if "train/loss" in x]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_averaged_weights_are_evaluated_and_loaded(tmp_path, tiny, start):
    config = tiny(optimizer__ema=0.5, optimizer__learning_rate=0.05, optimizer__warmup_steps=0)
    result = start(config, tmp_path)
    state = result.state
    assert not np.array_equal(state.ema["lm_head"]["kernel"],
                              state.params["lm_head"]["kernel"])  # fmt: skip
    model = load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, model.variables["params"], state.ema)
    jax.tree.map(np.testing.assert_array_equal, model.variables["tables"], state.tables)
    task = _task(config, tmp_path)
    averaged = evaluate_puzzles(task.config.model, task.weights(state), task.test, slots=8)
    assert averaged["eval/blank_accuracy"] == result.figures["eval/blank_accuracy"]
    assert evaluate(tmp_path)["eval/blank_accuracy"] == result.figures["eval/blank_accuracy"]


@pytest.mark.parametrize("steps", [9, 5])  # 5: the run ends while it is being profiled
def test_profile_and_tensorboard_write_files(steps, tmp_path, tiny, start):
    start(tiny(steps=steps, profile=True, tensorboard=True), tmp_path)
    (profile,) = (tmp_path / "profile").glob("**/*.xplane.pb")
    assert b"PuzzleTask.step" in (trace := profile.read_bytes())
    assert b"$loop.py:" not in trace  # tracing Python's calls crashes beside threads
    (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    assert b"eval/exact_accuracy" in events.read_bytes()


def test_wandb_that_is_not_installed_is_an_error(tmp_path, tiny, start, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"config.wandb needs: pip install 'hrm_jax\[wandb\]'"):
        start(tiny(wandb="project"), tmp_path)


def test_nothing_is_compiled_after_the_first_steps(tmp_path, tiny, start):
    """A run of 12 steps compiles as often as one of 4, though it evaluates and saves more."""
    lowered = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            lowered.append(event)

    counts = []
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for number, steps in enumerate((4, 4, 12)):  # the first warms up what all runs share
            lowered.clear()
            start(tiny(steps=steps), tmp_path / str(number))
            counts.append(len(lowered))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert counts[1] > 0
    assert counts[2] == counts[1]


def test_the_state_is_donated(tmp_path, tiny):
    task = _task(tiny(), tmp_path)
    state = task.init(jax.random.key(0))
    batch = next(task.batches())
    size = sum(x.nbytes for x in jax.tree.leaves(state.params))
    step = jax.jit(task.step, donate_argnums=0)
    assert step.lower(state, batch).compile().memory_analysis().alias_size_in_bytes > 3 * size


def test_the_state_does_not_eat_the_weights_it_starts_from(trained, tmp_path, tiny, start):
    """`init_from`: weights are copied, since the loop donates its state."""
    model = load(trained)
    before = jax.tree.map(np.asarray, model.variables)
    task = PuzzleTask(tasks.parse(tiny()), trained / "data", model.variables)
    start(task, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, model.variables, before)


def test_weights_are_no_constants_of_the_program(trained, tmp_path, tiny, start, monkeypatch):
    programs = []

    def recording(function, **options):
        jitted = jit(function, **options)

        def call(*args):
            programs.append(jitted.lower(*args).as_text())
            return jitted(*args)

        call.lower = jitted.lower
        return call

    def largest(program):
        return max(map(len, re.findall(r'dense<"0x(\w+)"', program)), default=0)

    monkeypatch.setattr(loop, "jit", recording)
    task = PuzzleTask(tasks.parse(tiny()), trained / "data", load(trained).variables)
    start(task, tmp_path)
    assert [largest(program) for program in programs] == [0]
    assert largest(jax.jit(task.init).lower(jax.random.key(0)).as_text()) > 10_000


def test_a_short_run_still_ends_with_figures(tmp_path, tiny, start):
    result = start(tiny(steps=1, eval_every=50, checkpoint_every=50), tmp_path)
    assert result.figures["eval/puzzles"] == 8
    assert math.isfinite(result.figures["eval/steps"])
    assert dataclasses.is_dataclass(result)
    assert _steps(tmp_path) == [1]

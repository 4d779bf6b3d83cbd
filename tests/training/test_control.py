"""Limits of a training, in the one loop and in loops of one's own."""

import json
import logging
import os
import pickle
import signal
import zlib

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

from hrm_jax import tasks
from hrm_jax.data.identity import Identity
from hrm_jax.fields import ConfigError
from hrm_jax.tasks.base import State, Task, pair
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.control import create_training_controller
from hrm_jax.training.stopping import Progress, Rules, Stopping


def _updates(controller, losses, tokens=0):
    """Feeds a controller until it stops or the losses are used up; returns how many it took."""
    done = 0
    for loss in losses:
        if not controller.should_continue():
            break
        controller.update(loss, tokens_processed=tokens)
        done += 1
    return done


FALLING = [1.0 / (i + 1) for i in range(200)]


@pytest.mark.parametrize(
    ("rules", "losses", "tokens", "expected"),
    [
        ({}, FALLING, 0, (69, "max_iterations")),
        ({"max_iterations": 5}, FALLING, 0, (5, "max_iterations")),
        ({}, [1.0] * 200, 0, (13, "early_stopping")),
        ({"early_stop_patience": 2}, [3, 2, 2, 1, 1, 2, 0], 0, (6, "early_stopping")),
        ({"early_stop": False, "max_iterations": 30}, [1.0] * 99, 0, (30, "max_iterations")),
        # less than min_delta is no improvement, though small steps add up to one
        ({"early_stop_patience": 3}, [1 - 5e-7 * i for i in range(99)], 0, (69, "max_iterations")),
        ({"early_stop_patience": 2}, [1 - 5e-7 * i for i in range(99)], 0, (3, "early_stopping")),
        ({"early_stop_patience": 2}, [float("nan")] * 9, 0, (2, "early_stopping")),
        ({"early_stop_patience": 2}, [float("nan"), 3, 2, 1], 0, (4, None)),
        # whichever comes first
        ({"max_tokens": 10}, FALLING, 5, (2, "token_limit")),
        ({"max_tokens": 11}, FALLING, 5, (3, "token_limit")),
        ({"max_tokens": 10}, FALLING, 100, (1, "token_limit")),
        ({"max_tokens": 1000}, FALLING, 5, (12, "token_limit")),
        ({"max_tokens": 1000, "token_limit_iterations": 20}, FALLING, 5, (20, "token_limit")),
        ({"max_tokens": 1000, "max_iterations": 4}, FALLING, 5, (4, "max_iterations")),
        ({"token_limit_iterations": 3}, FALLING, 5, (69, "max_iterations")),  # there is no limit
        ({"max_tokens": 10}, FALLING, 0, (12, "token_limit")),
    ],
)
def test_what_stops_a_training(rules, losses, tokens, expected):
    controller = create_training_controller(**rules)
    done = _updates(controller, losses, tokens)
    assert (done, controller.stop_reason) == expected
    assert controller.should_continue() is (expected[1] is None)
    assert controller.total_tokens == done * tokens
    np.testing.assert_array_equal(controller.loss_history, losses[:done])


def test_no_rule_never_stops():
    rules, progress = Rules(), Progress()
    for _ in range(1000):
        progress = progress.with_tokens(10**9).with_iteration(rules, None)
    assert progress == Progress(iterations=1000, tokens=10**12)
    assert progress.reason(rules) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_iterations": 0},
        {"early_stop_patience": 0},
        {"max_tokens": 0},
        {"token_limit_iterations": 0},
        {"min_delta": -1e-9},
        {"min_delta": float("nan")},
        {"log_interval": -1},
    ],
)
def test_arguments_are_checked(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name}: expected at least"):
        create_training_controller(**wrong)
    with pytest.raises(ValueError, match=r"^tokens_processed: expected at least 0, got -1"):
        create_training_controller().update(1.0, -1)


def test_the_summary(caplog):
    caplog.set_level(logging.INFO, "hrm_jax")
    controller = create_training_controller(log_interval=2)
    assert controller.get_summary()["best_loss"] is None
    for loss, norm in ((2.0, None), (jnp.float32(1.5), np.float32(0.5)), (1.75, 3)):
        controller.update(loss, 7, norm)
    summary = controller.get_summary()
    assert summary.pop("elapsed_seconds") > 0
    assert summary == {
        "current_iteration": 3,
        "total_tokens_processed": 21,
        "best_loss": 1.5,
        "last_loss": 1.75,
        "iterations_without_improvement": 1,
        "stop_reason": None,
    }
    assert controller.gradient_history == [0.5, 3.0]
    assert [r.message for r in caplog.records] == [
        "Iteration 2: loss 1.5, 0 without improvement, 14 tokens."
    ]


@pytest.fixture
def states():
    """Parameters of several kinds, and the state of an optimizer over them."""
    params = {
        "layers": [{"kernel": jnp.arange(6.0).reshape(2, 3)}, {"kernel": jnp.ones((3, 1))}],
        "half": jnp.array([1.5, -2.0], jnp.bfloat16),
        "pair": (np.arange(3, dtype=np.int8), jnp.float32(np.nan)),
        "big/name": np.array([[True]]),
        "nothing": {},
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    return params, optimizer.init({"w": jnp.ones((2, 2)), "b": jnp.zeros(())})


def _assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_a_checkpoint_brings_everything_back(states, tmp_path):
    params, opt_state = states
    controller = create_training_controller(checkpoint_dir=tmp_path / "kept", max_tokens=99)
    _updates(controller, [3.0, 2.0, 2.5], tokens=4)
    path = controller.save_checkpoint(params, opt_state)
    assert path == tmp_path / "kept" / "checkpoint_000003.msgpack"

    other = create_training_controller(max_tokens=12)
    found = other.load_checkpoint(path, params, opt_state)
    _assert_same(found["model_state"], params)
    _assert_same(found["optimizer_state"], opt_state)
    found["model_state"]["pair"][0][0] = 5  # no read-only view
    assert found["config"]["max_tokens"] == 99
    assert other.progress == controller.progress
    assert other.loss_history == [3.0, 2.0, 2.5]
    assert other.stop_reason == "token_limit"  # its own rules hold

    plain = other.load_checkpoint(path)
    np.testing.assert_array_equal(
        plain["model_state"]["layers"]["0"]["kernel"], [[0, 1, 2], [3, 4, 5]]
    )
    assert plain["optimizer_state"]["1"]["0"]["count"] == 0


def test_a_training_that_is_resumed_equals_one_that_is_not(tmp_path):
    losses = [3.0, 2.0, 2.5, 2.5, 1.0, 1.5, 1.5, 1.5, 0.5]
    straight = create_training_controller(early_stop_patience=3)
    stopped = _updates(straight, losses, tokens=3)
    assert (stopped, straight.stop_reason) == (8, "early_stopping")
    for done in range(stopped + 1):
        first = create_training_controller(early_stop_patience=3)
        _updates(first, losses[:done], tokens=3)
        path = first.save_checkpoint({}, filepath=tmp_path / "x" / "any.name")
        second = create_training_controller(early_stop_patience=3, resume_from=path)
        assert _updates(second, losses[done:], tokens=3) == stopped - done
        assert second.progress == straight.progress
        assert second.loss_history == straight.loss_history


def test_finish_saves_unless_told_not_to(tmp_path):
    for save in (True, False):
        folder = tmp_path / str(save)
        controller = create_training_controller(checkpoint_dir=folder, save_checkpoint_on_stop=save)
        controller.update(1.0)
        path = controller.finish({"w": np.ones(3)})
        assert (path is not None) is save
        assert folder.exists() is save
    found = create_training_controller().load_checkpoint(
        tmp_path / "True/checkpoint_000001.msgpack"
    )
    np.testing.assert_array_equal(found["model_state"]["w"], np.ones(3))
    assert found["optimizer_state"] is None


def test_other_trees_are_refused(states, tmp_path):
    params, opt_state = states
    controller = create_training_controller(checkpoint_dir=tmp_path)
    path = controller.save_checkpoint(params, opt_state)
    controller.update(1.0)
    for change, message in (
        (
            {"half": jnp.zeros(3)},
            r"model_state\['half'\]: expected shape \(3,\), the file has shape",
        ),
        ({"new": jnp.zeros(3)}, r"model_state\['new'\]: expected shape \(3,\), the file has no"),
    ):
        with pytest.raises(CheckpointError, match=message):
            controller.load_checkpoint(path, {**params, **change})
    with pytest.raises(CheckpointError, match=r"\['big/name'\]: expected no such entry, the file"):
        controller.load_checkpoint(path, {"half": params["half"]})
    assert controller.progress.iterations == 1  # a failed load changes nothing


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    controller = create_training_controller(checkpoint_dir=tmp_path)
    path = controller.save_checkpoint({"w": np.arange(100.0)})
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    def sealed(value):
        encoded = serialization.msgpack_serialize(value)
        return encoded + zlib.crc32(encoded).to_bytes(4, "big")

    good = serialization.msgpack_restore(whole[:-4])
    foreign = [[1], {}, {**good, "more": 1}, {**good, "training_state": 3}]
    for name, value in {"tokens": "1", "loss_history": ["a"], "elapsed_seconds": None}.items():
        foreign.append({**good, "training_state": {**good["training_state"], name: value}})
    for content in (
        *(whole[:-1], whole[:50], b"", b"\0" * 4, bytes(flipped), pickle.dumps(Trap())),
        *map(sealed, foreign),
    ):
        path.write_bytes(content)
        with pytest.raises(
            CheckpointError, match=r"000000\.msgpack: damaged.*expected a checkpoint"
        ):
            create_training_controller(resume_from=path)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(FileNotFoundError, match="absent"):
        create_training_controller(resume_from=tmp_path / "absent")


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path):
    controller = create_training_controller(checkpoint_dir=tmp_path)
    path = controller.save_checkpoint({"w": np.ones(2)})
    before = path.read_bytes()
    for wrong in ({"w": object()}, {"w": jax.random.key(0)}):
        with pytest.raises(TypeError):
            controller.save_checkpoint(wrong)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


# --- the one loop -------------------------------------------------------------------------------


class Counting(Task):
    """Learns nothing, from 10 tokens in its first step, 20 in its second, …"""

    identity = Identity("counting", "1", None, {}, {})
    metrics = ("tokens", "loss")

    def __init__(self, config):
        self.config = config

    def init(self, key):
        return State(step=jnp.int32(0), params={"w": jnp.zeros(2)}, opt_state=(), key=key)

    def batches(self):
        rows = grain.MapDataset.range(1000).map(lambda i: {"x": np.full(8, i)})
        return iter(rows.to_iter_dataset())

    def step(self, state, batch):
        metrics = {"tokens": pair(10 * (state.step + 1), 1), "loss": pair(jnp.sum(batch["x"]), 8)}
        return state, {k: metrics[k] for k in self.metrics}

    def evaluate(self, state):
        return {"eval/exact_accuracy": 0.5}


@pytest.fixture
def limited(tiny, start):
    """Trains with the given limits; evaluates every second step."""

    def train(workdir, kind=Counting, **control):
        config = tiny(steps=9, eval_every=2, checkpoint_every=50, log_every=50, control=control)
        return start(kind(tasks.parse(config)), workdir)

    return train


def _progress(workdir, step):
    path = workdir / "checkpoints" / str(step) / "progress" / "metadata"
    return json.loads(path.read_text())["stopping"]


def test_a_run_stops_at_its_limits_and_goes_on_when_they_are_raised(tmp_path, limited):
    result = limited(tmp_path, max_tokens=31)  # 10, 30, 60
    assert (result.reason, result.step) == ("token_limit", 3)
    assert result.figures["eval/exact_accuracy"] == 0.5
    assert _progress(tmp_path, 3)["tokens"] == 60
    assert limited(tmp_path, max_tokens=60).step == 3  # equal is enough

    result = limited(tmp_path, max_tokens=10**6, token_limit_iterations=4)  # after 2, 3, 4, 6
    assert (result.reason, result.step) == ("token_limit", 6)
    result = limited(tmp_path, max_iterations=5)
    assert (result.reason, result.step) == ("max_iterations", 8)
    assert _progress(tmp_path, 8)["tokens"] == 360  # counted without a limit too
    assert limited(tmp_path).reason == "finished"
    assert _progress(tmp_path, 9)["tokens"] == 450


def test_an_interrupted_run_counts_on(tmp_path, limited):
    class Signalled(Counting):
        def evaluate(self, state):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().evaluate(state)

    result = limited(tmp_path, Signalled, max_tokens=150)
    assert (result.reason, result.step) == ("interrupted", 3)
    assert (_progress(tmp_path, 3)["tokens"], _progress(tmp_path, 3)["iterations"]) == (60, 1)
    result = limited(tmp_path, max_tokens=150)  # 100, 150
    assert (result.reason, result.step) == ("token_limit", 5)
    assert _progress(tmp_path, 5)["iterations"] == 3


def test_tokens_must_be_counted_by_the_task(tmp_path, limited):
    class Silent(Counting):
        metrics = ("loss",)

    with pytest.raises(ConfigError, match=r"control\.max_tokens: the task sudoku counts no tokens"):
        limited(tmp_path, Silent, max_tokens=5)
    assert limited(tmp_path, Silent).reason == "finished"


def test_a_run_from_before_there_were_limits_goes_on(tmp_path, limited, tiny):
    assert limited(tmp_path).step == 9
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["control"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert limited(tmp_path, max_iterations=1).reason == "finished"

    stopping = Stopping(tasks.parse(tiny(control={"max_iterations": 1})))
    stopping.restore({"best": 0.5, "reference": None, "stale": 0})
    assert stopping.reason is None
    assert stopping.update({"eval/exact_accuracy": 0.4}) is False
    assert stopping.reason == "max_iterations"

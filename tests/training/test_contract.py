"""Tasks of every kind through the one loop: killed and resumed bit for bit, on 1, 2, 4 devices."""

import json
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from toys import TOYS, Adapters, Memory, Walkers

from hrm_jax.fields import ConfigError
from hrm_jax.tasks.base import MeshConfig
from hrm_jax.training import loop
from hrm_jax.training.checkpoints import load_weights
from hrm_jax.training.metrics import read_metrics
from hrm_jax.training.sharding import make_mesh, place_batch
from hrm_jax.training.workdir import WorkdirError

HERE = pathlib.Path(__file__).parent


@pytest.fixture
def on_devices(monkeypatch):
    def use(number):
        monkeypatch.setattr(
            loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:number])
        )

    return use


class _Crash(Exception):
    pass


def _run(task, workdir):
    return loop.run(task, workdir, progress=False)


def _crashing(kind):
    class Crashing(kind):
        def evaluate(self, state):
            if state.step == 6:  # saved are 2 and 4
                raise _Crash
            return super().evaluate(state)

    return Crashing()


def _losses(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("name", TOYS)
def test_a_crash_changes_nothing(name, devices, tmp_path, on_devices, assert_same_state):
    on_devices(devices)
    straight = _run(TOYS[name](), tmp_path / "straight")
    assert straight.step == int(straight.state.step) == 7
    with pytest.raises(_Crash):
        _run(_crashing(TOYS[name]), tmp_path / "crashed")
    again = _run(TOYS[name](), tmp_path / "crashed")
    assert_same_state(again.state, straight.state)
    losses = _losses(tmp_path / "straight")
    assert _losses(tmp_path / "crashed") == losses
    assert len(set(losses)) == 7
    assert {x.sharding.mesh.size for x in jax.tree.leaves(again.state.params)} == {devices}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "devices"), zip(TOYS, (4, 2, 1), strict=True))
def test_kill_9(name, devices, tmp_path, on_devices, assert_same_state, child):
    done = subprocess.run(
        [sys.executable, HERE / "toys.py", name, tmp_path / "killed", str(devices)],
        env=child(4, killed=True),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    on_devices(devices)
    again = _run(TOYS[name](), tmp_path / "killed")
    assert_same_state(again.state, _run(TOYS[name](), tmp_path / "straight").state)


@pytest.mark.parametrize("name", TOYS)
def test_the_number_of_devices_changes_no_loss(name, tmp_path, on_devices):
    for devices in (1, 4):
        on_devices(devices)
        _run(TOYS[name](mesh=MeshConfig(fsdp=devices, smallest=8)), tmp_path / str(devices))
    np.testing.assert_allclose(_losses(tmp_path / "4"), _losses(tmp_path / "1"), rtol=1e-5)


def test_the_loop_counts_steps_and_the_optimizer_updates(tmp_path):
    result = _run(Walkers(), tmp_path)
    assert int(result.state.step) == 7
    counts = {int(x) for x in jax.tree.leaves(result.state.opt_state) if x.dtype == np.int32}
    assert counts == {7 * Walkers.updates}
    assert (tmp_path / "checkpoints" / "6").is_dir()
    rates = [x["train/learning_rate"] for x in read_metrics(tmp_path / "metrics.jsonl")
             if "train/loss" in x]  # fmt: skip
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.1])  # two steps of warm-up, not two updates
    shards = result.state.carry["seen"].addressable_shards
    assert [shard.data.shape for shard in shards] == [(4, 4)] * 4
    assert result.state.carry["next"].sharding.is_fully_replicated
    assert [x.data.shape for x in result.state.rows["place"].addressable_shards] == [(2,)] * 4


def test_frozen_weights_are_divided_and_never_saved(tmp_path):
    result = _run(Adapters(mesh=MeshConfig(fsdp=4, smallest=8)), tmp_path)
    base = result.state.frozen["base"]
    assert [x.data.shape for x in base.addressable_shards] == [(4, 16)] * 4
    random = np.random.default_rng(0)
    np.testing.assert_array_equal(base, random.normal(size=(4, 64)).astype(np.float32))
    for which in ("last", 4):
        weights, _ = load_weights(tmp_path, which)
        assert jax.tree.map(np.shape, weights) == {"params": {"down": (4, 2), "up": (2, 64)}}
    for file in (tmp_path / "checkpoints").glob("*/*/_METADATA"):
        assert "base" not in file.read_text()
        assert "frozen" not in file.read_text()


def test_other_frozen_weights_are_another_run(tmp_path):
    _run(Adapters(), tmp_path)
    before = (tmp_path / "identity.json").read_bytes()
    assert json.loads(before)["frozen"]

    class Other(Adapters):
        base_seed = 1

    with pytest.raises(WorkdirError, match=r"data frozen: \w{8} != \w{8}"):
        _run(Other(), tmp_path)
    assert (tmp_path / "identity.json").read_bytes() == before


def test_the_task_says_what_its_weights_are(tmp_path):
    result = _run(Memory(), tmp_path)
    weights, step = load_weights(tmp_path)
    assert step == 7
    np.testing.assert_array_equal(weights["params"]["w"], result.state.ema["w"])
    np.testing.assert_array_equal(weights["memory"]["slots"], result.state.carry["slots"])
    assert np.any(weights["memory"]["slots"] != 0)


def test_a_batch_says_its_row_axis():
    mesh = make_mesh(MeshConfig(fsdp=2))
    placed = place_batch({"reward": np.arange(24.0).reshape(3, 8)}, mesh, axis=1)
    assert [x.data.shape for x in placed["reward"].addressable_shards] == [(3, 2)] * 4
    with pytest.raises(ConfigError, match="3 rows cannot be divided among 4 devices"):
        place_batch({"reward": np.zeros((3, 8))}, mesh)

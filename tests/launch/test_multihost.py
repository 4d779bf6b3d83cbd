"""Two processes on this machine train one run; one is killed, both go on, nothing is different."""

import json
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from hrm_jax.trained.load import load
from hrm_jax.training.checkpoints import load_weights
from hrm_jax.training.metrics import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 16
LIMIT = 150  # seconds that a start, training and end may take; a hang fails the test

pytestmark = pytest.mark.slow


@pytest.fixture
def port():
    """A port that stays reserved: only who asks to share it, as gRPC does, can use it."""
    with socket.socket(socket.AF_INET6) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("::", 0))
        yield reserved.getsockname()[1]


@pytest.fixture
def values(tiny):
    return tiny(
        steps=STEPS,
        checkpoint_every=1,
        eval_every=8,
        model__H_cycles=1,
        model__L_cycles=1,
        optimizer__ema=0.9,
        mesh={"data": 2, "fsdp": 2, "smallest": 256},
    )


@pytest.fixture
def pair(values, port, tmp_path, child):
    """Starts both processes; whatever happens, none is left."""
    (tmp_path / "config.py").write_text(
        "import jax\nfrom ml_collections import ConfigDict\n\n\ndef get_config():\n"
        f"    assert jax.device_count() == 4\n    return ConfigDict({values!r})\n"
    )
    started = []

    def start(workdir, heartbeat=LIMIT):  # which a busy machine may miss for ten seconds
        both = [
            subprocess.Popen(
                [
                    *(sys.executable, str(ROOT / "launch" / "train.py")),
                    *(f"--config={tmp_path / 'config.py'}", f"--workdir={workdir}"),
                    *("--multihost", f"--coordinator=localhost:{port}", "--num_processes=2"),
                    *(f"--process_id={number}", f"--heartbeat_timeout={heartbeat}"),
                ],
                env=child(2, killed=True),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(2)
        ]
        started.extend(both)
        return both

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _steps(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit())


def _wait_for_step(processes, workdir, step):
    end = time.monotonic() + LIMIT
    while max(_steps(workdir), default=0) < step:
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.02)


def _ends(processes):
    try:
        outputs = [process.communicate(timeout=LIMIT)[0] for process in processes]
    except subprocess.TimeoutExpired:  # one may wait for another that has failed: both are heard
        for process in processes:
            process.kill()
        outputs = [process.communicate()[0] for process in processes]
    return [process.returncode for process in processes], outputs


def _said(outputs):
    return "\n---\n".join(outputs)  # of a list, pytest shows the first and last words


def test_two_processes_train_as_one(pair, values, start, tmp_path):
    workdir = tmp_path / "run"
    both = pair(workdir, heartbeat=10)
    _wait_for_step(both, workdir, 3)
    both[1].kill()
    codes, outputs = _ends(both)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, -signal.SIGKILL)
    assert "error: " in outputs[0]  # behind a progress bar, or on a line of its own
    assert "Start all processes again with the same commands" in outputs[0]
    stopped = _steps(workdir)[-1]
    assert 3 <= stopped < STEPS

    both = pair(workdir)  # one is asked to leave, and both do, at one step
    _wait_for_step(both, workdir, stopped + 2)
    both[1].send_signal(signal.SIGTERM)
    codes, outputs = _ends(both)
    assert codes == [128 + signal.SIGTERM] * 2, _said(outputs)
    assert f"Going on from step {stopped} " in outputs[0]
    assert f"Saved step {_steps(workdir)[-1]}." in outputs[0]

    both = pair(workdir)
    codes, outputs = _ends(both)
    assert codes == [0, 0], _said(outputs)
    assert "Held-out puzzles solved" in outputs[0]
    assert "Held-out puzzles solved" not in outputs[1]
    assert (workdir / "plots" / "contact_sheet.png").exists()
    assert not (workdir / "damaged").exists()
    assert json.loads((workdir / "config.json").read_text())["mesh"]["fsdp"] == 2

    alone = tmp_path / "alone"  # on as many devices, in this process
    start(values, alone)
    ours, theirs = (
        {x["step"]: x["train/loss"] for x in read_metrics(w / "metrics.jsonl") if "train/loss" in x}
        for w in (workdir, alone)
    )
    assert list(ours) == list(theirs) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=0, atol=1e-5)
    (one, step), (other, _) = load_weights(workdir), load_weights(alone)
    assert step == STEPS
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), one, other)
    assert load(workdir).config.seq_len == 16

    start({**values, "steps": STEPS + 1, "mesh": {}}, workdir)  # and on in one process
    assert _steps(workdir)[-1] == STEPS + 1


_SAVING = """
import sys

import grain
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from hrm_jax.tasks.base import State
from hrm_jax.training import processes
from hrm_jax.training.checkpoints import Checkpoints

workdir, port, number = sys.argv[1:]
processes.start(f"localhost:{port}", 2, int(number))
checkpoints = Checkpoints(workdir, 1, lambda state: state.params)
everywhere = NamedSharding(jax.make_mesh((4,), ("data",)), PartitionSpec())
iterator = iter(grain.MapDataset.range(8).to_iter_dataset())


@jax.jit(out_shardings=everywhere)
def make(step):
    params = {"w": jnp.full(3, step)}
    return State(step=step, params=params, opt_state=params, key=jax.random.key(0))


for step in range(10):
    state = make(step)
    checkpoints.save_best(state)
    checkpoints.save(state, iterator, {})
checkpoints.wait()
checkpoints.close()
processes.leave(0)
"""


def test_the_best_and_the_last_are_written_at_once(port, tmp_path, child):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _SAVING, str(tmp_path / "run"), str(port), str(number)],
            env=child(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    codes, outputs = _ends(both)
    assert codes == [0, 0], _said(outputs)
    for which in ("best", "last"):
        weights, step = load_weights(tmp_path / "run", which)
        assert step == 9
        np.testing.assert_array_equal(weights["w"], [9, 9, 9])

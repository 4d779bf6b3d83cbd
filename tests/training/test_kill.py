"""`kill -9` at any moment, signals, and crashes, through launch/train.py in its own process."""

import os
import pathlib
import random
import re
import signal
import time

import forked
import jax
import numpy as np
import pytest

from hrm_jax.training.checkpoints import load_weights
from hrm_jax.training.metrics import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 40

pytestmark = pytest.mark.slow


AGENT = {
    **{"task": "dqn", "environment": "Catch", "steps": STEPS, "tensorboard": False},
    **{"batch_size": 4, "train_every": 2, "iterations": 3, "updates": 2, "minibatch_size": 8},
    **{"replay_size": 100, "learning_starts": 16, "n_step": 3, "priority_alpha": 0.6},
    **{"log_every": 1, "eval_every": 10, "checkpoint_every": 1, "eval_episodes": 4},
    **{"model": {"hidden": (16,)}, "optimizer": {"name": "adamw", "warmup_steps": 0}},
}


@pytest.fixture(scope="module")
def command(tiny, tmp_path_factory):
    """Makes the command line of a run of 40 steps with a checkpoint after each."""
    return _command(
        tiny(steps=STEPS, checkpoint_every=1, eval_every=10), tmp_path_factory.mktemp("config")
    )


def _command(values, folder):
    (folder / "config.py").write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({values!r})\n"
    )

    def make(workdir, *flags):
        script = str(ROOT / "launch" / "train.py")
        return [script, f"--config={folder / 'config.py'}",
                f"--workdir={workdir}", *flags]  # fmt: skip

    return make


@pytest.fixture(scope="module")
def environment(child):
    return child(killed=True)


def _ended(script):
    """Waits for its end: exit code, and what it has said."""
    done = script.wait()
    return done.returncode, done.stdout + done.stderr


def _newest(workdir):
    names = [p.name for p in (workdir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def _wait_for_step(script, workdir, step):
    """Waits until a checkpoint of that step or a later one is there."""
    for _ in range(6000):
        if _newest(workdir) >= step:
            return
        assert script.process.is_alive(), script.said()
        time.sleep(0.02)
    raise AssertionError("the run makes no checkpoints")


@pytest.fixture(scope="module")
def straight(command, environment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight") / "run"
    code, output = _ended(forked.Script(command(workdir), environment=environment))
    assert code == 0, output
    return workdir


def _assert_same_run(a, b):
    one, step = load_weights(a)
    two, other = load_weights(b)
    assert step == other == STEPS
    jax.tree.map(np.testing.assert_array_equal, one, two)
    losses, returns = (
        [
            {x["step"]: x[name] for x in read_metrics(w / "metrics.jsonl") if name in x}
            for w in (a, b)
        ]
        for name in ("train/loss", "train/return")
    )
    assert returns[0] == returns[1]
    assert losses[0] == losses[1]
    assert list(losses[0]) == list(range(1, STEPS + 1))


def test_kill_9_at_random_moments(straight, command, environment, tmp_path):
    _kill_and_go_on(5, command, environment, tmp_path)
    _assert_same_run(straight, tmp_path)


def test_kill_9_of_an_agent(environment, tmp_path):
    """Its environments amid their episodes and its replay are what they would have been."""
    command = _command(AGENT, tmp_path)
    code, output = _ended(forked.Script(command(tmp_path / "a"), environment=environment))
    assert code == 0, output
    _kill_and_go_on(2, command, environment, tmp_path / "b")
    _assert_same_run(tmp_path / "a", tmp_path / "b")


def _kill_and_go_on(rounds, command, environment, workdir):
    chance = random.Random(0)
    halves = set()
    for round_ in range(rounds):
        script = forked.Script(command(workdir), environment=environment)
        try:
            _wait_for_step(script, workdir, _newest(workdir) + chance.randint(1, 5))
            time.sleep(chance.random() * 0.1)
        finally:
            script.process.kill()
            code, output = _ended(script)
        assert code == -signal.SIGKILL, output
        assert round_ == 0 or "Going on from step" in output
        halves |= {p.name for p in (workdir / "checkpoints").glob("*") if not p.name.isdigit()}
    assert all(re.fullmatch(r"\d+\..*tmp.*", name) for name in halves), halves
    assert _newest(workdir) < STEPS
    code, output = _ended(forked.Script(command(workdir), environment=environment))
    assert code == 0, output
    assert not (workdir / "damaged").exists(), output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_say_how_to_go_on(number, code, straight, command, environment, tmp_path):
    script = forked.Script(command(tmp_path), environment=environment)
    try:
        _wait_for_step(script, tmp_path, 3)
    finally:
        os.kill(script.process.pid, number)
        returned, output = _ended(script)
    assert returned == code, output
    step = int(re.search(r"Saved step (\d+)\. To go on, run the same command again:", output)[1])
    assert step == _newest(tmp_path)
    assert f"--workdir={tmp_path}" in output
    assert "Traceback" not in output
    if number == signal.SIGTERM:
        returned, output = _ended(forked.Script(command(tmp_path), environment=environment))
        assert returned == 0, output
        assert f"Going on from step {step}" in output
        _assert_same_run(straight, tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_what_compiled_code_holds_up(number, code, environment, tmp_path):
    (tmp_path / "config.py").write_text(
        "import hashlib, os, threading\n\n\ndef get_config():\n"
        f"    threading.Timer(0.5, os.kill, (os.getpid(), {int(number)})).start()\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)  # for minutes, as XLA's compiler\n"
    )
    command = [ROOT / "launch" / "train.py", f"--config={tmp_path / 'config.py'}"]
    done = forked.Script(command, environment=environment).wait(timeout=60)
    assert done.returncode == code
    assert "while there was nothing to save" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_save_that_fails_is_one_line(command, environment, tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "checkpoints").write_text("x")
    code, output = _ended(forked.Script(command(tmp_path / "a b"), environment=environment))
    assert code == 2
    assert len(re.findall("^error: .*checkpoints", output, re.M)) == 1
    assert "Traceback" not in output

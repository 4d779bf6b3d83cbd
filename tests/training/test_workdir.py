"""Who has a workdir, and what W&B knows it by."""

import contextlib
import os
import shutil
import sys
import threading
import time
import types

import pytest

from hrm_jax.training import workdir as module
from hrm_jax.training.metrics import MetricWriter
from hrm_jax.training.workdir import WorkdirError, locked


@contextlib.contextmanager
def _held_by_another(folder):
    """Another thread has the lock, as another process would."""
    taken, done = threading.Event(), threading.Event()

    def hold():
        with locked(folder):
            taken.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_one_run_in_a_workdir(tmp_path, tiny, start):
    run = tmp_path / "new" / "run"
    with _held_by_another(run):
        with pytest.raises(
            WorkdirError, match=rf"{run}: in use by another run \(process {os.getpid()} on .* since"
        ):
            start(tiny(), run)
        assert not (run / "config.json").exists()
    with locked(run), locked(run):  # what has it may ask again
        pass
    assert (run / ".lock").read_text() == ""


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    with locked(tmp_path):
        left = (tmp_path / ".lock").read_text()
    (tmp_path / ".lock").write_text(left)
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_run_on_another_host_is_known_by_its_signs_of_life(tmp_path, monkeypatch, caplog):
    """Where the file system's locks do not reach it."""
    monkeypatch.setattr(module, "_BEAT", 0.05)
    lock = tmp_path / ".lock"
    lock.write_text("process 1 on elsewhere since 2026-01-01 00:00:00 UTC")
    ended = threading.Event()

    def live():
        while not ended.wait(0.02):
            os.utime(lock)

    thread = threading.Thread(target=live)
    thread.start()
    with pytest.raises(WorkdirError, match=r"another run \(process 1 on elsewhere"):  # noqa: SIM117
        with locked(tmp_path):
            pass
    ended.set()
    thread.join()
    with locked(tmp_path):
        assert "elsewhere" not in lock.read_text()
        before = os.stat(lock).st_mtime_ns
        for _ in range(200):
            if os.stat(lock).st_mtime_ns > before:
                break
            time.sleep(0.05)
        else:
            pytest.fail("gives no sign of life")
    assert "no sign of life of the run before (process 1 on elsewhere" in caplog.text


@pytest.fixture
def wandb_ids(monkeypatch):
    """Makes the ids with which W&B, of which there is a stand-in, is asked for runs."""
    asked = []

    def init(*, id, **_):
        asked.append(id)
        return types.SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))

    def of(folder):
        folder.mkdir(parents=True, exist_ok=True)
        MetricWriter(folder, 0, tensorboard=False, wandb="project").close()
        return asked[-1]

    return of


def test_each_workdir_has_its_own_run_of_wandb(wandb_ids, tmp_path):
    first, second = tmp_path / "a" / "sudoku", tmp_path / "b" / "sudoku"
    name = wandb_ids(first)
    assert wandb_ids(first) == name  # goes on
    assert wandb_ids(second) not in (name, "sudoku")
    copy = shutil.copytree(first, tmp_path / "copy")
    other = wandb_ids(copy)
    assert other != name
    assert wandb_ids(copy) == other
    assert wandb_ids(first) == name
    assert wandb_ids(first.rename(tmp_path / "moved")) == name
    old = tmp_path / "c" / "maze"
    (old / "wandb").mkdir(parents=True)  # of a run from before ids were drawn
    assert wandb_ids(old) == "maze"
    (first / "wandb.json").parent.mkdir()
    (first / "wandb.json").write_text('{"id"')
    with pytest.raises(ValueError, match=r"wandb\.json"):
        wandb_ids(first)


def test_wandb_out_of_reach(tmp_path, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("no network")

    run = types.SimpleNamespace(log=broken, finish=broken)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **_: run))
    writer = MetricWriter(tmp_path, 0, tensorboard=False, wandb="project")
    for step in (1, 2):
        writer.write(step, {"train/loss": 1.0})
    writer.close()
    assert caplog.text.count("no more figures go to W&B: no network") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=broken))
    with pytest.raises(OSError, match=r"not take the run \(no network.*WANDB_MODE=offline"):
        MetricWriter(tmp_path, 0, tensorboard=False, wandb="project")

"""A run that stops, however it stops, goes on as if it had not."""

import errno
import json
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from hrm_jax import tasks
from hrm_jax.puzzles.sudoku.board import SudokuShape
from hrm_jax.puzzles.sudoku.generator import generate_split
from hrm_jax.puzzles.sudoku.puzzle import SUDOKU
from hrm_jax.tasks.puzzles.task import PuzzleTask
from hrm_jax.trained.load import load
from hrm_jax.training.checkpoints import CheckpointError, Checkpoints, load_weights
from hrm_jax.training.workdir import WorkdirError


def _task(config, workdir, kind=PuzzleTask):
    return kind(tasks.parse(config), workdir / "data")


def _array_files(checkpoint):
    """The files that hold arrays, the largest first."""
    files = [f for f in checkpoint.glob("**/d/*") if f.is_file()]
    return sorted(files, key=lambda f: -f.stat().st_size)


def test_n_steps_then_m_more_are_n_plus_m_steps(
    straight, workdir, tiny, start, assert_same_state, figures
):
    result = start(tiny(steps=8), workdir)
    assert (result.reason, result.step) == ("finished", 8)
    assert_same_state(result.state, straight[1].state)
    assert figures(workdir) == figures(straight[0])
    assert result.figures.keys() == straight[1].figures.keys()


def test_a_finished_run_is_not_trained_again(workdir, tiny, start, assert_same_state, figures):
    before = figures(workdir)
    first = start(tiny(), workdir)
    assert (first.reason, first.step) == ("finished", 4)
    assert first.figures["eval/puzzles"] == 8
    assert figures(workdir) == before
    assert_same_state(first.state, start(tiny(), workdir).state)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on(
    number, straight, tmp_path, tiny, start, assert_same_state, figures
):
    class Signalled(PuzzleTask):
        def evaluate(self, state):
            os.kill(os.getpid(), number)
            return super().evaluate(state)

    before = signal.getsignal(number)
    result = start(_task(tiny(steps=8), tmp_path, Signalled), tmp_path)
    assert (result.reason, result.step, result.signal) == ("interrupted", 5, number)
    assert (tmp_path / "checkpoints" / "5").is_dir()
    assert signal.getsignal(number) is before
    result = start(tiny(steps=8), tmp_path)
    assert result.reason == "finished"
    assert_same_state(result.state, straight[1].state)
    assert figures(tmp_path) == figures(straight[0])


def _flip(checkpoint):
    file = _array_files(checkpoint)[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def _flip_in_weights(checkpoint):
    _flip(checkpoint / "weights")


def _truncate(checkpoint):
    file = _array_files(checkpoint)[0]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _delete(checkpoint):
    _array_files(checkpoint)[0].unlink()


def _delete_data(checkpoint):
    shutil.rmtree(checkpoint / "data")


def _other_position(checkpoint):
    (file,) = (checkpoint / "data").glob("*.json")
    text = file.read_text()
    assert text.count("4") == 1
    file.write_text(text.replace("4", "7"))


def _other_progress(checkpoint):
    file = checkpoint / "progress" / "metadata"
    progress = json.loads(file.read_text())
    progress["stopping"]["stale"] += 1
    file.write_text(json.dumps(progress))


def _cut_progress(checkpoint):
    (checkpoint / "progress" / "metadata").write_text('{"stopping": {')


@pytest.mark.parametrize(
    "damage",
    [
        *(_flip, _flip_in_weights, _truncate, _delete),
        *(_delete_data, _other_position, _cut_progress, _other_progress),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(
    damage, straight, workdir, tiny, start, assert_same_state, figures, caplog
):
    damage(workdir / "checkpoints" / "4")
    result = start(tiny(steps=8), workdir)
    assert "Checkpoint 4 is damaged" in caplog.text
    assert (workdir / "damaged" / "4").is_dir()
    assert_same_state(result.state, straight[1].state)
    assert figures(workdir) == figures(straight[0])
    assert load(workdir).config.seq_len == 16


def test_only_damaged_checkpoints_are_an_error(workdir, tiny, start):
    for step in (2, 4):
        _flip(workdir / "checkpoints" / str(step))
    with pytest.raises(CheckpointError, match=r"none of the checkpoints \[2, 4\] can be read.*"):
        start(tiny(steps=8), workdir)
    assert sorted(p.name for p in (workdir / "damaged").iterdir()) == ["2", "4"]


def test_half_written_checkpoints_are_ignored(straight, workdir, tiny, start, assert_same_state):
    checkpoints = workdir / "checkpoints"
    left = checkpoints / "6.orbax-checkpoint-tmp"
    shutil.copytree(checkpoints / "4" / "weights", left / "weights")
    result = start(tiny(steps=8), workdir)
    assert_same_state(result.state, straight[1].state)


def test_a_crash_before_the_first_checkpoint_keeps_init_from(trained, tmp_path, tiny, monkeypatch):
    from hrm_jax import experiment

    run = tmp_path / "run"
    (run / "checkpoints" / "2.orbax-checkpoint-tmp").mkdir(parents=True)
    given = []

    def build(config, cache, variables):
        given.append(variables)
        raise RuntimeError("far enough")

    monkeypatch.setattr(experiment.tasks, "build", build)
    with pytest.raises(RuntimeError, match="far enough"):
        experiment.train(tiny(init_from=str(trained)), run)
    assert given[0] is not None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model__hidden_size": 64}, r"config\.model\.hidden_size: 32 in the workdir, 64 now"),
        ({"model__L_cycles": 1}, r"config\.model\.L_cycles"),
        ({"optimizer__learning_rate": 2e-3}, r"config\.optimizer\.learning_rate"),
        ({"data__num_train": 17}, r"config\.data\.num_train"),
        ({"data__seed": 1}, r"config\.data\.seed"),
        ({"batch_size": 16}, r"config\.batch_size"),
        ({"seed": 1}, r"config\.seed"),
    ],
)
def test_another_configuration_is_refused(change, field, workdir, tiny, start):
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(WorkdirError, match=field):
        start(tiny(steps=8, **change), workdir)
    assert (workdir / "config.json").read_bytes() == before


def test_harmless_fields_may_change(workdir, tiny, start):
    free = {"log_every": 2, "eval_every": 3, "keep_checkpoints": 1, "preset": "x", "eval_slots": 4}
    assert start(tiny(steps=5, **free), workdir).step == 5
    assert json.loads((workdir / "config.json").read_text())["steps"] == 5


def test_a_run_from_before_a_field_was_added_goes_on(workdir, tiny, start):
    stored = json.loads((workdir / "config.json").read_text())
    del stored["data"]["hints"]
    (workdir / "config.json").write_text(json.dumps(stored))
    assert start(tiny(steps=5), workdir).step == 5
    stored["data"]["seed"] = 1
    (workdir / "config.json").write_text(json.dumps(stored))
    with pytest.raises(WorkdirError, match=r"differs from this one:\n  config\.data\.seed: 1 in"):
        start(tiny(steps=6), workdir)


def test_a_run_of_an_earlier_version_is_used_but_not_gone_on_with(workdir, tiny, start):
    stored = json.loads((workdir / "config.json").read_text())
    assert stored.pop("version") == 2
    (workdir / "config.json").write_text(json.dumps(stored))
    with pytest.raises(WorkdirError, match=r"earlier version.*--config\.init_from="):
        start(tiny(steps=8), workdir)
    assert load(workdir).config.seq_len == 16


def test_weights_of_an_earlier_version(straight, tmp_path):
    """They kept averages apart, and collections without arrays."""
    state = straight[1].state
    live, average = state.params, jax.tree.map(lambda x: x + 1, state.params)
    kept = {"params": live, "tables": {}, "constants": state.carry, "ema": {"params": average}}
    checkpoints = Checkpoints(tmp_path, 1, lambda _: kept)
    checkpoints.save_best(state)
    checkpoints.wait()
    checkpoints.close()
    weights, _ = load_weights(tmp_path, "best")
    assert set(weights) == {"params", "constants"}
    jax.tree.map(np.testing.assert_array_equal, weights["params"], average)


def test_changed_csv_files_are_refused(tmp_path, tiny, start):
    shape = SudokuShape.of(4)
    train, test = generate_split(shape, 16, 8, (6, 10), 0)
    for name, puzzles in (("train", train), ("test", test)):
        SUDOKU.write_csv(tmp_path / f"{name}.csv", puzzles)
    config = tiny()
    config["data"] = {f"{x}_csv": str(tmp_path / f"{x}.csv") for x in ("train", "test")}
    start(config, tmp_path / "run")

    moved = pathlib.Path(shutil.copy(tmp_path / "train.csv", tmp_path / "moved.csv"))
    config["data"]["train_csv"] = str(moved)
    assert start({**config, "steps": 5}, tmp_path / "run").step == 5  # the same puzzles elsewhere

    SUDOKU.write_csv(moved, train.take(range(15)))
    with pytest.raises(WorkdirError, match=r"data counts.train_examples: 16 != 15") as error:
        start({**config, "steps": 6}, tmp_path / "run")
    assert "sha256.train" in str(error.value)
    assert "sha256.test" not in str(error.value)


def test_a_checkpoint_that_cannot_be_read_now_is_not_put_aside(tiny, start, tmp_path, monkeypatch):
    start(tiny(steps=2), tmp_path / "run")

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(ocp.args, "StandardRestore", denied)
        with pytest.raises(CheckpointError, match="could not be read now"):
            start(tiny(steps=4), tmp_path / "run")
    assert not (tmp_path / "run" / "damaged").exists()
    assert start(tiny(steps=4), tmp_path / "run").step == 4

"""Whatever happens to a file of a workdir, no wrong state comes of it, and it is said."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.data.pipeline import empty_batches
from hrm_jax.tasks.base import State
from hrm_jax.training.checkpoints import CheckpointError, Checkpoints, load_weights
from hrm_jax.training.metrics import MetricWriter, read_metrics
from hrm_jax.training.workdir import WorkdirError, prepare, read_config, read_identity

DAMAGES = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "zeroed": lambda data: bytes(len(data)),
    "deleted": None,
}


def _damage(path, how):
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(DAMAGES[how](path.read_bytes()))


def _state(step):
    return State(
        step=jnp.int32(step),
        params={"w": jnp.arange(8.0) + step, "b": jnp.float32(step)},
        opt_state={"mean": jnp.full(8, 1.0 + step)},
        key=jax.random.key(0),
    )


def _weights(state):
    return {"params": state.params}


def _bits(tree):
    return [np.asarray(x).tolist() for x in jax.tree.leaves(tree.replace(key=None))]


def _loaded(workdir):
    """What is wrong with checkpoint 4 as `hrm_jax.load` reads it, or "" for its right weights."""
    try:
        weights, _ = load_weights(workdir, 4)
    except CheckpointError as error:
        return str(error)
    np.testing.assert_array_equal(weights["params"]["w"], _state(4).params["w"])
    return ""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with checkpoints 2 and 4 of a small state."""
    workdir = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(workdir, 3, _weights)
    for step in (2, 4):
        checkpoints.save(_state(step), empty_batches(), {"stopping": {"best": step}})
    checkpoints.wait()
    checkpoints.close()
    return workdir


def test_every_file_of_a_checkpoint(saved, tmp_path, caplog):
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _state(0)
    )
    newest = pathlib.Path("checkpoints", "4")
    files = sorted(x.relative_to(saved) for x in (saved / newest).rglob("*") if x.is_file())
    passed_over = 0
    for number, (file, how) in enumerate((x, y) for x in files for y in DAMAGES):
        workdir = pathlib.Path(shutil.copytree(saved, tmp_path / str(number)))
        _damage(workdir / file, how)
        if {"weights", "progress"} & {*file.parts}:
            said = _loaded(workdir)
            assert said == "" or str(workdir / newest) in said, (file, how)
        caplog.clear()
        checkpoints = Checkpoints(workdir, 3, _weights)
        state, progress = checkpoints.restore(template, empty_batches())
        checkpoints.close()
        step = int(state.step)
        assert _bits(state) == _bits(_state(step)), (file, how)
        assert progress == {"stopping": {"best": step}}
        assert ("Checkpoint 4 is damaged" in caplog.text) == (step == 2), (file, how)
        passed_over += step == 2
        shutil.rmtree(workdir)
    assert number >= 100
    assert passed_over > 25  # many files of OCDBT are never read


@pytest.mark.parametrize("how", [*DAMAGES, "deep", "foreign"])
@pytest.mark.parametrize("name", ["config.json", "identity.json"])
def test_what_says_which_run_it_is(name, how, workdir, tiny):
    config = tasks.parse(tiny())
    identity = read_identity(workdir)
    config = tasks.kind(config)(config, workdir / "data").config
    prepare(workdir, config, identity)
    path = workdir / name
    if how in DAMAGES:
        _damage(path, how)
    else:
        path.write_text({"deep": "[" * 100_000, "foreign": '{"task": [], "seed": {}}'}[how])
    if (name, how) == ("identity.json", "deleted"):  # old runs have none
        assert read_identity(workdir) is None
        return
    with pytest.raises((ValueError, OSError), match=str(workdir)) as error:
        prepare(workdir, config, identity)
    if how in ("empty", "half", "zeroed", "deep"):
        assert f"{path}:" in str(error.value)
        read = read_config if name == "config.json" else read_identity
        with pytest.raises(ValueError, match=f"{path}:"):
            read(workdir)


def test_bad_lines_of_metrics_are_put_aside(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    good = [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": float("inf")}]
    bad = [b"\xff\xfe", b"[" * 100_000, b"[1]", b"3", b'{"loss": 1}', b'{"step": "1"}', b'{"st']
    first, second = (json.dumps(line).encode() for line in good)
    path.write_bytes(b"\n".join([first, *bad[:4], second, *bad[4:]]))
    assert read_metrics(path) == good
    for more in (b"", b"\0\0\n"):
        path.write_bytes(path.read_bytes() + more)
        writer = MetricWriter(tmp_path, 1, tensorboard=False, wandb="")
        writer.write(2, {"train/loss": 1.0})
        writer.close()
    assert "7 damaged lines are left out, and kept in metrics.jsonl.damaged" in caplog.text
    assert read_metrics(path) == [good[0], {"step": 2, "train/loss": 1.0}]
    kept = (tmp_path / "metrics.jsonl.damaged").read_bytes()
    assert kept.splitlines() == [*bad, b"\0\0"]


def test_checkpoints_without_their_configuration(workdir, tiny, start):
    (workdir / "config.json").unlink()
    with pytest.raises(WorkdirError, match=r"config\.json: missing, though"):
        start(tiny(), workdir)


@pytest.mark.parametrize("name", ["checkpoints", "best", "tensorboard", "metrics.jsonl", ".lock"])
def test_a_file_for_a_folder_or_a_folder_for_a_file(name, tmp_path, tiny, start):
    if "." in name:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("x")
    with pytest.raises((CheckpointError, OSError), match=name):
        start(tiny(tensorboard=True), tmp_path)


def test_a_folder_that_goes_while_it_trains(tmp_path):
    """Orbax waits for ever for a folder that it cannot make in the background."""
    checkpoints = Checkpoints(tmp_path, 3, _weights)
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").write_text("x")
    with pytest.raises(CheckpointError, match=r"checkpoints: a checkpoint could not be written"):
        checkpoints.save(_state(2), empty_batches(), {})
    checkpoints.close()

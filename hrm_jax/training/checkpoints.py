"""Checkpoints of a run: the full state, written in the background, verified when read."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain.checkpoint
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from hrm_jax.paths import path_of
from hrm_jax.tasks.base import State
from hrm_jax.training.processes import agreed, any_of, is_first

log = logging.getLogger("hrm_jax")


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none could be read."""


@jax.jit
def _sums(leaves: list[jax.Array]) -> list[jax.Array]:
    def one(x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        x = x.astype(jnp.uint8) if x.dtype == bool else x
        bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
        place, stride = jnp.zeros((), jnp.uint32), 1  # in the flat array, which is never made whole
        for axis in reversed(range(bits.ndim)):
            along = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
            place = place + along * jnp.uint32(stride % 2**32)
            stride *= bits.shape[axis]
        return jnp.sum(bits.astype(jnp.uint32) * (2 * place + 1), dtype=jnp.uint32)

    return [one(x) for x in leaves]


def fingerprint(tree: Any) -> list[int]:
    """A 32-bit checksum of every array, computed where it lies; the same on any set of devices."""
    return [int(x) for x in jax.device_get(_sums(jax.tree.leaves(tree)))]


def digest(tree: Any) -> str:
    """Tells trees of arrays apart by names, sizes and checksums; "" without any array."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        return ""
    said = [[jax.tree_util.keystr(path), str(x.dtype), list(x.shape)] for path, x in leaves]
    return f"{_text_sum([said, fingerprint(tree)]):08x}"


def _text_sum(value: Any) -> int:
    """A checksum of small JSON values: where the data stand, the loop's progress."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


Weights = Callable[[State], dict[str, Any]]
"""`Task.weights`: what using a model needs, of the arrays of a state."""


def split_state(state: State, weights: Weights) -> tuple[dict[str, Any], dict[str, Any]]:
    """A state's weights, and those of its fields with arrays that are not among them; what is
    frozen is in neither, unless the weights name it."""
    kept = weights(state)
    known = {id(leaf) for leaf in jax.tree.leaves(kept)}
    rest = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name != "frozen"}
    return kept, {
        name: value
        for name, value in rest.items()
        if any(id(leaf) not in known for leaf in jax.tree.leaves(value))
    }


def join_state(template: State, weights: Weights, kept: Any, rest: Mapping[str, Any]) -> State:
    """Inverts `split_state`, for a state with the structure of `template`."""
    leaves = zip(jax.tree.leaves(weights(template)), jax.tree.leaves(kept), strict=True)
    found = {id(leaf): array for leaf, array in leaves}
    others = {
        f.name: jax.tree.map(lambda leaf: found[id(leaf)], getattr(template, f.name))
        for f in dataclasses.fields(template)
        if f.name not in rest and f.name != "frozen"
    }
    return template.replace(**rest, **others)


class Checkpoints:
    """The checkpoints of one workdir: `checkpoints/<step>/` and `best/<step>/`.

    A checkpoint appears under its name only when it is complete. Every array has a checksum, since
    a flipped bit in a stored array would otherwise go unnoticed.
    """

    def __init__(self, workdir: str | os.PathLike[str], keep: int, weights: Weights) -> None:
        """Opens the folders, of which the last `keep` checkpoints stay. Raises `CheckpointError`
        where they cannot be written."""
        self._workdir = path_of(workdir).absolute()
        self._weights = weights
        try:
            self._last, self._best = (
                self._manager(name, most) for name, most in (("checkpoints", keep), ("best", 1))
            )
        except OSError as error:
            raise CheckpointError(f"{self._workdir}: cannot be written: {error}") from error

    def _manager(self, name: str, keep: int) -> ocp.CheckpointManager:
        folder = self._workdir / name
        if is_first():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".writable.", dir=folder):
                pass  # before hours of training
        # Where Orbax cannot make a folder in the background, it waits for it for ever.
        making = ocp.AsyncOptions(create_directories_asynchronously=False)
        # Both managers write a step at once, and processes wait for one another at barriers, which
        # have the same names in both of them but for a prefix.
        waiting = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=name)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, async_options=making, multiprocessing_options=waiting
        )
        return ocp.CheckpointManager(folder, options=options)

    def _save(
        self,
        manager: ocp.CheckpointManager,
        state: State,
        trees: Mapping[str, Any],
        progress: Mapping[str, Any] = {},
        sums: Mapping[str, Any] = {},
        **others: Any,
    ) -> None:
        """Starts writing trees of arrays, JSON values with the checksums of all, and others."""
        step = int(state.step)
        sums = {**{name: fingerprint(tree) for name, tree in trees.items()}, **sums}
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()} | others
        items["progress"] = ocp.args.JsonSave({**progress, "checksums": sums})
        with _writing(manager):
            manager.wait_until_finished()  # a failure of the save before comes up here
            if step not in manager.all_steps(read=False):
                manager.save(step, args=ocp.args.Composite(**items), force=True)

    def save(self, state: State, iterator: Any, progress: Mapping[str, Any]) -> None:
        """Starts writing the full state, the iterator's position and JSON values of the loop;
        returns once the state may be donated. Raises `CheckpointError` where this or the last save
        failed; earlier checkpoints are untouched."""
        weights, rest = split_state(state, self._weights)
        sums = {"data": _text_sum(iterator.get_state()), "progress": _text_sum(dict(progress))}
        position = grain.checkpoint.CheckpointSave(iterator)
        trees = {"weights": weights, "rest": rest}
        self._save(self._last, state, trees, progress, sums, data=position)

    def save_best(self, state: State) -> None:
        """Keeps the weights of `state` as the best ones so far, in place of those before."""
        self._save(self._best, state, {"weights": self._weights(state)})

    def restore(self, template: State, iterator: Any) -> tuple[State, dict[str, Any]] | None:
        """Reads the newest checkpoint that is whole: the state and the loop's JSON values, None if
        there is no checkpoint. Damaged ones are moved to `damaged/`, with a warning.

        `template` has shapes, dtypes and shardings of the state, on any number of devices;
        `iterator` is put into its saved position. Raises `CheckpointError` where there are
        checkpoints, and none is whole; or the machine, not the checkpoint, is at fault.
        """
        weights, rest = split_state(template, self._weights)
        steps = agreed(sorted(self._last.all_steps(), reverse=True))
        for step in steps:
            failure: Exception | None = None
            try:
                found = self._last.restore(
                    step,
                    args=ocp.args.Composite(
                        weights=ocp.args.StandardRestore(weights),
                        rest=ocp.args.StandardRestore(rest),
                        progress=ocp.args.JsonRestore(),
                    ),
                )
                self._restore_data(step, iterator)
                progress = dict(found["progress"])
                sums = progress.pop("checksums")
                actual = {
                    "weights": fingerprint(found["weights"]),
                    "rest": fingerprint(found["rest"]),
                    "data": _text_sum(iterator.get_state()),
                    "progress": _text_sum(progress),
                }
                if wrong := [part for part in actual if actual[part] != sums[part]]:
                    raise ValueError(f"{' and '.join(wrong)} do not match their checksums")
            except Exception as error:  # Orbax, tensorstore and Grain raise all kinds
                failure = error
            damage = 0 if failure is None else 2 if _passing(failure) else 1
            worst = any_of(damage)  # of all processes, which go on together
            if worst == 0:
                parts = (found["weights"], found["rest"])
                return join_state(template, self._weights, *parts), progress
            failure = failure or RuntimeError("in another process")
            if worst == 2:
                raise CheckpointError(
                    f"{self._last.directory / str(step)}: could not be read now: {_line(failure)}"
                ) from failure
            self._set_aside(step, failure)
        if steps:
            raise CheckpointError(
                f"{self._last.directory}: none of the checkpoints {sorted(steps)} can be read; "
                f"they were moved to {self._workdir / 'damaged'}. Start again in another workdir."
            )
        return None

    def _restore_data(self, step: int, iterator: Any) -> None:
        """Takes the position of any process that saved one, for all are alike; Grain itself would
        refuse a checkpoint of another number of processes."""
        folder = pathlib.Path(self._last.directory) / str(step) / "data"
        files = sorted(folder.glob("process_*-of-*.json"))
        if not files:
            raise ValueError(f"{folder}: there is no position of the data")
        iterator.set_state(json.loads(files[0].read_text(encoding="utf-8")))
        iterator.start_prefetch()

    def _set_aside(self, step: int, error: Exception) -> None:
        log.warning(
            "Checkpoint %d is damaged (%s); trying the one before. It is kept in damaged/.",
            step,
            _line(error),
        )
        if is_first():
            target = self._workdir / "damaged" / str(step)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            shutil.move(pathlib.Path(self._last.directory) / str(step), target)
        agreed(None)  # no process looks before it has been moved
        self._last.reload()

    def wait(self) -> None:
        """Waits until everything is on disk; raises `CheckpointError` where a save failed."""
        for manager in (self._last, self._best):
            with _writing(manager):
                manager.wait_until_finished()

    def close(self) -> None:
        with contextlib.ExitStack() as closing:
            for manager in (self._best, self._last):
                closing.callback(manager.close)


@contextlib.contextmanager
def _writing(manager: ocp.CheckpointManager) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Orbax and tensorstore raise all kinds
        folder = pathlib.Path(manager.directory)
        kept = sorted(int(x.name) for x in folder.glob("*") if x.name.isdigit())
        raise CheckpointError(
            f"{folder}: a checkpoint could not be written ({_line(error)}); "
            f"complete ones kept there: {', '.join(map(str, kept)) or 'none'}"
        ) from error


def _line(error: Exception) -> str:
    """What an error says, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:200]} … {text[-100:]}"


def hear_one_error() -> None:
    """Has a failing save say nothing beside the `CheckpointError`, for scripts: the threads of
    Orbax and tensorstore log hundreds of lines of tracebacks."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    usual = sys.unraisablehook

    def hook(args: Any) -> None:
        if str(args.exc_value) != "Event loop is closed":
            usual(args)

    sys.unraisablehook = hook


def _passing(error: Exception) -> bool:
    """Whether a failure says nothing about the checkpoint: no memory, no permission, a bad disk."""
    codes = (errno.EACCES, errno.EPERM, errno.EIO, errno.ENOMEM, errno.EMFILE)
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno in codes)
        or "RESOURCE_EXHAUSTED" in str(error)
    )


def _on_one_device(checkpoint: pathlib.Path) -> Any:
    """Shapes and dtypes of stored weights, for a device of this process: others may be gone."""
    # The handler is asked: a checkpointer warns that an item has no metadata of a whole checkpoint.
    handler = ocp.StandardCheckpointHandler()
    stored = handler.metadata(epath.Path(checkpoint / "weights")).tree
    handler.close()
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), stored)


def load_weights(
    workdir: str | os.PathLike[str], which: str | int = "last"
) -> tuple[dict[str, Any], int]:
    """The weights of a checkpoint ("last", "best" or a step) as numpy arrays, without knowing their
    shapes, and its step. Raises `CheckpointError` where there is none, or a damaged one."""
    folder = path_of(workdir).absolute() / ("best" if which == "best" else "checkpoints")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; is {workdir} the workdir of a run?")
    with ocp.CheckpointManager(folder) as manager:
        steps = sorted(manager.all_steps())
        step = steps[-1] if steps and which in ("last", "best") else which
        if step not in steps:
            kept = ", ".join(map(str, steps)) or "none"
            raise CheckpointError(f"{folder}: no checkpoint {which!r}; there are: {kept}")
        try:
            found = manager.restore(
                int(step),
                args=ocp.args.Composite(
                    weights=ocp.args.StandardRestore(_on_one_device(folder / str(step))),
                    progress=ocp.args.JsonRestore(),
                ),
            )
            if fingerprint(found["weights"]) != found["progress"]["checksums"]["weights"]:
                raise ValueError("the stored arrays do not match their checksums")
        except Exception as error:
            raise CheckpointError(f"{folder / str(step)}: damaged: {_line(error)}") from error
    weights = jax.tree.map(np.asarray, found["weights"])
    if "ema" in weights:  # of version 1, which kept averages apart, and collections without arrays
        averages = weights.pop("ema") or {}
        weights = {name: value for name, value in {**weights, **averages}.items() if value}
    return weights, int(step)

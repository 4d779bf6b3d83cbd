"""A run's folder: its configuration and the identity of its data, checked before anything else."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import logging
import os
import pathlib
import shlex
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict

from hrm_jax.data.errors import reading
from hrm_jax.data.identity import Identity
from hrm_jax.fields import ConfigError, from_mapping, to_mapping, without_effect
from hrm_jax.files import read_json, write_json, write_text, writing
from hrm_jax.paths import path_of
from hrm_jax.tasks import config_class, parse
from hrm_jax.tasks.base import RunConfig
from hrm_jax.training.processes import is_first, require_same

log = logging.getLogger("hrm_jax")

VERSION = 2
"""Of what a run leaves. Since 2 the task says what its weights are, and checkpoints hold these and
the rest of its state; runs of before can be used and started from, but not gone on with."""


_BEAT = 5.0  # seconds between signs of life in the lock
_HELD: set[tuple[pathlib.Path, int]] = set()  # workdirs and the threads that hold them


class WorkdirError(ValueError):
    """The workdir belongs to a run of another configuration or other data, or to one that is still
    running, or is not one."""


@contextlib.contextmanager
def locked(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Makes the workdir, and keeps other runs out of it. The first process has it for all; what has
    it may ask for it again.

    The system takes the lock from a process that ends, however it ends. On a file system whose
    locks do not reach other hosts, a run there is known by the file's time, which changes while it
    lives. Raises `WorkdirError`, which names who has it.
    """
    folder = path_of(workdir)
    mine = (folder.absolute(), threading.get_ident())
    if mine in _HELD or not is_first():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path, me = folder / ".lock", socket.gethostname()
    with writing(path), open(path, "a+", encoding="utf-8", errors="replace") as file:
        _lock(path, file, me)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {me} since {time.strftime('%Y-%m-%d %H:%M:%S %Z')}")
        file.flush()
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(_BEAT):
                with contextlib.suppress(OSError):
                    os.utime(path)

        beating = threading.Thread(target=beat, name="lock", daemon=True)
        beating.start()
        _HELD.add(mine)
        try:
            yield
        finally:
            _HELD.remove(mine)
            ended.set()
            beating.join()
            with contextlib.suppress(OSError):  # it may be gone with its folder
                file.truncate(0)


def _lock(path: pathlib.Path, file: Any, me: str) -> None:
    """Takes the lock, or raises `WorkdirError`."""

    def holder() -> str:
        file.seek(0)
        return file.read(200).strip()

    in_use = WorkdirError(
        f"{path.parent}: in use by another run ({holder()}). Wait until it has ended, stop it, or "
        "take another --workdir."
    )
    mine = f" on {me} since "
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise in_use from None
    except OSError as error:  # this file system has no locks
        log.warning("%s: cannot be locked (%s); start no two runs at once there.", path, error)
        mine = "\n"
    left = holder()
    if not left or mine in left:
        return
    seconds = 4 * _BEAT
    log.info("The workdir was in use (%s); waiting %.0f s for a sign of life.", left, seconds)
    before = _changed(path)
    for _ in range(4):
        time.sleep(_BEAT)
        if _changed(path) != before:
            raise in_use
    log.warning("%s: no sign of life of the run before (%s); going on.", path.parent, left)


def _changed(path: pathlib.Path) -> int:
    """When the lock's holder last gave a sign of life; opened, for other hosts are cached."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _read(path: pathlib.Path) -> tuple[int, dict[str, Any]]:
    """The version and the fields of a stored configuration."""
    with reading(path, "the configuration of a run"):
        values = read_json(path)
    version = values.pop("version", 1)
    if version not in range(1, VERSION + 1):
        raise WorkdirError(
            f"{path}: version: {version!r}; this hrm_jax reads runs of the versions 1 to {VERSION}"
        )
    return version, values


def _completed(stored: Mapping[str, Any], config: RunConfig) -> Mapping[str, Any]:
    """A stored configuration with the defaults of fields that came later."""
    try:
        return json.loads(json.dumps(to_mapping(from_mapping(type(config), stored, preset=stored))))
    except ConfigError:  # one of another task
        return stored


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], free: Sequence[str]) -> list[str]:
    before, now = (flatten_dict(values, sep=".") for values in (old, new))
    return [
        f"config.{name}: {before.get(name)!r} in the workdir, {now.get(name)!r} now"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and name not in free and name.split(".")[0] not in free
    ]


def prepare(workdir: str | os.PathLike[str], config: RunConfig, identity: Identity) -> None:
    """Makes a new workdir, or checks that the run in an existing one is the same. All processes of
    a run call it, and the first one writes.

    Raises:
        WorkdirError: The folder holds a run of another configuration or of other data; names
            the fields that differ.
        ConfigError: Another process has another configuration or other data.
    """
    folder = path_of(workdir)
    now = json.loads(json.dumps(to_mapping(config)))
    path = folder / "config.json"
    if path.exists():
        version, before = _read(path)
        if version != VERSION:
            raise WorkdirError(
                f"{folder}: a run of an earlier version of hrm_jax. It can be loaded, evaluated "
                "and exported, but not gone on with; take another --workdir, and "
                f"--config.init_from={shlex.quote(str(folder))} to start from its weights"
            )
        free = (*config.free, *without_effect(config))
        with reading(path, "the configuration of a run"):
            wrong = _differences(_completed(before, config), now, free)
        stored = read_identity(folder)
        wrong += [f"data {line}" for line in stored.differences(identity)] if stored else []
        if wrong:
            raise WorkdirError(
                f"{folder} holds a run that differs from this one:\n  "
                + "\n  ".join(wrong)
                + "\nTake another --workdir, or the same configuration and data."
            )
    elif any(x.name.isdigit() for x in (folder / "checkpoints").glob("*")):
        raise WorkdirError(
            f"{path}: missing, though the run has checkpoints: whether they are of this "
            "configuration, nothing tells. Take another --workdir"
        )
    require_same("configuration", now)
    require_same("data", identity.to_json())
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "identity.json", identity.to_json() + "\n")
        write_json(path, {"version": VERSION, **now})


def checkpoint(text: str) -> str | int:
    """A checkpoint as it is named on a command line: "last", "best" or a step."""
    return text if text in ("last", "best") else int(text)


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration of a run, without fields that are gone; `WorkdirError` where there is
    none, `ConfigError` or `DataError` where it cannot be used."""
    path = path_of(workdir) / "config.json"
    if not path.exists():
        raise WorkdirError(f"{workdir}: not the workdir of a run (there is no config.json in it)")
    version, values = _read(path)
    with reading(path, "the configuration of a run"):
        try:
            if version < VERSION:
                for name in config_class(values).gone:
                    *groups, field = name.split(".")
                    group = functools.reduce(lambda inner, x: inner.get(x, {}), groups, values)
                    group.pop(field, None)
            values["preset_values"] = {**values}  # whatever stands there was accepted before
            parse(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    return values


def read_identity(workdir: str | os.PathLike[str]) -> Identity | None:
    """What identifies the data of the run in `workdir`; None if it was never written, `DataError`
    where it cannot be read."""
    path = path_of(workdir) / "identity.json"
    if not path.exists():
        return None
    with reading(path, "the identity of a run's data"):
        return Identity.from_json(path.read_text(encoding="utf-8"))

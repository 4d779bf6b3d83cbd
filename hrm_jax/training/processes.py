"""Several processes that train one run, each with its own devices and its own rows of the data.

All of them run the same program. What a process decides from its own clock, its signals or its
floating-point library is agreed upon first, since a collective that one of them does not reach
makes all others wait. Files that are not checkpoints are written by the first process.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from hrm_jax.fields import ConfigError

_FAILED = 3  # exit code
AGAIN = "Start all processes again with the same commands: they go on from the last checkpoint."
_LEAVING: list[Callable[[], None]] = []  # what to do before the process ends


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int = 100,
    start_seconds: int = 300,
) -> None:
    """Joins the processes of a run; to be called before anything else that uses JAX's devices.

    Without arguments SLURM, Open MPI, Kubernetes (an indexed Job or a JobSet) and Cloud TPU are
    asked; else the first process is reached at `coordinator` (host:port, the port free). A process
    that dies ends all others: at once if it was the first, or else once it has not been heard of
    for `heartbeat_seconds`, if a collective does not fail earlier.

    Raises:
        ConfigError: Some but not all of the three are given, or nothing is found by itself.
        RuntimeError: The others cannot be reached within `start_seconds`.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) in (1, 2):
        raise ConfigError(f"--multihost: {' and '.join(missing)} missing; give all three or none")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method="deactivate" if not missing else None,
            initialization_timeout=start_seconds,
            heartbeat_timeout_seconds=heartbeat_seconds,
        )
    except ValueError as error:
        raise ConfigError(
            f"--multihost: {error} Neither SLURM, Open MPI nor Kubernetes was found; give "
            "--coordinator=host:port, --num_processes and --process_id"
        ) from error
    _say_if_killed(heartbeat_seconds)


def _say_if_killed(heartbeat_seconds: int) -> None:
    """Has a line printed if this process dies without getting to say why.

    When another process has died, JAX's coordination service ends this one from a thread of its
    own, in C++. So a shell waits for the end of a pipe, which comes in any case; what it reads
    before that tells whether the process left by itself.
    """
    message = (
        f"error: process {jax.process_index()} of {jax.process_count()} was ended from outside. "
        "The likely reason is that another process had died, or had not been heard of for "
        f"{heartbeat_seconds} s; the lines above may say which. {AGAIN}"
    )
    try:
        watcher = subprocess.Popen(
            ["/bin/sh", "-c", 'trap "" INT TERM; read line || echo "$0" >&2', message],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return  # without a shell there is only what JAX says

    def left() -> None:
        assert watcher.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            watcher.stdin.write(b"left\n")
            watcher.stdin.close()

    _LEAVING.append(left)
    atexit.register(left)


def is_first() -> bool:
    """Whether this process writes files, draws and prints."""
    return jax.process_index() == 0


def leave(code: int = _FAILED, message: str = "") -> NoReturn:
    """Ends this process now, without waiting for the others as JAX does at a normal end."""

    def speak() -> None:
        print(message, end="\n" if message else "", file=sys.stderr, flush=True)
        sys.stdout.flush()

    for last in _LEAVING:
        last()
    speaking = threading.Thread(target=speak, daemon=True)
    speaking.start()
    speaking.join(timeout=5)  # nobody may read what is written
    os._exit(code)


@contextlib.contextmanager
def first_before_others(name: str, seconds: int = 3600) -> Iterator[None]:
    """Lets the first process do something alone, and then all others, who may find it done.

    Each `name` may be used once. Raises `RuntimeError` where the first process has failed, or took
    longer than `seconds`.
    """

    def barrier(first: bool) -> None:
        if jax.process_count() > 1 and is_first() == first:
            ocp.multihost.get_barrier_sync_fn()(key=f"{name}: done", timeout_ms=seconds * 1000)

    barrier(first=False)
    yield
    barrier(first=True)


def agreed(value: Any) -> Any:
    """What the first process has for a JSON value, in all of them."""
    if jax.process_count() == 1:
        return value
    text = json.dumps(value).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = np.zeros(size, np.uint8)
    if is_first():
        buffer[:] = np.frombuffer(text, np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(buffer))))


def any_of(number: int) -> int:
    """The greatest of the numbers that the processes have."""
    if jax.process_count() == 1:
        return number
    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def require_same(what: str, value: Any) -> None:
    """Raises `ConfigError`, which names the processes, unless a JSON value is the same in all."""
    if jax.process_count() == 1:
        return
    checksum = np.uint32(zlib.crc32(json.dumps(value, sort_keys=True).encode()))
    checksums = multihost_utils.process_allgather(checksum).reshape(-1)
    others = np.flatnonzero(checksums != checksums[0])
    if len(others):
        raise ConfigError(f"--multihost: processes {others.tolist()} have another {what} than 0")

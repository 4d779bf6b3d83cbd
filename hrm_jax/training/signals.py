"""Signals that end a run: collected while it trains, and shared by all of its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hrm_jax.compilation import jit

_ENDING = (signal.SIGINT, signal.SIGTERM)


def obey_at_once(leave: Callable[[int], NoReturn]) -> None:
    """Has SIGINT and SIGTERM end this process by `leave(number)`, in any thread, at any moment but
    while they are `collected`, and a second SIGINT then, too. For scripts, in the main thread.

    Python calls handlers only when compiled code has returned, and XLA's compiler can take minutes;
    so a thread waits for what the system's own handler writes into a pipe.
    """
    leaving = threading.Lock()

    def obey(number: int, _: Any = None) -> None:
        if leaving.acquire(blocking=False):
            leave(number)

    def watch() -> None:
        collecting = False
        while True:
            number = os.read(read, 1)[0]
            if signal.getsignal(number) is obey or (collecting and number == signal.SIGINT):
                obey(number)
            collecting = True

    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # the pipe is not its own
    for number in _ENDING:
        signal.signal(number, obey)
    threading.Thread(target=watch, name="signals", daemon=True).start()


@contextlib.contextmanager
def collected() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying; a second SIGINT is obeyed at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def handler(number: int, _: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before = {s: signal.signal(s, handler) for s in _ENDING}
    try:
        yield caught
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class SharedSignal:
    """Tells all processes at the same step that one of them was sent a signal. The question is put
    to the devices with each step, and the answer is read one step later: they never wait for it."""

    def __init__(self, mesh: Mesh, caught: list[int]) -> None:
        self._mesh = mesh  # all devices of all processes
        self._caught = caught
        self._asked: jax.Array | None = None
        self._greatest = jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def after_step(self) -> int:
        """The signal that any process had at the step before, 0 for none."""
        number = self._caught[0] if self._caught else 0
        if jax.process_count() == 1:
            return number
        everywhere = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        rows = np.full(jax.local_device_count(), number, np.int32)
        before = self._asked
        self._asked = self._greatest(jax.make_array_from_process_local_data(everywhere, rows))
        return 0 if before is None else int(before)

"""How this project's programs are compiled."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import backend

log = logging.getLogger("hrm_jax")

# Lets XLA's CPU compiler reorder sums, so that reductions (the norms and their gradients above
# all) use vector instructions. A loss that is infinite or NaN is still seen as such (tested).
_CPU_OPTIONS = {"xla_cpu_enable_fast_math": True}


def jit(function: Callable[..., Any], **kwargs: Any) -> Any:
    """`jax.jit`, with the options that make programs fast on the default backend."""
    if jax.default_backend() == "cpu":
        kwargs["compiler_options"] = _CPU_OPTIONS
    return jax.jit(function, **kwargs)


def hoist_constants(
    function: Callable[..., Any], *args: Any
) -> tuple[Callable[..., Any], list[Any]]:
    """A function g and the arrays that `function` closes over: `g(arrays, *args)` is the same.

    `jax.jit` would write them into the program, and given weights can be gigabytes. Of `args`, only
    shapes and dtypes matter.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)

    def hoisted(arrays: list[Any], *args: Any) -> Any:
        flat = jax.core.eval_jaxpr(closed.jaxpr, arrays, *jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), flat)

    return hoisted, closed.consts


def compile_step(step: Any, *args: Any) -> Any:
    """Compiles a jitted step for these arguments.

    Where the compiled step needs large buffers on a CPU, the process keeps memory it frees from
    then on: each run allocates them anew, and glibc hands blocks above 32 MiB back to the system,
    which costs a step of the paper's model 150,000 page faults.
    """
    compiled = step.lower(*args).compile()
    if jax.default_backend() == "cpu":
        memory = compiled.memory_analysis()
        # JAX 0.11 says 0 of every CPU program.
        if memory is not None and not 0 < memory.temp_size_in_bytes <= 32 * 2**20:
            _keep_freed_memory()
    return compiled


def run_in_main_thread() -> None:
    """Makes JAX run CPU programs in the thread that calls them; for scripts, before JAX starts.

    glibc can keep large blocks only for the main thread (the others' heaps hold 64 MiB), so this
    is what lets `compile_step` save page faults. JAX no longer returns before a program has ended.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def divide_cpu(devices: int) -> None:
    """Starts JAX anew with so many CPU devices, 0 for as they are. Where there is another backend
    it does nothing; it says so and does nothing where arrays or several processes are there, or
    XLA_FLAGS ask for other devices. `ValueError` for less than 0 and more than 256."""
    if not 0 <= devices <= 256:
        raise ValueError(f"devices: expected 0 to 256 of a CPU, got {devices}")
    there = jax.local_device_count()
    if jax.default_backend() != "cpu" or devices in (0, there):
        return
    flag = "xla_force_host_platform_device_count"
    if jax.process_count() > 1 or jax.live_arrays() or flag in os.environ.get("XLA_FLAGS", ""):
        log.info("JAX has %d CPU devices already, not the %d asked for.", there, devices)
        return
    backend.clear_backends()
    jax.config.update("jax_num_cpu_devices", devices)


def _keep_freed_memory() -> None:
    """Makes glibc keep what is freed in the main heap, large blocks too; elsewhere does nothing."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_max = -1, -4  # malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)

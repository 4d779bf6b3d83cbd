"""How this project's programs are compiled."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import jax

# Lets XLA's CPU compiler reorder sums, so that reductions (the norms and their gradients above
# all) use vector instructions. A loss that is infinite or NaN is still seen as such (tested).
_CPU_OPTIONS = {"xla_cpu_enable_fast_math": True}


def jit(function: Callable[..., Any], **kwargs: Any) -> Any:
    """`jax.jit`, with the options that make programs fast on the default backend."""
    if jax.default_backend() == "cpu":
        kwargs["compiler_options"] = _CPU_OPTIONS
    return jax.jit(function, **kwargs)


def keep_freed_memory() -> None:
    """Makes this process keep the memory it frees; for scripts, before they compute anything.

    On the CPU each run of a program allocates its buffers anew, hundreds of megabytes for a large
    model, and glibc hands them back to the system afterwards: a training step of the paper's model
    then has 150,000 page faults. With this it has none. The process stays at its largest size, and
    threads take turns in one heap: a small model, as in the laptop preset, gets a third slower.
    To be called before JAX starts its threads. Does nothing where the C library is not glibc.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # malloc.h
    mallopt(arena_max, 1)  # only the main heap can grow without mmap
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)

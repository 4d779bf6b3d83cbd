"""What the compiled parts of the data room share: how they are compiled, and their randomness.

Other compiled functions that call each other stand in one file, because numba's cache looks only
at the file of the function that is called. `draw` must not change anyway: all generated puzzles
depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles with numba, to run beside other threads, and keeps that on disk where it can."""
    try:
        return numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # numba: "no locator available": neither __pycache__ nor the user's cache
        return numba.njit(function, nogil=True)


@compiled
def draw(state: np.ndarray, n: int) -> np.int64:
    """Draws from {0, …, n - 1} and advances `state`, uint64 [1] (SplitMix64: same everywhere)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.int64(((z >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))

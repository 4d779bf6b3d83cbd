"""How this project's programs are compiled."""

from __future__ import annotations

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

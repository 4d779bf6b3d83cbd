"""Float64 within a step, where JAX has it switched off.

A balanced pole doubles an error every nine steps: in float32 the same actions lead 0.2 away from
where they do in gymnasium, after two hundred. So physics is computed in float64, as there, and what
is kept from step to step is a pair of float32: the number rounded, which is seen, and the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Float64

Pair = Float32[Array, "2 N"]


def pair(numbers: Float32[Array, " N"]) -> Pair:
    """Numbers that float32 holds."""
    return jnp.stack([numbers, jnp.zeros_like(numbers)])


def in_float64(rule: Callable[..., Float64[Array, " N"]], numbers: Pair, *arguments: Any) -> Pair:
    """Applies `rule` to the numbers, and to arguments as they are."""
    with jax.enable_x64(True):
        result = rule(numbers.astype(jnp.float64).sum(0), *arguments)
        # A conversion there and back may be optimized away, this may not.
        rounded = jax.lax.reduce_precision(result, exponent_bits=8, mantissa_bits=23)
        return jnp.stack([rounded, result - rounded]).astype(jnp.float32)

"""Normalisation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rms_norm(x: Float[Array, "... D"], eps: float) -> Float[Array, "... D"]:
    """x / √(mean(x²) + eps) over the last axis, without a learnt scale, computed in float32.

    References:
        Zhang and Sennrich (https://arxiv.org/abs/1910.07467), eq. 4 with g = 1.
    """
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(mean_square + eps)).astype(x.dtype)

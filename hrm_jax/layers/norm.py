"""Normalisation over the last axis, computed in float32."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float


def norm(kind: Literal["layer", "rms"], eps: float, dtype: Dtype, name: str | None) -> nn.Module:
    """A norm that is learnt: "layer" has a scale and a bias (Ba et al.,
    https://arxiv.org/abs/1607.06450, eq. 4), "rms" is `rms_norm` with a scale."""
    module = nn.LayerNorm if kind == "layer" else nn.RMSNorm
    return module(epsilon=eps, dtype=dtype, name=name)


def rms_norm(x: Float[Array, "... D"], eps: float) -> Float[Array, "... D"]:
    """x / √(mean(x²) + eps), of which nothing is learnt: Zhang and Sennrich
    (https://arxiv.org/abs/1910.07467), eq. 4 with g = 1."""
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(mean_square + eps)).astype(x.dtype)

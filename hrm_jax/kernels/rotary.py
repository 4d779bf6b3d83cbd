"""Rotary position encoding."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Rotary = tuple[Float[Array | np.ndarray, "*R S C"], Float[Array | np.ndarray, "*R S C"]]
"""Cosines and sines of each position, the same for the whole batch or not."""


def rotary_tables(length: int, head_dim: int, theta: float) -> Rotary:
    """Cosines and sines for positions 0..length-1, float32, each half of the last axis repeated.

    The size C of a head is even; theta is the base of the wavelengths.

    References:
        Su et al., RoFormer, §3.2.2 (https://arxiv.org/abs/2104.09864), in the "rotate half" form.
    """
    frequencies = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    angles = np.outer(np.arange(length, dtype=np.float32), frequencies.astype(np.float32))
    angles = np.concatenate([angles, angles], axis=-1)
    return np.cos(angles), np.sin(angles)


def apply_rotary(
    x: Float[Array, "B S H C"],
    cos: Float[Array | np.ndarray, "*B S C"],
    sin: Float[Array | np.ndarray, "*B S C"],
) -> Float[Array, "B S H C"]:
    """Turns queries or keys by the angles of their positions (`Rotary`); computed in float32."""
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([-right, left], axis=-1)
    return (x * cos[..., None, :] + turned * sin[..., None, :]).astype(x.dtype)

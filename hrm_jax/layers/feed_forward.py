"""Feed-forward layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from hrm_jax.layers.initializers import lecun_truncated_normal


def swiglu_width(hidden_size: int, expansion: float) -> int:
    """Inner width F: expansion·D·2/3, rounded, then rounded up to a multiple of 256."""
    return -(-round(expansion * hidden_size * 2 / 3) // 256) * 256


class SwiGLU(nn.Module):
    """W_down(silu(g) · u) with [g; u] = W_gate_up x, no bias.

    Attributes:
        width: Inner width F.
        dtype: Computation dtype; parameters are float32.

    References:
        Shazeer, GLU Variants Improve Transformer (https://arxiv.org/abs/2002.05202), eq. 6.
    """

    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*B S D"]) -> Float[Array, "*B S D"]:
        dense = nn.Dense(
            2 * self.width,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=lecun_truncated_normal,
            name="gate_up_proj",
        )
        gate, up = jnp.split(dense(x), 2, axis=-1)
        return nn.Dense(
            x.shape[-1],
            use_bias=False,
            dtype=self.dtype,
            kernel_init=lecun_truncated_normal,
            name="down_proj",
        )(jax.nn.silu(gate) * up)

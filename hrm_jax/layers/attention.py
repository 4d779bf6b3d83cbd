"""Multi-head self-attention."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from hrm_jax.kernels.attention import attention
from hrm_jax.layers.initializers import lecun_truncated_normal
from hrm_jax.layers.rotary import apply_rotary

RotaryTables = tuple[Float[np.ndarray, "S C"], Float[np.ndarray, "S C"]]


class SelfAttention(nn.Module):
    """Self-attention over all positions, without mask or bias; q, k and v from one matrix.

    Attributes:
        num_heads: H; the head size is C = D / H.
        dtype: Computation dtype; parameters are float32.
    """

    num_heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B S D"], rotary: RotaryTables | None = None
    ) -> Float[Array, "B S D"]:
        """Args: x: activations; rotary: cosines and sines [S, C] for q and k, or None."""
        batch, length, hidden = x.shape
        head_dim = hidden // self.num_heads
        qkv = nn.Dense(
            3 * hidden,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=lecun_truncated_normal,
            name="qkv_proj",
        )(x)
        qkv = qkv.reshape(batch, length, 3, self.num_heads, head_dim)
        q, k, v = (qkv[:, :, i] for i in range(3))  # each [B, S, H, C]
        if rotary is not None:
            q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
        mixed = jnp.swapaxes(attention(q, k, v), 1, 2).reshape(batch, length, hidden)
        return nn.Dense(
            hidden,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=lecun_truncated_normal,
            name="o_proj",
        )(mixed)

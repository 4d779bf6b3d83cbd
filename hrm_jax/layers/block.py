"""The post-norm Transformer block of HRM, and a stack of them."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from hrm_jax.layers.attention import RotaryTables, SelfAttention
from hrm_jax.layers.feed_forward import SwiGLU
from hrm_jax.layers.norm import rms_norm


class PostNormBlock(nn.Module):
    """x ← RMS(x + Attention(x)); x ← RMS(x + SwiGLU(x)).

    Attributes:
        num_heads: Attention heads H.
        width: Inner width F of the feed-forward layer.
        eps: Added to the mean square in both norms.
        dtype: Computation dtype; parameters are float32.
    """

    num_heads: int
    width: int
    eps: float = 1e-5
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        self.self_attn = SelfAttention(self.num_heads, self.dtype)
        self.mlp = SwiGLU(self.width, self.dtype)

    def __call__(
        self, x: Float[Array, "B S D"], rotary: RotaryTables | None
    ) -> Float[Array, "B S D"]:
        x = rms_norm(x + self.self_attn(x, rotary), self.eps)
        return rms_norm(x + self.mlp(x), self.eps)


class ReasoningModule(nn.Module):
    """One recurrent module: adds what is injected to its state, then runs its blocks.

    Attributes:
        num_layers: Number N of blocks.
        num_heads, width, eps, dtype: As in `PostNormBlock`.
    """

    num_layers: int
    num_heads: int
    width: int
    eps: float = 1e-5
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        self.layers = [
            PostNormBlock(self.num_heads, self.width, self.eps, self.dtype)
            for _ in range(self.num_layers)
        ]

    def __call__(
        self,
        z: Float[Array, "B S D"],
        injection: Float[Array, "B S D"],
        rotary: RotaryTables | None,
    ) -> Float[Array, "B S D"]:
        x = z + injection
        for layer in self.layers:
            x = layer(x, rotary)
        return x

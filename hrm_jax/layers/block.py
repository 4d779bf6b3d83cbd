"""The post-norm block of HRM and TRM, and a stack of them."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from hrm_jax.kernels.attention import Engine
from hrm_jax.kernels.rotary import RotaryTables
from hrm_jax.layers.attention import SelfAttention
from hrm_jax.layers.feed_forward import SwiGLU
from hrm_jax.layers.norm import rms_norm


class PostNormBlock(nn.Module):
    """x ← RMS(x + Attention(x)); x ← RMS(x + SwiGLU(x)).

    TRM's other kind has a SwiGLU over the positions instead of attention, the same for each
    channel; RMS is then the mean over positions too.

    Attributes:
        num_heads: Attention heads H.
        width: Inner width F of the feed-forward layer.
        eps: Added to the mean square in both norms.
        dtype: Computation dtype; parameters are float32.
        positions_width: Inner width of the layer over positions; 0 takes attention.
        engine: As `impl` of `hrm_jax.kernels.attention.attention`.

    References:
        Jolicoeur-Martineau (https://arxiv.org/abs/2510.04871), §4.5, for the layer over positions.
    """

    num_heads: int
    width: int
    eps: float = 1e-5
    dtype: Dtype = jnp.float32
    positions_width: int = 0
    engine: Engine = "auto"

    def setup(self) -> None:
        if self.positions_width:
            self.mlp_t = SwiGLU(self.positions_width, self.dtype)
        else:
            self.self_attn = SelfAttention(self.num_heads, self.dtype, self.engine)
        self.mlp = SwiGLU(self.width, self.dtype)

    def __call__(
        self, x: Float[Array, "B S D"], rotary: RotaryTables | None
    ) -> Float[Array, "B S D"]:
        if self.positions_width:
            channels = jnp.swapaxes(x, 1, 2)
            channels = rms_norm(channels + self.mlp_t(channels), self.eps)
            x = jnp.swapaxes(channels, 1, 2)
        else:
            x = rms_norm(x + self.self_attn(x, rotary), self.eps)
        return rms_norm(x + self.mlp(x), self.eps)


class ReasoningModule(nn.Module):
    """One recurrent module: adds what is injected to its state, then runs its blocks.

    Attributes:
        num_layers: Number N of blocks.
        num_heads, width, eps, dtype, positions_width, engine: As in `PostNormBlock`.
    """

    num_layers: int
    num_heads: int
    width: int
    eps: float = 1e-5
    dtype: Dtype = jnp.float32
    positions_width: int = 0
    engine: Engine = "auto"

    def setup(self) -> None:
        self.layers = [
            PostNormBlock(
                self.num_heads, self.width, self.eps, self.dtype, self.positions_width, self.engine
            )
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

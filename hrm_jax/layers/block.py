"""The post-norm block of the recurrent networks, and a stack of them."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from hrm_jax.layers.feed_forward import FeedForward
from hrm_jax.layers.norm import rms_norm


class PostNormBlock(nn.Module):
    """x ← RMS(x + Mixer(x)); x ← RMS(x + SwiGLU(x)).

    The mixer, by which positions see one another, is a function of x that makes its layers in the
    block. It and the norm behind it work along `axis` of x, which is the last for them.
    """

    mixer: Callable[[Array], Array]
    width: int
    axis: int = -1
    eps: float = 1e-5
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        x = jnp.swapaxes(x, self.axis, -1)
        x = jnp.swapaxes(rms_norm(x + self.mixer(x), self.eps), self.axis, -1)
        mlp = FeedForward("fused_swiglu", self.width, dtype=self.dtype, name="mlp")
        return rms_norm(x + mlp(x), self.eps)


class ReasoningModule(nn.Module):
    """One recurrent module: adds what is injected to its state, then runs its blocks."""

    num_layers: int
    block: Callable[[], nn.Module]

    def setup(self) -> None:
        self.layers = [self.block() for _ in range(self.num_layers)]

    def __call__(
        self, z: Float[Array, "B S D"], injection: Float[Array, "B S D"]
    ) -> Float[Array, "B S D"]:
        x = z + injection
        for layer in self.layers:
            x = layer(x)
        return x

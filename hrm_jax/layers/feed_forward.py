"""Feed-forward layers."""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float

from hrm_jax.layers.initializers import lecun_truncated_normal


def swiglu_width(hidden_size: int, expansion: float, multiple: int) -> int:
    """Inner width F: expansion·D·2/3, rounded, then rounded up to a multiple."""
    return -(-round(expansion * hidden_size * 2 / 3) // multiple) * multiple


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


class FeedForward(nn.Module):
    """W_down act(W_up x), or gated: W_down(act(W_gate x) · W_up x).

    Attributes:
        kind: "relu", "gelu" (GPT-2's tanh form), or gated: "geglu" (exact GELU), "swiglu".
        width: Inner width F.
        bias: Whether the layers have biases.
        down_init: Initialiser of the last layer, `kernel_init` that of the others.
        dtype: Computation dtype; parameters are float32.

    References:
        Shazeer, GLU Variants Improve Transformer (https://arxiv.org/abs/2002.05202), eq. 5 and 6;
        Hendrycks and Gimpel, GELU (https://arxiv.org/abs/1606.08415), §2.
    """

    kind: Literal["relu", "gelu", "geglu", "swiglu"]
    width: int
    bias: bool
    kernel_init: Initializer
    down_init: Initializer
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        def dense(size: int, name: str, init: Initializer) -> nn.Dense:
            return nn.Dense(size, use_bias=self.bias, dtype=self.dtype, kernel_init=init, name=name)

        up = dense(self.width, "up_proj", self.kernel_init)(x)
        if self.kind in ("relu", "gelu"):
            up = jax.nn.relu(up) if self.kind == "relu" else jax.nn.gelu(up, approximate=True)
        else:
            gate = dense(self.width, "gate_proj", self.kernel_init)(x)
            act = jax.nn.silu if self.kind == "swiglu" else partial(jax.nn.gelu, approximate=False)
            up = act(gate) * up
        return dense(x.shape[-1], "down_proj", self.down_init)(up)

"""Feed-forward layers."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float

from hrm_jax.layers.dense import Dense
from hrm_jax.layers.initializers import lecun_truncated_normal


def swiglu_width(hidden_size: int, expansion: float, multiple: int) -> int:
    """Inner width F: expansion·D·2/3, rounded, then rounded up to a multiple."""
    return -(-round(expansion * hidden_size * 2 / 3) // multiple) * multiple


@jax.custom_vjp
def gated_silu(gate_up: Float[Array, "*B W"]) -> Float[Array, "*B F"]:
    """silu(g) · u of g and u side by side, as one product has left them.

    Its gradient is not autodiff's sum of two padded halves, which on a GPU is several passes over
    memory instead of one.
    """
    gate, up = jnp.split(gate_up, 2, axis=-1)
    return jax.nn.silu(gate) * up


def _gradient_by_halves(
    gate_up: Float[Array, "*B W"], outer: Float[Array, "*B F"]
) -> Float[Array, "*B W"]:
    gate, up = jnp.split(gate_up, 2, axis=-1)
    share = jax.nn.sigmoid(gate)
    silu = gate * share
    d_gate, d_up = outer * up * (share + silu * (1 - share)), outer * silu
    return jnp.concatenate([d_gate, d_up], axis=-1)


def _gradient_in_one_pass(
    gate_up: Float[Array, "*B W"], outer: Float[Array, "*B F"]
) -> Float[Array, "*B W"]:
    """The same as one expression of the whole, where XLA's GPU compiler would write three arrays.

    It twice computes what both halves need, which a GPU has time for and a CPU has not.
    """
    halves = gate_up.reshape(*gate_up.shape[:-1], 2, -1)
    others, of_gate = jnp.flip(halves, axis=-2), jnp.arange(2)[:, None] == 0
    gate, up = jnp.where(of_gate, halves, others), jnp.where(of_gate, others, halves)
    share = jax.nn.sigmoid(gate)
    silu = gate * share
    factor = jnp.where(of_gate, up * (share + silu * (1 - share)), silu)
    return (outer[..., None, :] * factor).reshape(gate_up.shape)


def _gated_silu_gradient(
    gate_up: Float[Array, "*B W"], gradient: Float[Array, "*B F"]
) -> tuple[Float[Array, "*B W"]]:
    found = jax.lax.platform_dependent(
        gate_up.astype(jnp.float32),
        gradient.astype(jnp.float32),
        cuda=_gradient_in_one_pass,
        default=_gradient_by_halves,
    )
    return (found.astype(gate_up.dtype),)


gated_silu.defvjp(lambda gate_up: (gated_silu(gate_up), gate_up), _gated_silu_gradient)


class FeedForward(nn.Module):
    """W_down act(W_up x), or gated: W_down(act(W_gate x) · W_up x).

    Attributes:
        kind: "relu", "gelu" (GPT-2's tanh form), or gated: "geglu" (exact GELU), "swiglu", and
            "fused_swiglu", which has [W_gate; W_up] in one product, `gate_up_proj`.
        dtype: Computation dtype; parameters are float32.

    References:
        Shazeer, GLU Variants Improve Transformer (https://arxiv.org/abs/2002.05202), eq. 5 and 6;
        Hendrycks and Gimpel, GELU (https://arxiv.org/abs/1606.08415), §2.
    """

    kind: Literal["relu", "gelu", "geglu", "swiglu", "fused_swiglu"]
    width: int
    bias: bool = False
    kernel_init: Initializer = lecun_truncated_normal
    down_init: Initializer = lecun_truncated_normal
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*B S D"]) -> Float[Array, "*B S D"]:
        def dense(size: int, name: str, init: Initializer = self.kernel_init) -> Dense:
            source = "" if name == "down_proj" else "x"
            options: Any = {"use_bias": self.bias, "dtype": self.dtype, "source": source}
            return Dense(size, kernel_init=init, name=name, **options)

        if self.kind == "fused_swiglu":
            inner = gated_silu(dense(2 * self.width, "gate_up_proj")(x))
        elif self.kind in ("relu", "gelu"):
            up = dense(self.width, "up_proj")(x)
            inner = jax.nn.relu(up) if self.kind == "relu" else jax.nn.gelu(up, approximate=True)
        else:
            act = jax.nn.silu if self.kind == "swiglu" else partial(jax.nn.gelu, approximate=False)
            up = dense(self.width, "up_proj")(x)
            inner = act(dense(self.width, "gate_proj")(x)) * up
        return dense(x.shape[-1], "down_proj", self.down_init)(inner)

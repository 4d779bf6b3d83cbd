"""Multi-head self-attention."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Bool, Float, Int

from hrm_jax.kernels.attention import Engine, attention, masked_attention, self_attention
from hrm_jax.kernels.rotary import RotaryTables, apply_rotary
from hrm_jax.layers.initializers import lecun_truncated_normal

LayerCache = tuple[Float[Array, "B K L C"], Float[Array, "B K L C"]]
"""Keys and values of one layer, with room for L positions."""


class SelfAttention(nn.Module):
    """Self-attention over all positions, without mask or bias; q, k and v from one matrix.

    Attributes:
        num_heads: H; the head size is C = D / H.
        dtype: Computation dtype; parameters are float32.
        engine: As `impl` of `hrm_jax.kernels.attention.attention`.
    """

    num_heads: int
    dtype: Dtype = jnp.float32
    engine: Engine = "auto"

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
        mixed = self_attention(qkv, rotary, impl=self.engine).reshape(batch, length, hidden)
        return nn.Dense(
            hidden,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=lecun_truncated_normal,
            name="o_proj",
        )(mixed)


class CachedAttention(nn.Module):
    """Self-attention with grouped heads, and keys and values of earlier calls.

    Attributes:
        num_heads: Query heads H.
        num_kv_heads: Key and value heads K; divides H.
        head_dim: Size C of a head.
        bias: Whether the layers have biases.
        causal: Whether, without a cache, a position sees only those up to itself.
        kernel_init, out_init: Initialisers of q, k, v and of the output layer.
        dtype: Computation dtype; parameters are float32.
        engine: Of attention without a cache: `impl` of `hrm_jax.kernels.attention.attention`.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    bias: bool
    causal: bool
    kernel_init: Initializer
    out_init: Initializer
    dtype: Dtype = jnp.float32
    engine: Engine = "auto"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S D"],
        rotary: tuple[Float[Array, "*R S C"], Float[Array, "*R S C"]] | None = None,
        lengths: Int[Array, " B"] | None = None,
        cache: LayerCache | None = None,
        start: Int[Array, " B"] | None = None,
        mask: Bool[Array, "B S T"] | None = None,
    ) -> tuple[Float[Array, "B S D"], LayerCache | None]:
        """Attends to the positions given, and to those in the cache.

        Args:
            x: Activations.
            rotary: Cosines and sines for q and k at their positions.
            lengths: Without a cache: valid positions of each row; None takes all.
            cache: Keys and values, or None. With it go the two that follow.
            start: Place in the cache of each row's first position; no row may run over its end.
            mask: Which positions of the cache a query sees; T is how many of them, from the first
                on, are to be looked at.

        Returns:
            Activations, and the cache with this call's keys and values in it.
        """
        batch, length, hidden = x.shape

        def project(heads: int, name: str) -> Float[Array, "B S H C"]:
            dense = nn.Dense(
                heads * self.head_dim,
                use_bias=self.bias,
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                name=name,
            )
            return dense(x).reshape(batch, length, heads, self.head_dim)

        q = project(self.num_heads, "q_proj")
        k = project(self.num_kv_heads, "k_proj")
        v = project(self.num_kv_heads, "v_proj")
        if rotary is not None:
            q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
        if cache is None:
            mixed = attention(q, k, v, causal=self.causal, lengths=lengths, impl=self.engine)
        else:
            assert start is not None
            assert mask is not None
            q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
            cache = (_write(cache[0], k, start), _write(cache[1], v, start))
            k, v = (x[:, :, : mask.shape[-1]].astype(q.dtype) for x in cache)
            mixed = jnp.swapaxes(masked_attention(q, k, v, mask), 1, 2)
        out = nn.Dense(
            hidden,
            use_bias=self.bias,
            dtype=self.dtype,
            kernel_init=self.out_init,
            name="o_proj",
        )(mixed.reshape(batch, length, self.num_heads * self.head_dim))
        return out, cache


def _write(
    cache: Float[Array, "B K L C"], new: Float[Array, "B K S C"], start: Int[Array, " B"]
) -> Float[Array, "B K L C"]:
    """Puts `new` at each row's place."""
    new = new.astype(cache.dtype)
    return jax.vmap(lambda row, x, at: jax.lax.dynamic_update_slice(row, x, (0, at, 0)))(
        cache, new, start
    )

"""Multi-head self-attention."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from hrm_jax.kernels.attention import Engine, attention, masked_attention, seen, self_attention
from hrm_jax.kernels.rotary import Rotary, apply_rotary
from hrm_jax.layers.dense import Dense
from hrm_jax.layers.initializers import lecun_truncated_normal
from hrm_jax.layers.norm import norm

HEADS = "heads"
"""The axis of the mesh around (`jax.set_mesh`) that divides heads, where there is one."""

LayerCache = tuple[Float[Array, "B K L C"], Float[Array, "B K L C"]]
"""Keys and values of one layer, with room for L positions."""


class Attention(nn.Module):
    """Self-attention, alone or together with keys and values of earlier calls. Where the collection
    "heads" is mutable, `queries_and_keys` are sown there, [B, S, H, C] and [B, S, K, C].

    Attributes:
        num_kv_heads: Key and value heads K; divides the query heads H. 0 takes H.
        head_dim: Size C of a head; 0 takes D / H.
        fused: Whether q, k and v are one product, `qkv_proj`, for attention of all positions to
            all; else three.
        bias: Whether projections have biases: all, none, or those of q, k and v ("qkv").
        qk_norm: Whether queries and keys are RMS-normalized, each head by itself with one learnt
            scale for all, before they are turned (Qwen3).
        window: With `causal`, how many positions each sees at most, its own among them; 0 is all.
        dtype: Computation dtype; parameters are float32.
        engine: Of attention without a cache: `impl` of `hrm_jax.kernels.attention.attention`.
    """

    size: int
    num_heads: int
    num_kv_heads: int = 0
    head_dim: int = 0
    fused: bool = False
    bias: bool | Literal["qkv"] = False
    causal: bool = False
    window: int = 0
    qk_norm: bool = False
    norm_eps: float = 1e-6
    kernel_init: Initializer = lecun_truncated_normal
    out_init: Initializer = lecun_truncated_normal
    dtype: Dtype = jnp.float32
    engine: Engine = "auto"

    def setup(self) -> None:
        def dense(
            size: int, init: Initializer, source: str = "", bias: bool = bool(self.bias)
        ) -> Dense:
            return Dense(size, use_bias=bias, dtype=self.dtype, kernel_init=init, source=source)

        head_dim = self.head_dim or self.size // self.num_heads
        key_size = (self.num_kv_heads or self.num_heads) * head_dim
        if self.fused:
            self.qkv_proj = dense(3 * self.size, self.kernel_init)
        else:
            self.q_proj = dense(self.num_heads * head_dim, self.kernel_init, "x")
            self.k_proj = dense(key_size, self.kernel_init, "x")
            self.v_proj = dense(key_size, self.kernel_init, "x")
        self.o_proj = dense(self.size, self.out_init, bias=self.bias is True)
        if self.qk_norm:
            self.q_norm = norm("rms", self.norm_eps, self.dtype, None)
            self.k_norm = norm("rms", self.norm_eps, self.dtype, None)

    def __call__(
        self,
        x: Float[Array, "B S D"],
        rotary: Rotary | None = None,
        lengths: Int[Array, " B"] | None = None,
        segments: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B S D"]:
        """Attends to the positions given, of which the first `lengths` of a row are valid, and each
        sees those of its own segment alone."""
        if self.fused:
            assert lengths is None
            assert segments is None
            assert not self.causal
            assert not self.qk_norm
            qkv = self.qkv_proj(x).reshape(*x.shape[:2], 3, self.num_heads, -1)
            mixed = self_attention(qkv, rotary, impl=self.engine)
        else:
            q, k, v = self._heads(x, rotary)
            mixed = attention(
                q, k, v,
                causal=self.causal, lengths=lengths, window=self.window, segments=segments,
                impl=self.engine,
            )  # fmt: skip
        return self.o_proj(mixed.reshape(*x.shape[:2], -1))

    def cached(
        self,
        x: Float[Array, "B S D"],
        rotary: Rotary | None,
        cache: LayerCache,
        start: Int[Array, " B"],
        mask: Bool[Array, "B S T"],
    ) -> tuple[Float[Array, "B S D"], LayerCache]:
        """Attends to the positions given and to those in the cache, into which they are put from
        `start` on; no row may run over its end.

        The mask says which of the first T positions of the cache, the only ones that are looked at,
        a query sees, but for the `window`.
        """
        q, k, v = (jnp.swapaxes(x, 1, 2) for x in self._heads(x, rotary))
        if self.window:
            positions = start[:, None] + jnp.arange(x.shape[1])
            mask = mask & seen(positions, mask.shape[-1], self.window)
        cache = (_write(cache[0], k, start), _write(cache[1], v, start))
        k, v = (x[:, :, : mask.shape[-1]].astype(q.dtype) for x in cache)
        mixed = jnp.swapaxes(masked_attention(q, k, v, mask), 1, 2)
        return self.o_proj(mixed.reshape(*x.shape[:2], -1)), cache

    def _heads(self, x: Float[Array, "B S D"], rotary: Rotary | None) -> tuple[Array, Array, Array]:
        key_heads = self.num_kv_heads or self.num_heads
        q = self.q_proj(x).reshape(*x.shape[:2], self.num_heads, -1)
        k, v = (f(x).reshape(*x.shape[:2], key_heads, -1) for f in (self.k_proj, self.v_proj))
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
        self.sow("heads", "queries_and_keys", (q, k))
        return q, k, v


def _write(
    cache: Float[Array, "B K L C"], new: Float[Array, "B K S C"], start: Int[Array, " B"]
) -> Float[Array, "B K L C"]:
    """Puts `new` at each row's place."""
    new = new.astype(cache.dtype)
    if len(cache) > 1:
        return jax.vmap(lambda row, x, at: jax.lax.dynamic_update_slice(row, x, (0, at, 0)))(
            cache, new, start
        )

    def scatter(cache: Array, new: Array, start: Array) -> Array:
        # XLA, on a CPU and in a loop, would update a slice of one row in a copy.
        places = start[0] + jnp.arange(new.shape[2])
        return cache.at[:, jnp.arange(new.shape[1])[:, None], places].set(new, mode="drop")

    if HEADS in jax.sharding.get_abstract_mesh().axis_names:
        # What is scattered by numbers of heads would be gathered from all devices.
        heads = PartitionSpec(None, HEADS)
        scatter = jax.shard_map(scatter, in_specs=(heads, heads, PartitionSpec()), out_specs=heads)
    return scatter(cache, new, start)

"""A decoder Transformer whose configuration makes it a Transformer RLM, GPT-2, Llama, Mistral or
Qwen.

References:
    Vaswani et al. (https://arxiv.org/abs/1706.03762); Radford et al., Language Models are
    Unsupervised Multitask Learners (GPT-2, 2019); Touvron et al., LLaMA
    (https://arxiv.org/abs/2302.13971) and Llama 2 (https://arxiv.org/abs/2307.09288) for grouped
    heads; Jiang et al., Mistral (https://arxiv.org/abs/2310.06825) for the sliding window; Yang et
    al., Qwen3 (https://arxiv.org/abs/2505.09388) for norms of queries and keys; Xiong et al.
    (https://arxiv.org/abs/2002.04745) for norms before the layers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from hrm_jax.fields import require, require_fields, require_range
from hrm_jax.kernels.attention import Engine, seen
from hrm_jax.kernels.rotary import RopeScaling, Rotary, rotary_at, rotary_frequencies
from hrm_jax.layers.attention import Attention, LayerCache
from hrm_jax.layers.dense import LORA, Dense
from hrm_jax.layers.feed_forward import FeedForward
from hrm_jax.layers.norm import norm

Cache = Any
"""Keys and values of all layers, a pytree: a tuple with a `LayerCache` for each layer, or one whose
arrays have the layers as first axis, where the layers are scanned."""


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
    """Sizes and kinds that all language models have.

    Attributes:
        vocab_size: V.
        hidden_size: D.
        num_heads: Query heads H.
        ffn_size: Inner width F of the feed-forward layers.
        max_length: Most positions.
        positions: How positions are known: "sinusoidal" and "learned" are added to the embeddings,
            "rotary" turns queries and keys.
        feed_forward: Kind of the feed-forward layers, see `FeedForward`.
        tie_head: Whether the head is the transposed embedding.
        dropout: Probability with which activations are dropped in training, after the embeddings
            and after each layer.
        init_std: Standard deviation of initial weights; that of the layers whose output is added
            to the residual stream is divided by √(2N), as in GPT-2.
        scan_layers: Whether the layers are one `lax.scan`, so that compiling takes as long as for
            one layer; their parameters then have the layers as first axis (see `stack_layers`).
        remat: Whether activations inside a layer are computed again in the backward pass.
        dtype: Computation dtype; parameters are float32.
        attention: What computes attention without a cache: `impl` of
            `hrm_jax.kernels.attention.attention`.
    """

    vocab_size: int = 260
    hidden_size: int = 512
    num_heads: int = 8
    ffn_size: int = 2048
    max_length: int = 8192
    positions: Literal["sinusoidal", "learned", "rotary"] = "sinusoidal"
    feed_forward: Literal["relu", "gelu", "geglu", "swiglu"] = "relu"
    tie_head: bool = False
    dropout: float = 0.1
    init_std: float = 0.02
    scan_layers: bool = False
    remat: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Engine = "auto"

    @property
    def weight_bytes(self) -> int:
        """What the parameters take, float32, and the table of sinusoidal positions."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class TransformerConfig(LanguageModelConfig):
    """A `LanguageModelConfig`; the defaults are those of the Transformer RLM.

    Attributes:
        num_layers: N.
        num_kv_heads: Key and value heads K; 0 takes as many as query heads.
        head_dim: Size C of a head; 0 takes D / H.
        rope_theta: Base of the rotary wavelengths.
        rope_scaling: How these are stretched. "dynamic" ones change with the length of the text
            from `original_length` on, so that keys in a cache were turned by other angles than the
            same keys computed anew; `max_length` may not be more than that.
        sliding_window: How many positions each sees at most, its own among them; 0 is all before.
        full_layers: The first so many layers see all positions.
        qk_norm: Whether each head's queries and keys are RMS-normalized before they are turned.
        norm: "layer" (with bias) or "rms", in front of each layer and at the end.
        norm_eps: Added to the variance or mean square.
        bias: Whether attention and feed-forward layers have biases.
        attention_bias: What of attention has biases, where it is not "as_bias" says: no projection
            ("none"), those of queries, keys and values ("qkv"), or "all".
        causal: Whether a position sees only itself and those before.
    """

    variant: ClassVar[str] = "transformer"

    num_layers: int = 6
    num_kv_heads: int = 0
    head_dim: int = 0
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling = dataclasses.field(default_factory=RopeScaling)
    sliding_window: int = 0
    full_layers: int = 0
    qk_norm: bool = False
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-5
    bias: bool = True
    attention_bias: Literal["as_bias", "none", "qkv", "all"] = "as_bias"
    causal: bool = True

    def unused(self) -> dict[str, str]:
        found = {}
        if self.positions != "rotary":
            found = dict.fromkeys(("rope_theta", "rope_scaling"), "positions is not 'rotary'")
        if not self.sliding_window:
            found["full_layers"] = "sliding_window is 0: all layers see all positions"
        return found

    def __post_init__(self) -> None:
        check = functools.partial(require_range, self, "model")
        check(1, 4096, "num_layers")
        check(1, 2**16, "num_heads")
        check(0, 2**16, "num_kv_heads")
        check(0, 2**20, "head_dim")
        check(1, 2**20, "hidden_size")
        check(1, 2**24, "vocab_size", "ffn_size", "max_length")
        check(0, 2**24, "sliding_window")
        check(0, 4096, "full_layers")
        check(1e-30, 1, "norm_eps")
        check(1, 1e15, "rope_theta")
        require_fields(self, "model", "0 <= x < 1", lambda x: 0 <= x < 1, "dropout")
        require_fields(self, "model", "more than 0", lambda x: x > 0, "init_std")
        check(0, 1e3, "init_std")
        require(
            self.head_dim > 0 or self.hidden_size % self.num_heads == 0,
            f"model.num_heads: {self.num_heads} does not divide hidden_size {self.hidden_size}",
        )
        require(
            self.num_heads % self.key_heads == 0,
            f"model.num_kv_heads: {self.key_heads} does not divide num_heads {self.num_heads}",
        )
        if self.sliding_window:
            require(self.causal, "model.sliding_window: needs a causal model")
            require(
                self.attention in ("auto", "xla"),
                f"model.attention: {self.attention!r} has no sliding_window, expected 'xla'",
            )
            require(
                self.full_layers < self.num_layers,
                f"model.full_layers: {self.full_layers} leaves none of {self.num_layers} layers "
                "with a sliding_window; expected fewer",
            )
            require(
                not (self.scan_layers and self.full_layers),
                "model.full_layers: scanned layers are all alike; expected 0, or scan_layers=False",
            )
        original = self.rope_scaling.original_length
        require(
            self.rope_scaling.kind != "dynamic" or self.max_length <= original,
            f"model.max_length: {self.max_length}, but rope_scaling is dynamic: beyond its "
            f"original_length {original} the angles change with the length of the text, so that a "
            "cache would not give what recomputation gives",
        )
        even = self.head_size if self.positions == "rotary" else self.hidden_size
        require(
            self.positions == "learned" or even % 2 == 0,
            f"model.positions: {self.positions} positions need an even size, got {even}",
        )

    @property
    def key_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_heads

    @property
    def biased(self) -> bool | Literal["qkv"]:
        """What of attention has biases."""
        if self.attention_bias == "as_bias":
            return self.bias
        return self.attention_bias if self.attention_bias == "qkv" else self.attention_bias == "all"

    @property
    def weight_bytes(self) -> int:
        c, size = self, self.hidden_size
        queries, keys = (heads * c.head_size for heads in (c.num_heads, c.key_heads))
        products = 3 if c.feed_forward in ("geglu", "swiglu") else 2
        scales = size * (2 if c.norm == "layer" else 1)
        biases = (products - 1) * c.ffn_size + size if c.bias else 0
        biases += queries + 2 * keys if c.biased else 0
        biases += size if c.biased is True else 0
        norms = 2 * scales + (2 * c.head_size if c.qk_norm else 0)
        layer = 2 * size * (queries + keys) + products * size * c.ffn_size + biases + norms
        positions = 0 if c.positions == "rotary" else c.max_length * size
        embeddings = (1 if c.tie_head else 2) * c.vocab_size * size
        return 4 * (c.num_layers * layer + scales + embeddings + positions)


PRESETS: Mapping[str, TransformerConfig] = {
    "rlm": TransformerConfig(vocab_size=50_000, max_length=8192),
    "rlm_large": TransformerConfig(
        vocab_size=50_000, hidden_size=2048, num_layers=24, num_heads=32, ffn_size=8192
    ),
    "gpt2": TransformerConfig(
        vocab_size=50_257,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        ffn_size=3072,
        max_length=1024,
        positions="learned",
        feed_forward="gelu",
        tie_head=True,
    ),
    "llama": TransformerConfig(
        vocab_size=32_000,
        hidden_size=2048,
        num_layers=22,
        num_heads=32,
        num_kv_heads=4,
        ffn_size=5632,
        max_length=2048,
        positions="rotary",
        norm="rms",
        feed_forward="swiglu",
        bias=False,
        dropout=0.0,
    ),
}
"""The seed's Transformer RLM and its large example, GPT-2 (124M), and a Llama (TinyLlama, 1.1B).
Others of a kind are made with `dataclasses.replace`."""


def sinusoidal_positions(length: int, size: int) -> Float[np.ndarray, "S D"]:
    """Sines in the even and cosines in the odd channels (Vaswani et al., §3.5)."""
    rates = 1.0 / 10000 ** (np.arange(0, size, 2) / size)
    angles = np.outer(np.arange(length), rates)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, size).astype("f4")


class Block(nn.Module):
    """x ← x + Attention(norm(x)); x ← x + FeedForward(norm(x))."""

    config: TransformerConfig
    train: bool = False
    full: bool = False  # whether it has no sliding window

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S D"],
        cache: LayerCache | None,
        rotary: Rotary | None,
        lengths: Int[Array, " B"] | None,
        start: Int[Array, " B"] | None,
        mask: Bool[Array, "B S T"] | None,
        segments: Int[Array, "B S"] | None,
    ) -> tuple[Float[Array, "B S D"], LayerCache | None]:
        c = self.config
        init = nn.initializers.normal(c.init_std)
        out_init = nn.initializers.normal(c.init_std / (2 * c.num_layers) ** 0.5)
        drop = nn.Dropout(c.dropout, deterministic=not self.train)
        dtype = jnp.dtype(c.dtype)
        before = functools.partial(norm, c.norm, c.norm_eps, dtype)
        attention = Attention(
            c.hidden_size,
            c.num_heads,
            c.key_heads,
            c.head_size,
            bias=c.biased,
            causal=c.causal,
            window=0 if self.full else c.sliding_window,
            qk_norm=c.qk_norm,
            norm_eps=c.norm_eps,
            kernel_init=init,
            out_init=out_init,
            dtype=dtype,
            engine=c.attention,
            name="attention",
        )
        normed = before("attention_norm")(x)
        if cache is None:
            mixed = attention(normed, rotary, lengths, segments)
        else:
            assert start is not None
            assert mask is not None
            mixed, cache = attention.cached(normed, rotary, cache, start, mask)
        x = x + drop(mixed)
        ffn = FeedForward(c.feed_forward, c.ffn_size, c.bias, init, out_init, dtype, name="ffn")
        return x + drop(ffn(before("ffn_norm")(x))), cache


class Transformer(nn.Module):
    """Token embeddings, N blocks, a norm and a head.

    With `train`, activations are dropped; that needs an rng named "dropout".
    """

    config: TransformerConfig
    train: bool = False

    def setup(self) -> None:
        c = self.config
        init = nn.initializers.normal(c.init_std)
        dtype = jnp.dtype(c.dtype)
        self.embed_tokens = nn.Embed(c.vocab_size, c.hidden_size, dtype=dtype, embedding_init=init)
        if c.positions == "learned":
            self.embed_positions = nn.Embed(
                c.max_length, c.hidden_size, dtype=dtype, embedding_init=init
            )
        block = nn.remat(Block, prevent_cse=not c.scan_layers) if c.remat else Block
        self.layers: Any
        if c.scan_layers:
            self.layers = nn.scan(
                block,
                variable_axes={"params": 0, LORA: 0},
                split_rngs={"params": True, "dropout": True, LORA: True},
                in_axes=(0, *(nn.broadcast,) * 5),
                length=c.num_layers,
            )(c, self.train)
        else:
            self.layers = [block(c, self.train, i < c.full_layers) for i in range(c.num_layers)]
        self.final_norm = norm(c.norm, c.norm_eps, dtype, None)
        self.drop = nn.Dropout(c.dropout, deterministic=not self.train)
        if not c.tie_head:
            self.lm_head = Dense(c.vocab_size, use_bias=False, dtype=dtype, kernel_init=init)

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        *,
        lengths: Int[Array, " B"] | None = None,
        added: Float[Array, "B S D"] | None = None,
        segments: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B S V"]:
        """Logits of the token after each position, float32; arguments as for `hidden`."""
        x, _ = self.hidden(tokens, lengths=lengths, added=added, segments=segments)
        return self.logits(x)

    def hidden(
        self,
        tokens: Int[Array, "B S"],
        *,
        lengths: Int[Array, " B"] | None = None,
        added: Float[Array, "B S D"] | None = None,
        segments: Int[Array, "B S"] | None = None,
        cache: Cache | None = None,
        start: Int[Array, " B"] | None = None,
        window: int | None = None,
    ) -> tuple[Float[Array, "B S D"], Cache | None]:
        """What the head takes, and the cache with this call's keys and values.

        Without a cache, only the first `lengths` positions of a row are seen. Where a row has
        several texts one behind the other, `segments` numbers them: each is read as if it were
        alone, its positions counted from 0. With a cache,
        position s of row b is the row's position start[b] + s: it sees what the cache holds at the
        positions up to its own. Positions behind a row's end (in a chunk that is filled up) do no
        harm: later calls overwrite them before they see them. Of the cache only the first `window`
        positions are looked at; every start + S must be within. `added` is added to the embeddings.
        `ValueError` for more than `max_length` positions.
        """
        c = self.config
        length = tokens.shape[1]
        if length > c.max_length:
            raise ValueError(f"tokens: {length} positions, the model has {c.max_length}")
        x = self.embed_tokens(tokens)
        if added is not None:
            x = x + added.astype(x.dtype)
        assert segments is None or cache is None
        offsets = jnp.arange(length) if segments is None else _places(segments)
        positions = offsets if start is None else start[:, None] + offsets  # [S] or [B, S]
        if c.positions == "learned":
            x = x + self.embed_positions(positions)
        elif c.positions == "sinusoidal":
            table = jnp.asarray(sinusoidal_positions(c.max_length, c.hidden_size), x.dtype)
            x = x + table[positions]
        rotary = None
        if c.positions == "rotary":
            turning = rotary_frequencies(c.head_size, c.rope_theta, c.rope_scaling)
            rotary = rotary_at(positions, *turning)
        mask = None
        if cache is not None:
            held = window or jax.tree.leaves(cache)[0].shape[-2]
            mask = seen(positions, held)
        x, cache = self._blocks(self.drop(x), cache, rotary, lengths, start, mask, segments)
        return self.final_norm(x), cache

    def _blocks(
        self, x: Float[Array, "B S D"], cache: Cache | None, *rest: Any
    ) -> tuple[Float[Array, "B S D"], Cache | None]:
        if self.config.scan_layers:
            return self.layers(x, cache, *rest)
        updated = []
        for i, layer in enumerate(self.layers):
            x, layer_cache = layer(x, None if cache is None else cache[i], *rest)
            updated.append(layer_cache)
        return x, None if cache is None else tuple(updated)

    def logits(self, x: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """The head: logits in float32."""
        out = self.embed_tokens.attend(x) if self.config.tie_head else self.lm_head(x)
        return out.astype(jnp.float32)


def _places(segments: Int[Array, "B S"]) -> Int[Array, "B S"]:
    """The place of each position in its segment."""
    places = jnp.broadcast_to(jnp.arange(segments.shape[1]), segments.shape)
    first = segments != jnp.roll(segments, 1, axis=1)
    starts = jnp.where(first.at[:, 0].set(True), places, 0)
    return places - jax.lax.cummax(starts, axis=1)


def init_cache(config: TransformerConfig, batch: int, length: int, dtype: Any = None) -> Cache:
    """An empty cache with room for `length` positions L, in the computation dtype if in no other.

    Its arrays are [B, K, L, C], or [N, B, K, L, C] where the layers are scanned.
    """
    shape: tuple[int, ...] = (batch, config.key_heads, length, config.head_size)
    dtype = jnp.dtype(dtype or config.dtype)
    if config.scan_layers:
        shape = (config.num_layers, *shape)

    def empty() -> Cache:
        return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)

    return empty() if config.scan_layers else tuple(empty() for _ in range(config.num_layers))


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters for `scan_layers=True` from those for False."""
    count = sum(name.startswith("layers_") for name in params)
    layers = [params[f"layers_{i}"] for i in range(count)]
    rest = {k: v for k, v in params.items() if not k.startswith("layers_")}
    return {**rest, "layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters for `scan_layers=False` from those for True."""
    count = jax.tree.leaves(params["layers"])[0].shape[0]
    rest = {k: v for k, v in params.items() if k != "layers"}
    layers = {
        f"layers_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
        for i in range(count)
    }
    return {**rest, **layers}

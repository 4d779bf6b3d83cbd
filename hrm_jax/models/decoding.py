"""Greedy continuation of a batch of texts; `hrm_jax.engine.engine` does more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hrm_jax.layers.dense import LORA
from hrm_jax.models.transformer import Transformer, TransformerConfig, init_cache


def greedy(
    config: TransformerConfig,
    params: Mapping[str, Any],
    tokens: Int[Array, "B S"],
    lengths: Int[Array, " B"],
    count: int,
    end: int,
    *,
    added: Float[Array, "B S D"] | None = None,
    suppressed: Sequence[int] = (),
    lora: Any = None,
) -> Int[Array, "B T"]:
    """The likeliest next token, `count` times, but none of those `suppressed`; pure.

    Texts are padded at their ends; `added` is added to their embeddings. After `end` there are only
    more of it. `lora` is the collection of adapters, if there are any.
    """
    model = Transformer(config)
    variables = {"params": params} if lora is None else {"params": params, LORA: lora}
    banned = jnp.zeros(config.vocab_size, bool).at[jnp.array(suppressed, jnp.int32)].set(True)

    def choose(x: Array) -> Array:
        logits: Any = model.apply(variables, x, method="logits")
        return jnp.argmax(jnp.where(banned, -jnp.inf, logits), axis=-1).astype(jnp.int32)

    def read(tokens: Array, added: Array | None, cache: Any, start: Array) -> Any:
        return model.apply(
            variables, tokens, added=added, cache=cache, start=start, method="hidden"
        )

    batch, length = tokens.shape
    cache = init_cache(config, batch, length + count)
    x, cache = read(tokens, added, cache, jnp.zeros(batch, jnp.int32))
    first = choose(jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)[:, 0])

    def step(carry: Any, _: None) -> Any:
        token, place, cache = carry
        x, cache = read(token[:, None], None, cache, place)
        following = jnp.where(token == end, end, choose(x[:, 0]))
        return (following, place + 1, cache), token

    _, out = jax.lax.scan(step, (first, lengths.astype(jnp.int32), cache), length=count)
    return out.T

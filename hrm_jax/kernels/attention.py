"""Scaled dot-product attention behind one function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def attention(
    q: Float[Array, "B H S C"],
    k: Float[Array, "B K T C"],
    v: Float[Array, "B K T C"],
    mask: Bool[Array, "#B #S T"] | None = None,
) -> Float[Array, "B H S C"]:
    """Attention: softmax(q kᵀ / √C) v.

    Heads come before positions, so that both products are plain batched matrix products without
    any change of layout. The softmax is taken in float32, and its division is done after the
    product with `v`, on [S, C] values instead of [S, T].

    Args:
        q: Queries, any float dtype.
        k: Keys, same dtype. K divides H: each key head serves H / K query heads in a row.
        v: Values, same dtype.
        mask: Which keys a query sees, at least one each; None shows all of them.

    Returns:
        Attended values in the dtype of `q`.

    References:
        Vaswani et al., Attention Is All You Need, eq. 1 (https://arxiv.org/abs/1706.03762);
        Ainslie et al., GQA (https://arxiv.org/abs/2305.13245), for fewer key heads.
    """
    batch, heads, length, channels = q.shape
    key_heads = k.shape[1]
    if heads != key_heads:  # the queries of a group are rows of one product
        q = q.reshape(batch, key_heads, heads // key_heads * length, channels)
    scale = channels**-0.5
    scores = jnp.einsum("bhsc,bhtc->bhst", q * scale, k, preferred_element_type=jnp.float32)
    if mask is not None:
        shown = jnp.tile(mask, (1, heads // key_heads if mask.shape[1] > 1 else 1, 1))
        scores = jnp.where(shown[:, None], scores, jnp.finfo(scores.dtype).min)
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    mixed = jnp.einsum(
        "bhst,bhtc->bhsc", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
    )
    return (mixed / total).astype(q.dtype).reshape(batch, heads, length, channels)

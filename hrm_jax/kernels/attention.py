"""Scaled dot-product attention behind one function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def attention(
    q: Float[Array, "B H S C"],
    k: Float[Array, "B H T C"],
    v: Float[Array, "B H T C"],
) -> Float[Array, "B H S C"]:
    """Attention without mask: softmax(q kᵀ / √C) v.

    Heads come before positions, so that both products are plain batched matrix products without
    any change of layout. The softmax is taken in float32, and its division is done after the
    product with `v`, on [S, C] values instead of [S, T].

    Args:
        q: Queries, any float dtype.
        k: Keys, same dtype.
        v: Values, same dtype.

    Returns:
        Attended values in the dtype of `q`.

    References:
        Vaswani et al., Attention Is All You Need, eq. 1 (https://arxiv.org/abs/1706.03762).
    """
    scale = q.shape[-1] ** -0.5
    scores = jnp.einsum("bhsc,bhtc->bhst", q * scale, k, preferred_element_type=jnp.float32)
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    mixed = jnp.einsum(
        "bhst,bhtc->bhsc", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
    )
    return (mixed / total).astype(q.dtype)

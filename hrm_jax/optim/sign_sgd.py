"""Sparse sign-SGD for embedding tables of which a batch touches few rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def sparse_sign_sgd(
    table: Float[Array, "N E"],
    identifiers: Int[Array, " B"],
    row_gradients: Float[Array, "B E"],
    learning_rate: float | Array,
    weight_decay: float,
) -> Float[Array, "N E"]:
    """w ← w(1 − lr·wd) − lr·sign(g) for the rows in the batch, and only for them.

    Gradients of rows with the same identifier are summed first. The dense gradient is never made:
    the cost is O(B²E), whatever N.
    """
    same = identifiers[:, None] == identifiers[None, :]
    summed = jnp.matmul(
        same.astype(row_gradients.dtype), row_gradients, precision=jax.lax.Precision.HIGHEST
    )
    # Equal identifiers must write equal values, so all take the sum made for the first of them.
    summed = summed[jnp.argmax(same, axis=1)]
    rows = table[identifiers] * (1 - learning_rate * weight_decay)
    return table.at[identifiers].set(rows - learning_rate * jnp.sign(summed))

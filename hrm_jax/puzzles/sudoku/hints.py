"""Hints: blanks of a puzzle that are filled from its answer, so that training meets easier ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_BLANK = 1


def add_hints(key: jax.Array, inputs: jax.Array, labels: jax.Array, share: float) -> jax.Array:
    """With probability `share`, fills some blanks of a puzzle [cells]; at least one blank stays.

    How many is uniform over 1 to one less than there are, and which ones is uniform too. Blanks
    without a digit in the labels [cells] are not filled.
    """
    inputs, labels = jnp.asarray(inputs), jnp.asarray(labels)
    coin, number, order = jax.random.split(key, 3)
    blank = (inputs == _BLANK) & (labels > _BLANK)
    count = blank.sum()
    filled = jax.random.randint(number, (), 1, jnp.maximum(count, 2))
    filled = jnp.where((count > 1) & (jax.random.uniform(coin) < share), filled, 0)
    bits = jax.random.bits(order, inputs.shape, jnp.uint32)
    # Ranks by comparing all pairs: for so few, a sort takes longer to compile and to run.
    rank = ((bits[None, :] < bits[:, None]) & blank[None, :]).sum(1)
    return jnp.where(blank & (rank < filled), labels.astype(inputs.dtype), inputs)

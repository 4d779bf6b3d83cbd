"""Symmetries of boards of digits: cells that change places, digits that change names."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.puzzles.digits.board import DigitShape


class Symmetry(NamedTuple):
    """One symmetry of boards."""

    digits: jax.Array  # token that the token of each digit turns into, int32 [N]
    cells: jax.Array  # cell that each cell of the new board comes from, int32 [cells]


def inverse(symmetry: Symmetry) -> Symmetry:
    """The symmetry that undoes the given one."""
    return Symmetry(_inverse_order(symmetry.digits - 2) + 2, _inverse_order(symmetry.cells))


def apply(symmetry: Symmetry, tokens: jax.Array, shape: DigitShape) -> jax.Array:
    """Applies a symmetry to integer tokens [cells]; same shape and dtype.

    Values that are not tokens of digits (an ignore label like -100, pad) move with their cell and
    stay what they are.
    """
    moved = jnp.asarray(tokens)[symmetry.cells].astype(jnp.int32)
    relabelled = symmetry.digits[jnp.clip(moved - 2, 0, shape.size - 1)]
    is_digit = (moved >= 2) & (moved < shape.vocab_size)
    return jnp.where(is_digit, relabelled, moved).astype(tokens.dtype)


def _inverse_order(order: jax.Array) -> jax.Array:
    """The permutation that undoes one of 0 to n - 1: int32 [n]."""
    return jnp.zeros_like(order).at[order].set(jnp.arange(order.size, dtype=order.dtype))


def random_order(bits: jax.Array) -> jax.Array:
    """Ranks of random bits [n], a random permutation: int32 [n].

    By comparing all pairs: for so few, a sort takes longer to compile and to run.
    """
    later = np.tri(bits.size, k=-1, dtype=bool)  # equal bits, once in 2**32, keep their order
    before = (bits[None, :] < bits[:, None]) | ((bits[None, :] == bits[:, None]) & later)
    return before.sum(1, dtype=jnp.int32)

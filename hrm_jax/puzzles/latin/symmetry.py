"""Symmetries of Latin squares: orders of rows, of columns and of digits, and transposing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.digits.symmetry import Symmetry, random_order
from hrm_jax.puzzles.latin.board import LatinShape


def random_symmetry(key: jax.Array, shape: LatinShape) -> Symmetry:
    """Draws a symmetry, uniform over the group."""
    order_key, flip_key = jax.random.split(key)
    bits = jax.random.bits(order_key, (3, shape.size), jnp.uint32)
    rows, columns, digits = map(random_order, bits)
    cells = rows[:, None] * shape.size + columns
    cells = jnp.where(jax.random.bernoulli(flip_key), cells.T, cells)
    return Symmetry(digits + 2, cells.reshape(-1))


def invariants(boards: Array, shape: LatinShape) -> list[bytes]:
    """What no symmetry changes of full boards [E, cells], and tells many of them apart.

    Of each two rows, or columns, the cycle lengths of the permutation that turns one into the
    other. Squares with different ones are no transforms of each other; the reverse need not hold.
    """
    grids = boards.reshape(-1, *shape.sides()).astype(np.int64) - 1
    first, second = np.triu_indices(shape.size, 1)
    kinds = []
    for lines in (grids, grids.swapaxes(1, 2)):
        where = np.argsort(lines, axis=2)  # of each digit
        step = np.take_along_axis(lines[:, second], where[:, first], axis=2)
        reached, kind = step, np.zeros(step.shape[:2], np.int64)
        for _ in range(shape.size):  # how many are back after so many steps tells the lengths
            back = (reached == np.arange(shape.size)).sum(2)
            kind = kind * (shape.size + 1) + back
            reached = np.take_along_axis(step, reached, axis=2)
        kinds.append(np.sort(kind, axis=1))
    return [b"".join(sorted(x.tobytes() for x in pair)) for pair in zip(*kinds, strict=True)]

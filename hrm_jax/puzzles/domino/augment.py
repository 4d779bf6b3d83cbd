"""Random changes of a domino position that keep its label right.

There is no relabelling of pips: it changes which tile is the heaviest.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hrm_jax.puzzles.domino.encoding import HAND, LEFT_END, RIGHT_END, TABLE
from hrm_jax.puzzles.domino.game import HAND_SIZE


def augment(key: jax.Array, inputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Shuffles the hand, turns each of its tiles and mirrors the table, each by chance.

    The mirror image of the table has its best move by the rule of `game.best_move` again: left
    goes before right there too, so where the heaviest tile (or two tiles of the same weight) fits
    both ends, the label is not the mirror image of the old one. Labels after the third stay.
    """
    bits = jax.random.bits(key, (2 * HAND_SIZE + 1,), jnp.uint32)
    tokens = jnp.asarray(inputs).astype(jnp.int32)
    hand = _deal(tokens[HAND].reshape(-1, 2), bits)
    mirrored = bits[-1] % 2 == 1
    table = tokens[TABLE].reshape(-1, 2)
    table = jnp.where(mirrored, _mirror(table), table)
    ends = tokens[LEFT_END : RIGHT_END + 1]
    ends = jnp.where(mirrored, ends[::-1], ends)
    result = jnp.concatenate([table.reshape(-1), hand.reshape(-1), ends])
    labels = jnp.asarray(labels)
    move, found = _best_label(result)
    old = labels[:3].astype(jnp.int32)
    new = jnp.where(mirrored & found, move, old).astype(labels.dtype)
    return result.astype(inputs.dtype), jnp.concatenate([new, labels[3:]])


def shuffle_hand(key: jax.Array, inputs: jax.Array) -> jax.Array:
    """Shuffles the hand and turns each of its tiles by chance, and leaves the table as it is.

    The best move stays the same, so there is nothing to undo on an answer. (The mirror image of the
    table could be undone, but where a tile fits both ends its best move is another one.)
    """
    tokens = jnp.asarray(inputs)
    bits = jax.random.bits(key, (2 * HAND_SIZE,), jnp.uint32)
    return tokens.at[HAND].set(_deal(tokens[HAND].reshape(-1, 2), bits).reshape(-1))


def _deal(hand: jax.Array, bits: jax.Array) -> jax.Array:
    """Tiles [7, 2] in random order and direction, empty places last; takes 14 random bits."""
    place = jnp.arange(HAND_SIZE, dtype=jnp.uint32)
    order = jnp.where(hand[:, 0] > 0, bits[:HAND_SIZE] >> 1, jnp.uint32(2**31) + place)
    hand = hand[jnp.argsort(order, stable=True)]
    turned = (bits[HAND_SIZE : 2 * HAND_SIZE] % 2 == 1)[:, None]
    return jnp.where(turned, hand[:, ::-1], hand)


def _mirror(table: jax.Array) -> jax.Array:
    """The table [28, 2] seen from the other side."""
    count = (table[:, 0] > 0).sum()
    place = jnp.arange(len(table))
    source = jnp.clip(count - 1 - place, 0, len(table) - 1)
    return jnp.where((place < count)[:, None], table[source][:, ::-1], 0)


def _best_label(tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Labels [3] of `game.best_move`, and whether any tile fits."""
    hand = tokens[HAND].reshape(-1, 2)
    left, right = tokens[LEFT_END], tokens[RIGHT_END]
    present, weight = hand[:, 0] > 0, hand.sum(1)
    ranks = jnp.concatenate(
        [
            jnp.where(present & (left > 0) & (hand == left).any(1), 16 * weight + 1, 0),
            jnp.where(present & (left > 0) & (hand == right).any(1), 16 * weight, 0),
            jnp.where(present & (left == 0), 16 * weight + hand.max(1), 0),
        ]
    )
    choice = jnp.argmax(ranks)
    tile, end = hand[choice % HAND_SIZE], choice // HAND_SIZE
    a = jnp.stack([tile.sum() - left, right, tile.min()])[end]
    return jnp.stack([a, tile.sum() - a, end + 1]).astype(jnp.int32), ranks[choice] > 0

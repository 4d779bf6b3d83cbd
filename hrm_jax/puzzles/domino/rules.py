"""What domino tokens must obey: which moves are legal and optimal, what an example must show."""

from __future__ import annotations

import numpy as np

from hrm_jax.puzzles.base import Array, Checks
from hrm_jax.puzzles.domino.encoding import HAND, LEFT_END, RIGHT_END, TABLE
from hrm_jax.puzzles.domino.game import FIRST, LEFT, RIGHT


def judge(inputs: Array, moves: Array) -> tuple[Array, Array]:
    """Which moves are legal, and which of those are optimal: two bool [N].

    A move is legal where the tile, in either direction, is in the hand and fits the end that is
    named; it is optimal where no tile that fits has more pips, at whichever end. Positions are
    tokens [N, 72], moves integers [N, 3 or more] of any values, (A + 1, B + 1, end) first.
    """
    inputs, moves = inputs.astype(np.int64), moves.astype(np.int64)
    hand = inputs[:, HAND].reshape(len(inputs), -1, 2)
    present = (hand > 0).all(2)
    left, right = inputs[:, LEFT_END, None], inputs[:, RIGHT_END, None]
    empty = (left == 0) & (right == 0)
    fits = {
        LEFT: present & ~empty & (hand == left[..., None]).any(2),
        RIGHT: present & ~empty & (hand == right[..., None]).any(2),
        FIRST: present & empty,
    }
    tile, end = np.sort(moves[:, :2], axis=1), moves[:, 2, None]
    is_tile = (np.sort(hand, axis=2) == tile[:, None]).all(2)
    legal = np.zeros(len(inputs), bool)
    for code, where in fits.items():
        legal |= ((end == code) & where & is_tile).any(1)
    playable = fits[LEFT] | fits[RIGHT] | fits[FIRST]
    heaviest = np.where(playable, hand.sum(2), 0).max(1)
    return legal, legal & (tile.sum(1) == heaviest)


def check_examples(inputs: Array, labels: Array) -> Checks:
    """Checks positions and labels, integers [N, 72] of any values, against the rules."""
    count = len(inputs)
    table = inputs[:, TABLE].reshape(count, -1, 2)
    hand = inputs[:, HAND].reshape(count, -1, 2)
    ends = inputs[:, [LEFT_END, RIGHT_END]]
    laid, held = np.any(table > 0, axis=2), np.any(hand > 0, axis=2)
    pairs = laid[:, :-1] & laid[:, 1:]
    apart = (pairs & (table[:, :-1, 1] != table[:, 1:, 0])).any(1)
    last = np.maximum(laid.sum(1) - 1, 0)
    chain_ends = np.stack([table[:, 0, 0], table[np.arange(count), last, 1]], axis=1)
    tiles = np.sort(np.concatenate([table, hand], axis=1), axis=2)
    codes = np.where((tiles > 0).all(2), tiles[..., 0] * 8 + tiles[..., 1], 0)
    codes = np.sort(codes, axis=1)
    twice = ((codes[:, 1:] == codes[:, :-1]) & (codes[:, 1:] > 0)).any(1)
    legal, optimal = judge(inputs, labels)
    named = (labels[:, :3] > 0).all(1) & (labels[:, :2] <= 7).all(1) & (labels[:, 2] <= 3)
    return [
        ("inputs", _half(table), "table: half a tile, the other half is 0"),
        ("inputs", _half(hand), "hand: half a tile, the other half is 0"),
        ("inputs", _gap(laid), "table: an empty place before a tile"),
        ("inputs", _gap(held), "hand: an empty place before a tile"),
        ("inputs", ~held.any(1), "hand: no tile in it"),
        ("inputs", apart, "table: neighbouring tiles do not match"),
        ("inputs", (ends != chain_ends).any(1), "ends: are not those of the table"),
        ("inputs", twice, "a tile stands twice on table and in hand"),
        ("labels", (labels[:, 3:] != 0).any(1), "a label after the third is not ignored"),
        ("labels", ~named, "shows no move: expected two halves 1 to 7 and an end 1 to 3"),
        ("labels", named & ~legal, "the move is not legal"),
        ("labels", legal & ~optimal, "the move is not optimal: a heavier tile fits"),
    ]


def _half(tiles: Array) -> Array:
    """Whether one half of a tile [N, places, 2] is there and the other is not: bool [N]."""
    return np.any((tiles > 0).sum(2) == 1, axis=1)


def _gap(present: Array) -> Array:
    """Whether a place [N, places] is empty before one that is not: bool [N]."""
    return np.any(~present[:, :-1] & present[:, 1:], axis=1)

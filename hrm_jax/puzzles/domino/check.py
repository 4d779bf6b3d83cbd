"""What is wrong with domino examples, and what they look like."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax.puzzles.domino.encoding import HAND, LEFT_END, RIGHT_END, TABLE
from hrm_jax.puzzles.domino.game import END_NAMES
from hrm_jax.puzzles.domino.scores import judge

Array = npt.NDArray[Any]


def check_examples(inputs: Array, labels: Array) -> list[tuple[str, Array, str]]:
    """Checks positions and labels against the rules of `encoding`.

    Args:
        inputs: Integers [N, 72], any values.
        labels: Integers [N, 72], 0 where ignored.

    Returns:
        For each rule the array concerned, bool [N] that is True where the row breaks it, and what
        is wrong.
    """
    count = len(inputs)
    table = inputs[:, TABLE].reshape(count, -1, 2)
    hand = inputs[:, HAND].reshape(count, -1, 2)
    ends = inputs[:, [LEFT_END, RIGHT_END]]
    laid, held = np.asarray((table > 0).any(2)), np.asarray((hand > 0).any(2))
    pairs = laid[:, :-1] & laid[:, 1:]
    number = laid.sum(1)
    last = np.maximum(number - 1, 0)
    chain_ends = np.stack([table[:, 0, 0], table[np.arange(count), last, 1]], axis=1)
    tiles = np.sort(np.concatenate([table, hand], axis=1), axis=2)
    codes = np.where((tiles > 0).all(2), tiles[..., 0] * 8 + tiles[..., 1], 0)
    codes = np.sort(codes, axis=1)
    legal, optimal = judge(inputs, labels)
    named = (labels[:, :3] > 0).all(1) & (labels[:, :2] <= 7).all(1) & (labels[:, 2] <= 3)
    broken = [
        ("inputs", _half(table), "table: half a tile, the other half is 0"),
        ("inputs", _half(hand), "hand: half a tile, the other half is 0"),
        ("inputs", _gap(laid), "table: an empty place before a tile"),
        ("inputs", _gap(held), "hand: an empty place before a tile"),
        ("inputs", ~held.any(1), "hand: no tile in it"),
        (
            "inputs",
            (pairs & (table[:, :-1, 1] != table[:, 1:, 0])).any(1),
            "table: neighbouring tiles do not match",
        ),
        ("inputs", (ends != chain_ends).any(1), "ends: are not those of the table"),
        (
            "inputs",
            ((codes[:, 1:] == codes[:, :-1]) & (codes[:, 1:] > 0)).any(1),
            "a tile stands twice on table and in hand",
        ),
        ("labels", (labels[:, 3:] != 0).any(1), "a label after the third is not ignored"),
        ("labels", ~named, "shows no move: expected two halves 1 to 7 and an end 1 to 3"),
        ("labels", named & ~legal, "the move is not legal"),
        ("labels", legal & ~optimal, "the move is not optimal: a heavier tile fits"),
    ]
    return broken


def render(inputs: Array, labels: Array) -> str:
    """Formats one example, [72] and [72], as three lines for people; `?` for what is no pip."""
    pairs = inputs[TABLE].reshape(-1, 2)
    table = " ".join(f"{_pip(a)}|{_pip(b)}" for a, b in pairs if a or b)
    hand = " ".join(f"{_pip(a)}-{_pip(b)}" for a, b in inputs[HAND].reshape(-1, 2) if a or b)
    a, b, end = labels[:3]
    left, right = (_pip(inputs[place]) for place in (LEFT_END, RIGHT_END))
    ends = f"   (ends {left} and {right})" if inputs[LEFT_END] or inputs[RIGHT_END] else ""
    return (
        f"table  {table or 'empty'}{ends}\n"
        f"hand   {hand or 'empty'}\n"
        f"move   {_pip(a)}|{_pip(b)} {END_NAMES.get(int(end), '?')}"
    )


def _half(tiles: Array) -> Array:
    """Whether one half of a tile [N, places, 2] is there and the other is not: bool [N]."""
    return np.asarray(((tiles > 0).sum(2) == 1).any(1))


def _gap(present: Array) -> Array:
    """Whether a place [N, places] is empty before one that is not: bool [N]."""
    return np.asarray((~present[:, :-1] & present[:, 1:]).any(1))


def _pip(token: Any) -> str:
    return str(int(token) - 1) if 1 <= token <= 7 else "?"

"""How good predicted domino moves are: equal to the label, legal, optimal."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.domino.encoding import HAND, LEFT_END, RIGHT_END, SEQ_LEN
from hrm_jax.puzzles.domino.game import FIRST, LEFT, RIGHT

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class DominoScores:
    """Verdicts on N predictions, each bool [N].

    Attributes:
        exact: Equals the label wherever there is one.
        legal: The tile is in the hand and fits the end that is named.
        optimal: Legal, and no tile that fits has more pips; either end will do.
    """

    exact: Array
    legal: Array
    optimal: Array

    def means(self) -> dict[str, float]:
        """Returns the share of predictions with each verdict."""
        return {
            field.name: float(np.mean(getattr(self, field.name)))
            for field in dataclasses.fields(self)
        }


def score(inputs: Array, labels: Array, predictions: Array) -> DominoScores:
    """Compares predictions with labels and with the rules.

    `legal` and `optimal` accept the tile in either direction; `exact` wants that of the label, as
    it will lie.

    Args:
        inputs: Positions, integer tokens [N, 72].
        labels: Integers [N, 72]; 0 and negative ones are ignored.
        predictions: Integer tokens [N, 72]; any values.

    Raises:
        DataError: Other shapes.
    """
    for name, array in (("inputs", inputs), ("labels", labels), ("predictions", predictions)):
        if array.ndim != 2 or array.shape != (len(inputs), SEQ_LEN):
            raise DataError(
                f"{name} has shape {array.shape}, expected ({len(inputs)}, {SEQ_LEN}) like inputs"
            )
    labels, predictions = labels.astype(np.int64), predictions.astype(np.int64)
    exact = ((predictions == labels) | (labels <= 0)).all(1)
    legal, optimal = judge(inputs, predictions)
    return DominoScores(exact, legal, optimal)


def judge(inputs: Array, moves: Array) -> tuple[Array, Array]:
    """Says which moves are legal, and which of those are optimal.

    Args:
        inputs: Positions, integer tokens [N, 72].
        moves: Integers [N, 3 or more], (A + 1, B + 1, end) first.

    Returns:
        Two bool [N].
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

"""The domino task: positions of real games, and the move to make."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jaxtyping import PRNGKeyArray

from hrm_jax.data.identity import Identity
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.puzzles.domino.augment import augment, shuffle_hand
from hrm_jax.puzzles.domino.build import VERSION, DominoSource, load_domino
from hrm_jax.puzzles.domino.scores import judge, score
from hrm_jax.tasks.puzzles.task import PuzzleConfig, PuzzleTask, identify, stored_or_made


@dataclasses.dataclass(frozen=True)
class DominoData:
    """Which positions: a data set folder, or else games that are played.

    Attributes:
        path: Folder made by `launch/build_dataset.py`.
        num_train, num_test: Positions; none of the test stands in training.
        seed: Seed of the games.
        augment: Whether each draw is changed at random where that keeps the label right.
    """

    path: str = ""
    num_train: int = 10_000
    num_test: int = 1000
    seed: int = 0
    augment: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class DominoConfig(PuzzleConfig):
    """Configuration of a domino run; the fields are those of `PuzzleConfig`."""

    data: DominoData = DominoData()


class DominoTask(PuzzleTask):
    """Trains an ACT model to choose a move.

    Besides the usual figures: `eval/legal` and `eval/optimal` (a move with the heaviest tile that
    can be laid; `eval/exact_accuracy` wants the very move of the label).
    """

    answer_length = 3

    @classmethod
    def load(
        cls, data: DominoData, cache: pathlib.Path | None
    ) -> tuple[PuzzleSet, PuzzleSet, Identity]:
        """As in `PuzzleTask.load`."""
        source = DominoSource(num_train=data.num_train, num_test=data.num_test, seed=data.seed)
        train, test = stored_or_made(data.path, cache, lambda: load_domino(source))
        seed = None if data.path else data.seed
        return train, test, identify("domino", VERSION, seed, train, test)

    def augment(
        self, key: PRNGKeyArray, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Another order of the hand, turned tiles, the table seen from the other side."""
        return augment(key, inputs, labels)

    @classmethod
    def transform(cls, key: PRNGKeyArray, inputs: jax.Array) -> jax.Array:
        """Another order of the hand and turned tiles, after which the best move is the same."""
        return shuffle_hand(key, inputs)

    @classmethod
    def obeys(
        cls, inputs: npt.NDArray[Any], predictions: npt.NDArray[Any]
    ) -> npt.NDArray[np.bool_]:
        """Legal moves."""
        return np.asarray(judge(inputs, predictions)[0])

    @classmethod
    def scores(
        cls,
        inputs: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        predictions: npt.NDArray[Any],
    ) -> dict[str, npt.NDArray[np.bool_]]:
        """`legal` and `optimal`; see `hrm_jax.puzzles.domino.scores.DominoScores`."""
        found = score(inputs, labels, predictions)
        return {"legal": found.legal, "optimal": found.optimal}

"""The maze task: where its puzzles come from, how they may be changed, what a good answer is."""

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
from hrm_jax.fields import require
from hrm_jax.puzzles.maze.board import MazeShape
from hrm_jax.puzzles.maze.build import VERSION, MazeSource, load_mazes
from hrm_jax.puzzles.maze.convert import to_puzzle_set
from hrm_jax.puzzles.maze.csv import read_csv
from hrm_jax.puzzles.maze.scores import score
from hrm_jax.puzzles.maze.symmetry import augment, undo
from hrm_jax.tasks.puzzles.task import PuzzleConfig, PuzzleTask, identify, stored_or_made


@dataclasses.dataclass(frozen=True)
class MazeData:
    """Which mazes: a data set folder, two CSV files, or else the generator. Boards are square.

    Attributes:
        path: Folder made by `launch/build_dataset.py` or by the reference.
        train_csv, test_csv: Files with the columns source, question, answer, rating.
        subsample: Random mazes of `train_csv` to keep; 0 for all.
        size: Rows and columns of generated boards.
        num_train, num_test: Generated mazes.
        min_path: Moves that the shortest path of generated mazes must exceed; 0 for the usual.
        walls: Least and greatest share of walls.
        unique: Whether there must be only one shortest path, so that nothing else is right.
        seed: Seed of generator and subsample.
        augment: Whether each draw is rotated and reflected at random.
    """

    path: str = ""
    train_csv: str = ""
    test_csv: str = ""
    subsample: int = 0
    size: int = 10
    num_train: int = 1000
    num_test: int = 1000
    min_path: int = 0
    walls: tuple[float, ...] = (0.3, 0.5)
    unique: bool = False
    seed: int = 0
    augment: bool = True

    def __post_init__(self) -> None:
        require(
            len(self.walls) == 2,
            f"data.walls: expected a least and a greatest share, got {self.walls}",
        )
        require(
            not (self.path and (self.train_csv or self.test_csv)),
            "data.path and data.train_csv/test_csv: give one or the other",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MazeConfig(PuzzleConfig):
    """Configuration of a maze run; the fields are those of `PuzzleConfig`."""

    data: MazeData = MazeData()


class MazeTask(PuzzleTask):
    """Trains an ACT model to find shortest paths.

    Besides the usual figures: `eval/valid` (the answer is a path) and `eval/optimal` (a shortest
    one; there may be several, of which the label is one).
    """

    @classmethod
    def load(
        cls, data: MazeData, cache: pathlib.Path | None
    ) -> tuple[PuzzleSet, PuzzleSet, Identity]:
        """As in `PuzzleTask.load`."""

        def make() -> tuple[PuzzleSet, PuzzleSet]:
            return load_mazes(
                MazeSource(
                    size=data.size,
                    num_train=data.num_train,
                    num_test=data.num_test,
                    min_path=data.min_path or None,
                    walls=(data.walls[0], data.walls[1]),
                    unique=data.unique,
                    train_csv=data.train_csv or None,
                    test_csv=data.test_csv or None,
                    subsample=data.subsample or None,
                    seed=data.seed,
                )
            )

        generated = not (data.train_csv or data.test_csv)
        train, test = stored_or_made(data.path, cache if generated else None, make)
        seed = None if data.path else data.seed
        return train, test, identify("maze", VERSION, seed, train, test)

    @classmethod
    def read_csv(cls, path: pathlib.Path) -> PuzzleSet:
        """Reads a file with the columns source, question, answer, rating."""
        return to_puzzle_set(read_csv(path))

    def augment(
        self, key: PRNGKeyArray, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """One of the eight symmetries of the square."""
        shape = MazeShape.for_cells(inputs.shape[0])
        return augment(key, inputs, labels, shape.height, shape.width)

    @classmethod
    def transform(cls, key: PRNGKeyArray, inputs: jax.Array) -> jax.Array:
        """One of the eight symmetries of the square."""
        shape = MazeShape.for_cells(inputs.shape[0])
        return augment(key, inputs, inputs, shape.height, shape.width)[0]

    @classmethod
    def restore(cls, key: PRNGKeyArray, answer: jax.Array) -> jax.Array:
        """As in `PuzzleTask.restore`."""
        shape = MazeShape.for_cells(answer.shape[0])
        return undo(key, answer, shape.height, shape.width)

    @classmethod
    def obeys(
        cls, inputs: npt.NDArray[Any], predictions: npt.NDArray[Any]
    ) -> npt.NDArray[np.bool_]:
        """Paths than which none is shorter; a search tells how long these are."""
        found = score(predictions, predictions, inputs, MazeShape.for_cells(inputs.shape[1]))
        return np.asarray(found.optimal)

    @classmethod
    def scores(
        cls,
        inputs: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        predictions: npt.NDArray[Any],
    ) -> dict[str, npt.NDArray[np.bool_]]:
        """`valid` and `optimal`; see `hrm_jax.puzzles.maze.scores.MazeScores`."""
        found = score(predictions, labels, inputs, MazeShape.for_cells(inputs.shape[1]))
        return {"valid": found.valid, "optimal": found.optimal}

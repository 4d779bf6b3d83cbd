"""Scores of predicted maze answers: as published, a path at all, and a shortest one."""

from __future__ import annotations

import dataclasses

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.maze.board import PAD, Array, MazeShape
from hrm_jax.puzzles.maze.search import follow_paths
from hrm_jax.puzzles.maze.solver import solve_many


@dataclasses.dataclass(frozen=True)
class MazeScores:
    """Which predictions are right, in three senses; bool [N] each.

    Attributes:
        exact: Every cell is that of the label (labels of 0 are not compared).
        valid: Walls, S and G are kept, every other cell is free or `o`, and the `o` cells are
            exactly one path from S to G; see `path_moves`.
        optimal: Valid, and no path is shorter. A maze may have several shortest paths, of which
            the label is one: this is what a solver should be judged by.
    """

    exact: Array
    valid: Array
    optimal: Array


def score(predictions: Array, labels: Array, inputs: Array, shape: MazeShape) -> MazeScores:
    """Scores predictions.

    Args:
        predictions: Predicted tokens, integers [N, cells].
        labels: Tokens of the answers, integers [N, cells].
        inputs: Tokens of the questions, integers [N, cells].
        shape: Shape of the boards.

    Raises:
        DataError: Shapes differ, or an input is no question.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if labels.shape != predictions.shape:
        raise DataError(f"labels are {labels.shape}, predictions {predictions.shape}")
    moves = path_moves(predictions, inputs, shape)
    _, shortest = solve_many(inputs, shape)
    return MazeScores(
        exact=np.asarray(((predictions == labels) | (labels == PAD)).all(1)),
        valid=moves >= 0,
        optimal=(moves >= 0) & (moves == shortest),
    )


def path_moves(predictions: Array, inputs: Array, shape: MazeShape) -> Array:
    """Counts the moves of the paths that predictions mark.

    The `o` cells with S and G are one path where S and G touch (above, below, left or right) one
    of these cells each, every `o` touches two, and all are connected. So a path that touches
    itself is none: it is not clear which way it goes, and it is never a shortest one.

    Args:
        predictions: Predicted tokens, integers [N, cells].
        inputs: Tokens of the questions, integers [N, cells].
        shape: Shape of the boards.

    Returns:
        int32 [N], -1 where walls, S or G were not kept, or the `o` cells are not one path.

    Raises:
        DataError: Shapes differ.
    """
    predictions, inputs = np.asarray(predictions), np.asarray(inputs)
    if predictions.shape != inputs.shape or inputs.shape[1:] != (shape.cells,):
        raise DataError(
            f"predictions are {predictions.shape}, inputs {inputs.shape}, expected both "
            f"[N, {shape.cells}]"
        )
    moves = np.empty(len(predictions), np.int32)
    follow_paths(
        np.ascontiguousarray(predictions, np.int64),
        np.ascontiguousarray(inputs, np.int64),
        shape.height,
        shape.width,
        moves,
    )
    return moves

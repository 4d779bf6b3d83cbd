"""Rotations and reflections of boards: as augmentation, for voting, and a canonical form."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.maze.board import MazeShape


def transform(
    key: jax.Array, tokens: jax.Array, shape: MazeShape, *, undo: bool = False
) -> jax.Array:
    """Applies one random symmetry to a puzzle or its solution [cells], or undoes that of this key.

    It is uniform over the group. A label stays a shortest path, but not always the one of
    `solver.solve_many`: the order of the directions turns with the board. The reference's
    augmentation does the same.
    """
    table = np.argsort(places(shape), axis=1) if undo else places(shape)
    return tokens[jnp.asarray(table)[jax.random.bits(key, (), jnp.uint32) % len(table)]]


def canonical(boards: Array, shape: MazeShape) -> Array:
    """The lexicographically least board that symmetries make of each.

    Boards are values of one byte [E, cells], and the result is uint8 of that shape; two boards are
    equivalent exactly when these are equal.
    """
    boards = np.asarray(boards, np.uint8)
    turned = boards[:, places(shape)]  # [E, symmetries, cells]
    least = [min(row.tobytes() for row in rows) for rows in turned]
    return np.frombuffer(b"".join(least), np.uint8).reshape(boards.shape)


def augmented(
    questions: Array, answers: Array, num_aug: int, seed: int, shape: MazeShape
) -> tuple[Array, Array]:
    """Builds augmentations in advance, as `dataset/build_maze_dataset.py` of the reference does.

    They are different rotations and reflections: 7 are all of a square, as in the reference; fewer
    are picked at random. Returns tokens, uint8 [E, 1 + num_aug, cells] twice, each board as it is
    first.
    """
    table = places(shape)
    if num_aug >= len(table):
        raise DataError(
            f"num_aug is {num_aug}, expected 0 to {len(table) - 1}, the rotations and reflections "
            f"of {shape}"
        )
    random = np.random.Generator(np.random.PCG64(seed))
    inputs, labels = np.empty((2, len(questions), 1 + num_aug, shape.cells), np.uint8)
    for row in range(len(questions)):
        chosen = np.sort(random.choice(len(table) - 1, num_aug, replace=False)) + 1
        sources = table[[0, *chosen]]
        inputs[row], labels[row] = questions[row][sources], answers[row][sources]
    return inputs, labels


@functools.cache
def places(shape: MazeShape) -> Array:
    """Cell that each cell of the turned board comes from, int32 [symmetries, cells].

    The board is turned by 0 to 3 quarter turns counterclockwise, and then the same after it was
    reflected left to right; boards that are not square are turned by 0 and 2 alone.
    """
    grid = np.arange(shape.cells, dtype=np.int32).reshape(shape.height, shape.width)
    turns = range(4) if shape.height == shape.width else (0, 2)
    table = np.stack([
        np.rot90(board, turn).reshape(-1) for board in (grid, np.fliplr(grid)) for turn in turns
    ])  # fmt: skip
    table.setflags(write=False)
    return table

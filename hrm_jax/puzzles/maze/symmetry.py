"""Rotations and reflections of boards: as augmentation, for voting, and a canonical form.

Number 0 to 7: the board is reflected left to right from 4 on, and then rotated by `number % 4`
quarter turns counterclockwise. Boards that are not square keep their shape under 0, 2, 4 and 6.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.maze.board import MazeShape

_INVERSES = (0, 3, 2, 1, 4, 5, 6, 7)


def transform(key: jax.Array, tokens: jax.Array, shape: MazeShape) -> jax.Array:
    """Applies one random symmetry to a puzzle or its solution [cells]; uniform over the group.

    A label stays a shortest path, but not always the one of `solver.solve_many`: the order of the
    directions turns with the board. The reference's augmentation does the same.

    Args:
        key: Randomness; the same key gives the same symmetry for every puzzle.
        tokens: Anything per cell [cells].
        shape: Static under `jit`.
    """
    return tokens[_drawn(key, _places(shape))]


def undo(key: jax.Array, tokens: jax.Array, shape: MazeShape) -> jax.Array:
    """The inverse of `transform` with this key."""
    return tokens[_drawn(key, np.argsort(_places(shape), axis=1))]


def _drawn(key: jax.Array, places: Array) -> jax.Array:
    """One of the rows of `places`."""
    return jnp.asarray(places)[jax.random.bits(key, (), jnp.uint32) % len(places)]


def symmetries(shape: MazeShape) -> tuple[int, ...]:
    """Returns the numbers of the symmetries that keep the shape: 8 of a square, else 4."""
    return tuple(range(8)) if shape.height == shape.width else (0, 2, 4, 6)


def inverse(number: int) -> int:
    """Returns the number of the symmetry that undoes the given one.

    Raises:
        DataError: The number is outside 0 to 7.
    """
    if not 0 <= number < 8:
        raise DataError(f"symmetry is {number}, expected 0 to 7")
    return _INVERSES[number]


def apply_dihedral(number: int, tokens: Array, shape: MazeShape | None = None) -> Array:
    """Applies a symmetry to boards; `apply_dihedral(inverse(number), …)` undoes it.

    Args:
        number: One of `symmetries(shape)`.
        tokens: Anything per cell [..., cells].
        shape: None takes the square one with that many cells.

    Raises:
        DataError: The symmetry does not keep the shape, or the number of cells is another.
    """
    tokens = np.asarray(tokens)
    shape = shape or MazeShape.for_cells(tokens.shape[-1])
    if tokens.shape[-1] != shape.cells:
        raise DataError(f"boards have {tokens.shape[-1]} cells, expected {shape.cells}")
    if number not in symmetries(shape):
        raise DataError(
            f"symmetry is {number}, expected one of {list(symmetries(shape))} for {shape}"
        )
    return np.asarray(tokens[..., _places(shape)[symmetries(shape).index(number)]])


def canonical(boards: Array, shape: MazeShape) -> Array:
    """Returns the lexicographically least board that symmetries make of each.

    Args:
        boards: Values of one byte [E, cells].

    Returns:
        uint8 [E, cells]; two boards are equivalent exactly when these are equal.
    """
    boards = np.asarray(boards, np.uint8)
    turned = boards[:, _places(shape)]  # [E, symmetries, cells]
    least = [min(row.tobytes() for row in rows) for rows in turned]
    return np.frombuffer(b"".join(least), np.uint8).reshape(boards.shape)


def augmented(
    questions: Array, answers: Array, num_aug: int, seed: int, shape: MazeShape
) -> tuple[Array, Array]:
    """Builds augmentations in advance, as `dataset/build_maze_dataset.py` of the reference does.

    Args:
        questions, answers: Tokens, uint8 [E, cells].
        num_aug: Rotations and reflections of each, all different: 7 for all of a square, as in
            the reference; fewer are picked at random.
        seed: Seed of the choice.

    Returns:
        Tokens, uint8 [E, 1 + num_aug, cells] twice, each board as it is first.

    Raises:
        DataError: There are not so many augmentations.
    """
    others = np.array(symmetries(shape)[1:])
    if num_aug > len(others):
        raise DataError(
            f"num_aug is {num_aug}, expected 0 to {len(others)}, the rotations and reflections of "
            f"{shape}"
        )
    random = np.random.Generator(np.random.PCG64(seed))
    chosen = np.zeros((len(questions), 1 + num_aug), np.int64)
    for row in range(len(questions)):
        chosen[row, 1:] = np.sort(random.choice(others, num_aug, replace=False))
    both = np.empty((2, *chosen.shape, shape.cells), np.uint8)
    for number in symmetries(shape):
        rows, places = np.nonzero(chosen == number)
        for turned, boards in zip(both, (questions, answers), strict=True):
            turned[rows, places] = apply_dihedral(number, boards[rows], shape)
    return both[0], both[1]


@functools.cache
def _places(shape: MazeShape) -> Array:
    """Cell that each cell of the turned board comes from, int32 [symmetries, cells]."""
    grid = np.arange(shape.cells, dtype=np.int32).reshape(shape.height, shape.width)
    turned = [
        np.rot90(np.fliplr(grid) if number >= 4 else grid, number % 4)
        for number in symmetries(shape)
    ]
    places = np.stack([board.reshape(-1) for board in turned])
    places.setflags(write=False)
    return places

"""Rotations and reflections of mazes, as augmentation and undone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.maze.board import MazeShape
from hrm_jax.puzzles.maze.generator import generate
from hrm_jax.puzzles.maze.solver import optimal
from hrm_jax.puzzles.maze.symmetry import (
    apply_dihedral,
    canonical,
    inverse,
    symmetries,
    transform,
    undo,
)

SHAPES = [MazeShape(4, 4), MazeShape(3, 5)]


@pytest.mark.parametrize(
    ("shape", "number"),
    [
        (shape, number)
        for shape in (*SHAPES, MazeShape(1, 2), MazeShape(5, 5), MazeShape(6, 2))
        for number in symmetries(shape)
    ],
)
def test_inverse_undoes(shape, number):
    boards = np.random.default_rng(number).integers(0, 6, (2, 3, shape.cells), np.uint8)
    turned = apply_dihedral(number, boards, shape)
    assert turned.dtype == boards.dtype
    np.testing.assert_array_equal(apply_dihedral(inverse(number), turned, shape), boards)
    np.testing.assert_array_equal(
        canonical(turned.reshape(6, -1), shape), canonical(boards.reshape(6, -1), shape)
    )


def test_symmetries_are_what_they_are_called():
    board = np.arange(9)
    assert apply_dihedral(1, board).tolist() == [2, 5, 8, 1, 4, 7, 0, 3, 6]  # counterclockwise
    assert apply_dihedral(4, board).tolist() == [2, 1, 0, 5, 4, 3, 8, 7, 6]
    assert apply_dihedral(2, board).tolist() == board[::-1].tolist()
    assert len({tuple(apply_dihedral(number, board)) for number in range(8)}) == 8


@pytest.mark.parametrize("shape", SHAPES)
def test_every_symmetry_is_drawn_as_often(shape):
    count = 1600
    keys = jax.random.split(jax.random.key(0), count)
    board = np.arange(shape.cells, dtype=np.int32)
    turned = jax.jit(jax.vmap(lambda key: transform(key, jnp.asarray(board), shape)))(keys)
    assert turned.dtype == np.int32
    wanted = {tuple(apply_dihedral(number, board, shape)) for number in symmetries(shape)}
    rows, counts = np.unique(turned, axis=0, return_counts=True)
    assert {tuple(row) for row in rows} == wanted
    mean = count / len(wanted)
    assert (abs(counts - mean) < 5 * np.sqrt(mean)).all()
    again = transform(keys[5], jnp.asarray(board), shape)
    np.testing.assert_array_equal(again, turned[5])


def test_augmented_answers_stay_optimal():
    shape = MazeShape(8, 8)
    mazes = generate(shape, 50, 9, 0)
    for number in symmetries(shape):
        inputs = apply_dihedral(number, mazes.questions)
        labels = apply_dihedral(number, mazes.answers)
        assert optimal(labels, inputs, shape)[1].all()


def test_bad_arguments_are_refused():
    with pytest.raises(DataError, match=r"symmetry is 1, expected one of \[0, 2, 4, 6\] for 3×5"):
        apply_dihedral(1, np.zeros(15), MazeShape(3, 5))
    with pytest.raises(DataError, match="boards have 15 cells, expected 16"):
        apply_dihedral(0, np.zeros(15), MazeShape(4, 4))
    with pytest.raises(DataError, match="symmetry is 8"):
        inverse(8)


@pytest.mark.parametrize("shape", [*SHAPES, MazeShape(2, 6)])
def test_undo_is_the_inverse_with_the_same_key(shape):
    boards = np.random.default_rng(0).integers(0, 6, (200, shape.cells), np.uint8)
    keys = jax.random.split(jax.random.key(1), len(boards))

    @jax.jit
    def there_and_back(keys, boards):
        there = jax.vmap(lambda key, x: transform(key, x, shape))(keys, boards)
        return there, jax.vmap(lambda key, x: undo(key, x, shape))(keys, there)

    there, back = there_and_back(keys, boards)
    assert back.dtype == np.uint8
    assert 0.6 < (np.asarray(there) != boards).any(1).mean() < 0.95  # all but the identity
    np.testing.assert_array_equal(back, boards)

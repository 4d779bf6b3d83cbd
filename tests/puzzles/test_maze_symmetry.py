"""Rotations and reflections of mazes, as augmentation and undone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.puzzles.maze.board import MazeShape
from hrm_jax.puzzles.maze.generator import generate
from hrm_jax.puzzles.maze.solver import optimal
from hrm_jax.puzzles.maze.symmetry import canonical, places, transform

SHAPES = [MazeShape(4, 4), MazeShape(3, 5)]


@pytest.mark.parametrize(
    ("shape", "number"),
    [
        (shape, number)
        for shape in (*SHAPES, MazeShape(1, 2), MazeShape(5, 5), MazeShape(6, 2))
        for number in range(8 if shape.height == shape.width else 4)
    ],
)
def test_another_symmetry_undoes_it_and_neither_changes_the_class(shape, number):
    boards = np.random.default_rng(number).integers(0, 6, (6, shape.cells), np.uint8)
    turned = boards[:, places(shape)[number]]
    back = {turned[:, other].tobytes() for other in places(shape)}
    assert boards.tobytes() in back
    np.testing.assert_array_equal(canonical(turned, shape), canonical(boards, shape))


def test_symmetries_are_what_they_are_called():
    table = places(MazeShape(3, 3)).tolist()
    assert table[1] == [2, 5, 8, 1, 4, 7, 0, 3, 6]  # counterclockwise
    assert table[4] == [2, 1, 0, 5, 4, 3, 8, 7, 6]
    assert table[2] == list(range(9))[::-1]
    assert len(set(map(tuple, table))) == 8
    assert [row[0] for row in places(MazeShape(2, 3)).tolist()] == [0, 5, 2, 3]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_symmetry_is_drawn_as_often(shape):
    count = 1600
    keys = jax.random.split(jax.random.key(0), count)
    board = np.arange(shape.cells, dtype=np.int32)
    turned = jax.jit(jax.vmap(lambda key: transform(key, jnp.asarray(board), shape)))(keys)
    assert turned.dtype == np.int32
    wanted = set(map(tuple, places(shape).tolist()))
    rows, counts = np.unique(turned, axis=0, return_counts=True)
    assert {tuple(row) for row in rows} == wanted
    mean = count / len(wanted)
    assert (abs(counts - mean) < 5 * np.sqrt(mean)).all()
    again = transform(keys[5], jnp.asarray(board), shape)
    np.testing.assert_array_equal(again, turned[5])


def test_augmented_answers_stay_optimal():
    shape = MazeShape(8, 8)
    mazes = generate(shape, 50, 9, 0)
    for turn in places(shape):
        assert optimal(mazes.answers[:, turn], mazes.questions[:, turn], shape)[1].all()


@pytest.mark.parametrize("shape", [*SHAPES, MazeShape(2, 6)])
def test_undo_is_the_inverse_with_the_same_key(shape):
    boards = np.random.default_rng(0).integers(0, 6, (200, shape.cells), np.uint8)
    keys = jax.random.split(jax.random.key(1), len(boards))

    @jax.jit
    def there_and_back(keys, boards):
        there = jax.vmap(lambda key, x: transform(key, x, shape))(keys, boards)
        return there, jax.vmap(lambda key, x: transform(key, x, shape, undo=True))(keys, there)

    there, back = there_and_back(keys, boards)
    assert back.dtype == np.uint8
    assert 0.6 < (np.asarray(there) != boards).any(1).mean() < 0.95  # all but the identity
    np.testing.assert_array_equal(back, boards)

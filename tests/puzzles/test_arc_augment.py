"""Symmetries of ARC tasks: the group, their names, and which are chosen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.arc.augment import (
    Augmentations,
    augmentations,
    canonical,
    dihedral,
    inverse_dihedral,
    parse_names,
    translate,
)
from hrm_jax.puzzles.arc.reader import ArcTask
from hrm_jax.puzzles.arc.tokens import encode


def task(name="t", colours=10, side=4, seed=0):
    random = np.random.default_rng(seed)
    grid = lambda: random.integers(0, colours, (side, side + 1), np.uint8)  # noqa: E731
    return ArcTask(name, ((grid(), grid()), (grid(), grid())), ((grid(), grid()),))


def test_dihedral_is_the_reference_s():
    grid = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    assert [dihedral(grid, number).tolist() for number in range(8)] == [
        [[1, 2, 3], [4, 5, 6]],
        [[3, 6], [2, 5], [1, 4]],
        [[6, 5, 4], [3, 2, 1]],
        [[4, 1], [5, 2], [6, 3]],
        [[3, 2, 1], [6, 5, 4]],
        [[4, 5, 6], [1, 2, 3]],
        [[1, 4], [2, 5], [3, 6]],
        [[6, 3], [5, 2], [4, 1]],
    ]


@pytest.mark.parametrize("number", range(8))
def test_undo_inverts_apply(number):
    random = np.random.default_rng(number)
    for shape in np.ndindex(5, 5):
        grid = random.integers(0, 10, np.add(shape, 1), np.uint8)
        colours = np.array([[0, *random.permutation(np.arange(1, 10))]], np.uint8)
        one = Augmentations(np.array([number], np.uint8), colours)
        np.testing.assert_array_equal(inverse_dihedral(dihedral(grid, number), number), grid)
        np.testing.assert_array_equal(one.undo(0, one.apply(0, grid)), grid)
        (name,) = one.names("a|||b")
        (owner,), again = parse_names([name])
        assert owner == "a|||b"
        np.testing.assert_array_equal(again.apply(0, grid), one.apply(0, grid))
        (owner,), again = parse_names([name.replace("a|||b", "a_b").replace("|||", "_")])  # HRM's
        assert owner == "a_b"
        np.testing.assert_array_equal(again.apply(0, grid), one.apply(0, grid))
        assert canonical([grid, grid]) == canonical([one.apply(0, grid)] * 2)


def test_canonical_tells_pairs_apart():
    a, b = np.array([[1, 0]], np.uint8), np.array([[2, 0]], np.uint8)
    assert canonical([a, a]) == canonical([b, b])
    assert canonical([a, a]) != canonical([a, b])
    assert canonical([a, a]) != canonical([a, a[:, ::-1]])
    assert canonical([np.array([[1]], np.uint8)]) != canonical([np.array([[0]], np.uint8)])


def test_choice_is_the_same_everywhere():
    """These numbers were computed once; a data set of another machine must agree."""
    chosen = augmentations(task(), 2, seed=0)
    assert chosen.names("t") == ["t", "t|||t4|||0932648715", "t|||t7|||0674235198"]
    more = augmentations(task(), 200, seed=0)
    assert len(more) == 201
    assert more.names("t")[:3] == chosen.names("t")
    assert augmentations(task(name="u"), 2, 0).names("t") != chosen.names("t")
    assert augmentations(task(), 2, 1).names("t") != chosen.names("t")
    counts = np.bincount(augmentations(task(), 1000, 0).dihedral, minlength=8)
    assert counts.min() > 80
    with pytest.raises(DataError, match="num_aug is -1"):
        augmentations(task(), -1, 0)


def test_augmentations_of_a_task_look_different():
    few = task(colours=2, side=2)  # colours 0 and 1: at most 8 · 9 looks
    chosen = augmentations(few, 300, 0)
    looks = set()
    for row in range(len(chosen)):
        pairs = [[chosen.apply(row, grid) for grid in pair] for pair in few.train]
        looks.add(str(sorted((x.tolist(), y.tolist()) for x, y in pairs)))
    assert 8 < len(looks) == len(chosen) <= 72
    blank = np.zeros((2, 2), np.uint8)
    assert len(augmentations(ArcTask("z", ((blank, blank),), ((blank, None),)), 50, 0)) == 1


def test_augmentations_do_not_depend_on_the_answers():
    with_answer = task(colours=3, side=2)
    without = ArcTask("t", with_answer.train, ((with_answer.test[0][0], None),))
    a, b = (augmentations(some, 50, 0) for some in (with_answer, without))
    assert a.names("t") == b.names("t")


@pytest.mark.parametrize("name", ["x|||t1|||0123456788", "x|||t1|||1023456789", "x_t1_0123456788"])
def test_bad_names_are_refused(name):
    with pytest.raises(DataError, match="its digits are no permutation"):
        parse_names(["x", name])


@functools.partial(jax.jit, static_argnames="canvas")
def many(keys, inputs, labels, canvas, stay):
    return jax.vmap(lambda key: translate(key, inputs, labels, canvas, stay=stay))(keys)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32])
def test_translate_moves_both_grids_alike(dtype):
    random = np.random.default_rng(0)
    canvas = 6
    x = random.integers(0, 10, (3, 2), np.uint8)
    y = random.integers(0, 10, (2, 5), np.uint8)
    keys = jax.random.split(jax.random.key(0), 400)
    inputs, labels = (jnp.asarray(encode(grid, canvas), dtype) for grid in (x, y))
    moved, targets = many(keys, inputs, labels, canvas, 0.0)
    assert moved.dtype == targets.dtype == dtype
    allowed = {
        (encode(x, canvas, row, column).tobytes(), encode(y, canvas, row, column).tobytes())
        for row in range(4)
        for column in range(2)
    }
    found = [
        (a.tobytes(), b.tobytes())
        for a, b in zip(np.asarray(moved, np.uint8), np.asarray(targets, np.uint8), strict=True)
    ]
    assert set(found) == allowed
    assert max(map(found.count, allowed)) < 2 * 400 / 8
    stayed, _ = many(keys, inputs, labels, canvas, 1.0)
    assert (stayed == inputs).all()
    halves, _ = many(keys, inputs, labels, canvas, 0.5)
    assert 180 < int((halves == inputs).all(1).sum()) < 270  # 0.5 + 0.5 / 8 of 400


def test_translate_leaves_a_full_grid_where_it_is():
    grid = jnp.full(36, 5, jnp.uint8)
    keys = jax.random.split(jax.random.key(0), 400)
    moved, targets = many(keys, grid, jnp.zeros_like(grid), 6, 0.0)
    assert (moved == grid).all()
    assert not targets.any()

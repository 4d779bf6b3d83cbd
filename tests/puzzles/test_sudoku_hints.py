"""Hints: how many blanks are filled, which ones, and with what."""

import functools

import jax
import numpy as np
import pytest

from hrm_jax.puzzles.sudoku.board import SudokuShape, to_tokens
from hrm_jax.puzzles.sudoku.generator import generate
from hrm_jax.puzzles.sudoku.hints import add_hints


@functools.partial(jax.jit, static_argnames=("share", "count"))
def _many(inputs, labels, share, count, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    return jax.vmap(lambda key: add_hints(key, inputs, labels, share))(keys)


@pytest.fixture(scope="module")
def puzzle():
    shape = SudokuShape.of(4)
    puzzles = generate(shape, 1, (9, 9), 0)  # 7 blanks
    return to_tokens(puzzles.questions[0]), to_tokens(puzzles.answers[0])


def test_hints_are_right_and_leave_a_blank(puzzle):
    inputs, labels = puzzle
    hinted = np.asarray(_many(inputs, labels, 1.0, 6000))
    assert hinted.dtype == inputs.dtype
    assert ((hinted == inputs) | ((inputs == 1) & (hinted == labels))).all()
    filled = (hinted != inputs).sum(1)
    counts = np.bincount(filled, minlength=8)
    assert counts[0] == counts[7] == 0
    assert (abs(counts[1:7] - 1000) < 5 * np.sqrt(1000)).all()  # uniform over 1 to 6
    each = (hinted != inputs)[:, inputs == 1].mean(0)  # each blank as often as the others
    assert (abs(each - filled.mean() / 7) < 0.04).all()


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_share_of_the_draws_gets_hints(share, puzzle):
    inputs, labels = puzzle
    hinted = np.asarray(_many(inputs, labels, share, 2000))
    got = (hinted != inputs).any(1).mean()
    assert abs(got - share) < 0.06 if share else got == 0


def test_what_is_not_filled(puzzle):
    inputs, labels = puzzle
    one_blank = np.where(np.arange(16) == 3, 1, labels).astype(np.uint8)
    assert (np.asarray(_many(one_blank, labels, 1.0, 50)) == one_blank).all()
    assert (np.asarray(_many(labels, labels, 1.0, 50)) == labels).all()  # no blank at all
    ignored = np.where(inputs == 1, -100, labels.astype(np.int32))
    ignored[np.flatnonzero(inputs == 1)[:3]] = labels[np.flatnonzero(inputs == 1)[:3]]
    hinted = np.asarray(_many(inputs, ignored, 1.0, 200))
    assert set(np.unique(hinted)) <= set(range(1, 6))
    assert ((hinted == inputs) | (ignored > 1)).all()
    assert (hinted != inputs).sum(1).max() == 2


def test_the_key_decides(puzzle):
    inputs, labels = puzzle
    key = jax.random.key(1)
    once = add_hints(key, inputs, labels, 1.0)
    np.testing.assert_array_equal(once, jax.jit(add_hints)(key, inputs, labels, 1.0))
    many = np.asarray(_many(inputs, labels, 1.0, 50))
    assert len(np.unique(many, axis=0)) > 20

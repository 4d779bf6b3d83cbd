"""Training batches by index."""

import json

import numpy as np
import pytest

from hrm_jax.data.npy_folder import PuzzleSet
from hrm_jax.data.pipeline import PuzzleBatches, batch_iterator


@pytest.fixture(scope="module")
def simple():
    """Ten examples, each a puzzle and a group; the tokens are the example's number."""
    tokens = np.repeat(np.arange(10)[:, None], 4, axis=1)
    return PuzzleSet.simple(tokens, tokens, vocab_size=10, ignore_label_id=None)


@pytest.fixture(scope="module")
def nested():
    """Two groups: puzzles {0, 1} and {2}; examples {0, 1, 2}, {3} and {4, 5}."""
    tokens = np.repeat(np.arange(6)[:, None], 4, axis=1)
    return PuzzleSet.build(
        tokens,
        tokens,
        vocab_size=6,
        ignore_label_id=None,
        puzzle_identifiers=[7, 8, 9],
        puzzle_indices=[0, 3, 4, 6],
        group_indices=[0, 2, 3],
        num_puzzle_identifiers=10,
    )


def _same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_batches_are_a_function_of_seed_and_index(simple):
    one, two = PuzzleBatches(simple, 4, seed=3), PuzzleBatches(simple, 4, seed=3)
    forwards = [one[i] for i in range(20)]
    for i in reversed(range(20)):
        _same(two[i], forwards[i])
    other = PuzzleBatches(simple, 4, seed=4)
    assert any(not np.array_equal(other[i]["inputs"], forwards[i]["inputs"]) for i in range(5))


@pytest.mark.parametrize("size", [1, 4, 10, 25])
def test_an_epoch_visits_each_group_once_in_a_new_order(size, simple):
    source = PuzzleBatches(simple, size, seed=0)
    drawn = np.concatenate([source[i]["inputs"][:, 0] for i in range(100 // size)])
    epochs = drawn.reshape(10, 10)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(10))
    assert len({tuple(epoch) for epoch in epochs}) > 5


def test_draws_are_uniform_over_groups_puzzles_and_examples(nested):
    source = PuzzleBatches(nested, 6, seed=0)
    batches = [source[i] for i in range(2000)]
    example = np.concatenate([b["inputs"][:, 0] for b in batches])
    identifier = np.concatenate([b["puzzle_identifiers"] for b in batches])
    np.testing.assert_array_equal(identifier, np.array([7, 7, 7, 8, 9, 9])[example])
    share = np.bincount(example, minlength=6) / len(example)
    np.testing.assert_allclose(share, [1 / 12, 1 / 12, 1 / 12, 1 / 4, 1 / 4, 1 / 4], atol=0.01)
    assert batches[0]["puzzle_identifiers"].dtype == np.int32


@pytest.mark.parametrize("processes", [2, 4])
def test_the_parts_of_all_processes_are_the_whole_batch(processes, nested):
    whole = PuzzleBatches(nested, 8, seed=1)
    parts = [PuzzleBatches(nested, 8, 1, process, processes) for process in range(processes)]
    for i in (0, 1, 50):
        together = [part[i] for part in parts]
        _same({k: np.concatenate([t[k] for t in together]) for k in whole[i]}, whole[i])


def test_processes_must_divide_the_batch(simple):
    with pytest.raises(ValueError, match="batch_size 8 cannot be divided among 3 processes"):
        PuzzleBatches(simple, 8, 0, 0, 3)


def test_an_iterator_goes_on_from_its_saved_position(simple):
    source = PuzzleBatches(simple, 4, seed=2)
    iterator = batch_iterator(source)
    for i in range(7):
        _same(next(iterator), source[i])
    position = json.loads(json.dumps(iterator.get_state()))
    other = batch_iterator(PuzzleBatches(simple, 4, seed=2))
    next(other)
    other.set_state(position)
    for i in range(7, 12):
        _same(next(other), source[i])
        _same(next(iterator), source[i])

"""What every puzzle keeps of the contract of `hrm_jax.puzzles.base`, and which one is guessed."""

import itertools

import jax
import numpy as np
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.puzzles import PUZZLES, guess

SMALL = {
    "sudoku": {"size": 4, "num_train": 12, "num_test": 6},
    "maze": {"size": 5, "num_train": 12, "num_test": 6, "min_path": 3},
    "domino": {"num_train": 12, "num_test": 6},
    "latin": {"size": 4, "num_train": 12, "num_test": 6},
    "arc": {"num_train": 4, "num_test": 2, "num_aug": 1, "side": 4},
}


@pytest.fixture(scope="module", params=PUZZLES)
def puzzle(request):
    return PUZZLES[request.param]


@pytest.fixture(scope="module")
def small(puzzle):
    """Which puzzles a small data set has."""
    return puzzle.data(**SMALL.get(puzzle.name, {"num_train": 12, "num_test": 6}))


@pytest.fixture(scope="module")
def made(puzzle, small):
    return puzzle.load(small)


def test_its_data_have_its_sizes(puzzle, small, made):
    meta = made.train.metadata
    assert puzzle.fits(meta.seq_len, meta.vocab_size)
    assert not puzzle.fits(meta.seq_len, meta.vocab_size + 1)
    assert puzzle.vocab_size(meta.seq_len) == meta.vocab_size
    assert np.prod(puzzle.shape(meta.seq_len)) == meta.seq_len
    assert made.identity.builder == puzzle.name
    assert made.identity == puzzle.load(small).identity


def test_its_units_are_groups_of_cells(puzzle, made):
    length = made.train.metadata.seq_len
    for unit in itertools.chain.from_iterable(puzzle.units(length)):
        assert unit.dtype == np.int64
        assert unit.ndim == 1
        assert len(set(unit.tolist())) == len(unit) > 1
        assert 0 <= unit.min() <= unit.max() < length


def test_its_examples_are_sound_and_shown(puzzle, made):
    for part, test in ((made.train, False), (made.test, True)):
        inputs, labels = part.inputs.astype(np.int64), part.labels.astype(np.int64)
        columns = puzzle.columns(inputs, labels)
        for _, bad, what in puzzle.check(inputs, labels, columns, test=test):
            assert not bad.any(), what
        noise = np.random.default_rng(0).integers(-2, 99, inputs.shape)  # anything can be checked
        assert any(bad.any() for _, bad, _ in puzzle.check(noise, noise, columns, test=test))


def test_text_and_back(puzzle, made):
    if not puzzle.as_text:
        with pytest.raises(ValueError, match="not given as text"):
            puzzle.parse("1", 25)
        return
    for tokens in made.test.inputs:
        text = puzzle.to_text(tokens)
        assert "\n" not in text
        np.testing.assert_array_equal(puzzle.parse(text, len(tokens)), tokens)


def test_labels_get_full_marks(puzzle, made):
    inputs, labels = made.test.inputs, made.test.labels
    verdicts = puzzle.score(inputs, labels, labels)
    assert all(verdict.all() for verdict in verdicts.values())
    assert not puzzle.good or puzzle.good in verdicts
    wrong = puzzle.score(inputs, labels, np.zeros_like(labels))
    assert not any(verdict.any() for verdict in wrong.values())
    valid = puzzle.valid(inputs, labels)
    if valid is None:
        with pytest.raises(ValueError, match=r"verify: answers to .* cannot be checked"):
            puzzle.obeys(inputs, labels)
    else:
        assert valid.all()
        assert puzzle.obeys(inputs, labels).all()
        assert puzzle.verdict(inputs[0], labels[0]) != puzzle.verdict(inputs[0], 0 * labels[0])


def test_augmented_examples_are_as_good(puzzle, made):
    data = puzzle.data()
    assert puzzle.augments(data)
    assert not puzzle.augments(puzzle.data(augment=False))
    train = made.train
    keys = jax.random.split(jax.random.key(3), len(train))
    augment = jax.jit(jax.vmap(lambda *xs: puzzle.augment(data, *xs)))
    inputs, labels = map(np.asarray, augment(keys, train.inputs, train.labels))
    assert (inputs != train.inputs).any()
    columns = puzzle.columns(inputs, labels)
    for _, bad, what in puzzle.check(inputs.astype(int), labels.astype(int), columns, test=False):
        assert not bad.any(), what


def test_fields_of_the_builder_are_refused_in_training():
    with pytest.raises(ConfigError, match=r"data\.width is 7: only launch/build_dataset\.py"):
        PUZZLES["maze"].load(PUZZLES["maze"].data(size=5, width=7))


@pytest.mark.parametrize(
    ("seq_len", "vocab_size", "name"),
    [
        (16, 6, "sudoku"),  # a maze or Latin square of 4×4 would fit too
        (36, 8, "sudoku"),
        (81, 11, "sudoku"),
        (25, 7, "latin"),
        (64, 10, "latin"),
        (900, 6, "maze"),
        (900, 12, "arc"),
        (72, 8, "domino"),
        (100, 40, None),
        (17, 6, None),
    ],
)
def test_puzzles_are_guessed_from_the_sizes(seq_len, vocab_size, name):
    assert getattr(guess(seq_len, vocab_size), "name", None) == name
    if name:  # and where there is no vocabulary, from the tokens that occur
        assert guess(seq_len, tokens=vocab_size).name == name

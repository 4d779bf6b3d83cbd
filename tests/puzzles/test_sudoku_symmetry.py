"""Symmetries: uniform, rule-keeping augmentation, and the canonical form against brute force."""

import itertools

import jax
import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.digits.board import is_solution
from hrm_jax.puzzles.sudoku.board import SudokuShape, from_tokens, to_tokens
from hrm_jax.puzzles.sudoku.generator import generate
from hrm_jax.puzzles.sudoku.puzzle import SUDOKU
from hrm_jax.puzzles.sudoku.symmetry import canonical


def many(count, inputs, labels=None, seed=0):
    """A puzzle and its labels under `count` symmetries."""
    keys = jax.random.split(jax.random.key(seed), count)
    labels = inputs if labels is None else labels
    return tuple(np.asarray(transform_many(keys, tokens)) for tokens in (inputs, labels))


transform_many = jax.jit(jax.vmap(SUDOKU.transform, (0, None)))


def line_orders(size, per_block):
    """All orders of rows (or columns) that keep the blocks together: int [n, size]."""
    within = list(itertools.permutations(range(per_block)))
    return np.array(
        [
            [
                block * per_block + line
                for block, lines in zip(blocks, pick, strict=True)
                for line in lines
            ]
            for blocks in itertools.permutations(range(size // per_block))
            for pick in itertools.product(within, repeat=size // per_block)
        ]
    )


def brute_force_canonical(board, shape):
    """Relabels every image of the board so that its first row is 1 … N, and takes the least."""
    grid = board.reshape(shape.size, shape.size)
    rows, cols = (line_orders(shape.size, n) for n in (shape.box_rows, shape.box_cols))
    best = None
    for start in (grid, grid.T) if shape.box_rows == shape.box_cols else (grid,):
        for order in rows:
            images = start[order][:, cols].transpose(1, 0, 2).reshape(len(cols), -1)
            places = np.argsort(images[:, : shape.size], axis=1) + 1
            images = np.take_along_axis(places, images - 1, axis=1).astype(np.uint8)
            least = min(image.tobytes() for image in images)
            best = least if best is None else min(best, least)
    return np.frombuffer(best, np.uint8)


@pytest.mark.parametrize("size", [4, 6, 9])
def test_augmented_puzzles_keep_the_rules_and_belong_together(size):
    shape = SudokuShape.of(size)
    puzzle = generate(shape, 1, (size * size // 2,) * 2, 1)
    question, answer = to_tokens(puzzle.questions[0]), to_tokens(puzzle.answers[0])
    inputs, labels = many(64, question, answer)
    assert inputs.dtype == labels.dtype == np.uint8
    assert is_solution(from_tokens(labels), shape).all()
    given = inputs != 1
    assert (given.sum(1) == (question != 1).sum()).all()
    np.testing.assert_array_equal(inputs[given], labels[given])
    assert len(np.unique(labels, axis=0)) > 30
    assert (canonical(from_tokens(labels), shape) == canonical(puzzle.answers, shape)).all()


@pytest.mark.parametrize(("size", "elements"), [(4, 128), (6, 48 * 72)])
def test_cells_move_uniformly_over_the_group(size, elements):
    shape = SudokuShape.of(size)
    places = np.arange(shape.cells, dtype=np.int32) + 100  # no tokens of digits: not relabelled
    moved, _ = many(20 * elements, places)
    kinds, counts = np.unique(moved, axis=0, return_counts=True)
    assert len(kinds) == elements
    chi2 = ((counts - 20) ** 2 / 20).sum()
    assert abs(chi2 - elements) < 5 * np.sqrt(2 * elements)
    grids = kinds.reshape(-1, size, size) - 100
    rows = {tuple(row) for row in line_orders(size, shape.box_rows).tolist()}
    straight = (grids // size == grids[:, :, :1] // size).all((1, 2))
    assert straight.mean() == (
        0.5 if size == 4 else 1.0
    )  # half are transposed where boxes are square
    assert {
        tuple(grid[:, 0] // size) for grid in grids[straight].tolist() for grid in [np.array(grid)]
    } == rows


def test_digits_are_relabelled_uniformly():
    inputs = np.repeat(np.arange(2, 6, dtype=np.uint8), 4)
    relabelled, _ = many(4800, inputs)
    firsts = np.bincount(relabelled[:, 0], minlength=6)
    assert firsts[:2].sum() == 0
    assert (abs(firsts[2:] - 1200) < 5 * np.sqrt(1200)).all()
    assert all(np.bincount(row, minlength=6)[2:].tolist() == [4] * 4 for row in relabelled)


def test_pads_blanks_and_ignored_labels_stay_what_they_are():
    inputs = np.array([0, 1, 5] * 12, np.uint8)
    labels = np.array([0, -100, 5] * 12, np.int32)
    new_inputs, new_labels = many(50, inputs, labels)
    assert new_labels.dtype == np.int32
    assert ((new_labels == -100) == (new_inputs == 1)).all()
    assert ((new_labels == 0) == (new_inputs == 0)).all()
    assert (new_labels[new_inputs > 1] == new_inputs[new_inputs > 1]).all()
    assert set(np.unique(new_labels)) == {-100, 0, 2, 3, 4, 5, 6, 7}


def test_same_key_same_symmetry_with_and_without_jit():
    shape = SudokuShape.of(4)
    tokens = np.asarray(to_tokens(generate(shape, 1, (16, 16), 0).answers[0]))
    key = jax.random.key(3)
    jitted = jax.jit(SUDOKU.transform)
    plain = SUDOKU.transform(key, tokens)
    np.testing.assert_array_equal(plain, jitted(key, tokens))
    assert (np.asarray(jitted(jax.random.key(4), tokens)) != plain).any()


@pytest.mark.parametrize("size", [4, 6])
def test_canonical_is_the_least_of_the_orbit(size):
    shape = SudokuShape.of(size)
    grids = generate(shape, 12, (size * size,) * 2, 5).answers
    expected = np.array([brute_force_canonical(grid, shape) for grid in grids])
    np.testing.assert_array_equal(canonical(grids, shape), expected)
    assert len(np.unique(expected, axis=0)) > 1


@pytest.mark.slow
def test_canonical_is_the_least_of_the_orbit_9x9():
    shape = SudokuShape.of(9)
    grid = generate(shape, 1, (81, 81), 5).answers
    np.testing.assert_array_equal(canonical(grid, shape)[0], brute_force_canonical(grid[0], shape))


def test_canonical_is_the_same_over_a_9x9_orbit_and_differs_between_grids():
    shape = SudokuShape.of(9)
    grids = generate(shape, 5, (81, 81), 6).answers
    forms = canonical(grids, shape)
    assert len(np.unique(forms, axis=0)) == 5
    assert is_solution(forms, shape).all()
    np.testing.assert_array_equal(canonical(forms, shape), forms)
    for grid, form in zip(grids, forms, strict=True):
        images, _ = many(40, to_tokens(grid))
        assert (canonical(from_tokens(images), shape) == form).all()


def test_the_most_symmetric_grid_is_its_own_quick_case():
    shape = SudokuShape.of(9)
    rows = [[(3 * (r % 3) + r // 3 + c) % 9 + 1 for c in range(9)] for r in range(9)]
    grid = np.array(rows, np.int8).reshape(1, -1)
    images, _ = many(20, to_tokens(grid[0]))
    assert (canonical(from_tokens(images), shape) == canonical(grid, shape)).all()


def test_numbers_of_classes():
    shape = SudokuShape.of(4)
    grids = generate(shape, 288, (16, 16), 0).answers
    _, counts = np.unique(canonical(grids, shape), axis=0, return_counts=True)
    assert counts.tolist() == [96, 192]
    shape = SudokuShape.of(6)
    grids = generate(shape, 6000, (36, 36), 0).answers
    assert 46 <= len(np.unique(canonical(grids, shape), axis=0)) <= 49


def test_canonical_refuses_what_is_no_grid():
    shape = SudokuShape.of(4)
    grids = generate(shape, 3, (16, 16), 0).answers.copy()
    grids[1, 0] = 0
    with pytest.raises(DataError, match="row 1"):
        canonical(grids, shape)


@pytest.mark.parametrize("size", [4, 6])
def test_restoring_is_the_inverse_with_the_same_key(size):
    shape = SudokuShape.of(size)
    random = np.random.default_rng(size)
    boards = random.integers(0, shape.vocab_size, (500, shape.cells), np.uint8)  # as models answer
    keys = jax.random.split(jax.random.key(size), len(boards))

    @jax.jit
    def there_and_back(keys, boards):
        there, restore = jax.vmap(SUDOKU.transform)(keys, boards), jax.vmap(SUDOKU.restore)
        return there, restore(keys, there), restore(keys[::-1], there)

    there, back, others = there_and_back(keys, boards)
    assert back.dtype == np.uint8
    assert (np.asarray(there) != boards).any(1).mean() > 0.99
    np.testing.assert_array_equal(back, boards)
    assert (np.asarray(others) != boards).any(1).mean() > 0.99

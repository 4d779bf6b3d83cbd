"""Sudoku puzzles as the token arrays that models are trained on."""

from __future__ import annotations

import functools

import jax
import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.data.npy_folder import PuzzleSet
from hrm_jax.puzzles.sudoku.board import SudokuShape, to_tokens
from hrm_jax.puzzles.sudoku.generator import SudokuPuzzles
from hrm_jax.puzzles.sudoku.symmetry import augment


def to_puzzle_set(puzzles: SudokuPuzzles, shape: SudokuShape) -> PuzzleSet:
    """Turns puzzles into tokens (0 pad, 1 blank, digit + 1), each a puzzle and group of its own.

    Returns:
        E examples of N² tokens; pad, ignore label and blank identifier are 0, as in the reference.
    """
    return PuzzleSet.simple(
        to_tokens(puzzles.questions),
        to_tokens(puzzles.answers),
        vocab_size=shape.vocab_size,
        ignore_label_id=0,
        ratings=puzzles.ratings,
    )


def augmented_puzzle_set(
    puzzles: SudokuPuzzles, shape: SudokuShape, num_aug: int, seed: int
) -> PuzzleSet:
    """Builds augmentations in advance, as `dataset/build_sudoku_dataset.py` of the reference does.

    Args:
        puzzles: E puzzles.
        shape: Their shape.
        num_aug: Augmentations of each.
        seed: Seed of the augmentations.

    Returns:
        E · (1 + num_aug) examples, each a puzzle of its own; the original and then its
        augmentations form a group.

    Raises:
        DataError: `num_aug` is negative.
    """
    if num_aug < 0:
        raise DataError(f"num_aug is {num_aug}, expected 0 or more")
    each = 1 + num_aug
    inputs = np.empty((len(puzzles), each, shape.cells), np.uint8)
    labels = np.empty_like(inputs)
    inputs[:, 0], labels[:, 0] = to_tokens(puzzles.questions), to_tokens(puzzles.answers)
    if num_aug:
        key = jax.random.key(seed)
        for row in range(len(puzzles)):
            inputs[row, 1:], labels[row, 1:] = _augmentations(
                jax.random.fold_in(key, row), inputs[row, 0], labels[row, 0], num_aug, shape
            )
    return PuzzleSet.grouped(inputs, labels, shape.vocab_size, 0, puzzles.ratings)


@functools.partial(jax.jit, static_argnames=("number", "shape"))
def _augmentations(
    key: jax.Array, inputs: jax.Array, labels: jax.Array, number: int, shape: SudokuShape
) -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(key, number)
    return jax.vmap(lambda k: augment(k, inputs, labels, shape))(keys)

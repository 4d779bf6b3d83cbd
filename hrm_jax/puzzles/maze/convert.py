"""Mazes as the token arrays that models are trained on."""

from __future__ import annotations

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.data.npy_folder import PuzzleSet
from hrm_jax.puzzles.maze.board import VOCAB_SIZE
from hrm_jax.puzzles.maze.generator import MazePuzzles
from hrm_jax.puzzles.maze.symmetry import apply_dihedral, symmetries


def to_puzzle_set(puzzles: MazePuzzles) -> PuzzleSet:
    """Makes each maze a puzzle and group of its own.

    Returns:
        E examples of H·W tokens; pad, ignore label and blank identifier are 0, as in the
        reference. No label is 0, so every cell counts.
    """
    return PuzzleSet.simple(
        puzzles.questions,
        puzzles.answers,
        vocab_size=VOCAB_SIZE,
        ignore_label_id=0,
        ratings=puzzles.ratings,
    )


def augmented_puzzle_set(puzzles: MazePuzzles, num_aug: int, seed: int) -> PuzzleSet:
    """Builds augmentations in advance, as `dataset/build_maze_dataset.py` of the reference does.

    Args:
        puzzles: E mazes.
        num_aug: Rotations and reflections of each, all different: 7 for all of a square, as in
            the reference; fewer are picked at random.
        seed: Seed of the choice.

    Returns:
        E · (1 + num_aug) examples, each a puzzle of its own; the original and then its
        augmentations form a group.

    Raises:
        DataError: There are not so many augmentations.
    """
    shape = puzzles.shape
    others = np.array(symmetries(shape)[1:])
    if not 0 <= num_aug <= len(others):
        raise DataError(
            f"num_aug is {num_aug}, expected 0 to {len(others)}, the rotations and reflections of "
            f"{shape.height}×{shape.width}"
        )
    each = 1 + num_aug
    random = np.random.Generator(np.random.PCG64(seed))
    chosen = np.zeros((len(puzzles), each), np.int64)
    for row in range(len(puzzles)):
        chosen[row, 1:] = np.sort(random.choice(others, num_aug, replace=False))
    inputs = np.empty((len(puzzles), each, shape.cells), np.uint8)
    labels = np.empty_like(inputs)
    for number in symmetries(shape):
        rows, places = np.nonzero(chosen == number)
        inputs[rows, places] = apply_dihedral(number, puzzles.questions[rows], shape)
        labels[rows, places] = apply_dihedral(number, puzzles.answers[rows], shape)
    return PuzzleSet.grouped(inputs, labels, VOCAB_SIZE, 0, puzzles.ratings)

"""ARC tasks and their symmetries as the token arrays that models are trained on."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.puzzles.arc.augment import Augmentations, augmentations, dihedral
from hrm_jax.puzzles.arc.reader import ArcTask, Grid
from hrm_jax.puzzles.arc.tokens import EOS, FIRST_COLOUR, PAD, VOCAB_SIZE, encode

BLANK = "<blank>"


@dataclasses.dataclass(frozen=True)
class _Group:
    """A task's examples in one split; its puzzles are the symmetries."""

    pairs: Sequence[tuple[Grid, Grid | None]]
    symmetries: Augmentations
    first_identifier: int


def to_puzzle_sets(
    training: Sequence[ArcTask],
    evaluation: Sequence[ArcTask],
    *,
    canvas: int,
    num_aug: int,
    test_aug: int | None = None,
    seed: int = 0,
    scratch: pathlib.Path | None = None,
) -> tuple[PuzzleSet, PuzzleSet, list[str]]:
    """Makes the splits of the reference: a group is a task, a puzzle one of its symmetries.

    Train: demonstrations and test pairs of the training tasks, demonstrations of the evaluation
    tasks. Test: the test inputs of the evaluation tasks; unknown outputs are all pad. In both,
    grids are at the origin; see `augment.translate`.

    Args:
        training: Tasks to train on; may be none.
        evaluation: Tasks to evaluate, named otherwise.
        canvas: Rows and columns of the canvas; a sequence has canvas · canvas tokens.
        num_aug: Augmentations of each task, besides the task itself.
        test_aug: How many of them the test has; None for all.
        seed: Seed of the augmentations.
        scratch: Folder for the arrays, which are then mapped files: a thousand augmentations of
            ARC-AGI-1 are 7 GB. None keeps them in memory.

    Returns:
        Train, test and the identifiers' names, `<blank>` first. A symmetry of an evaluation task
        has one identifier in both splits.

    Raises:
        DataError: No evaluation tasks, a grid that does not fit, or bad numbers.
    """
    if not evaluation:
        raise DataError("there are no evaluation tasks")
    if test_aug is not None and test_aug < 0:
        raise DataError(f"test_aug is {test_aug}, expected 0 or more")
    identifiers = [BLANK]
    train: list[_Group] = []
    test: list[_Group] = []
    for held_out, task in [(False, t) for t in training] + [(True, t) for t in evaluation]:
        if task.side() > canvas:
            raise DataError(
                f"task {task.name} has a grid of {task.side()} rows or columns, the canvas has "
                f"{canvas}; set max_grid to leave out such tasks, or a larger canvas"
            )
        symmetries = augmentations(task, num_aug, seed)
        first = len(identifiers)
        identifiers += symmetries.names(task.name)
        known = [] if held_out else [pair for pair in task.test if pair[1] is not None]
        train.append(_Group([*task.train, *known], symmetries, first))
        if held_out:
            tested = len(symmetries) if test_aug is None else 1 + test_aug
            test.append(_Group(task.test, symmetries.take(slice(tested)), first))
    sets = [
        _puzzle_set(split, groups, canvas, len(identifiers), scratch)
        for split, groups in (("train", train), ("test", test))
    ]
    return sets[0], sets[1], identifiers


def _puzzle_set(
    split: str,
    groups: list[_Group],
    canvas: int,
    num_identifiers: int,
    scratch: pathlib.Path | None,
) -> PuzzleSet:
    puzzles = np.array([len(group.symmetries) for group in groups])
    sizes = np.array([len(group.pairs) for group in groups])
    shape = (int((puzzles * sizes).sum()), canvas * canvas)
    inputs, labels = (_allocate(shape, scratch, f"{split}_{name}") for name in ("inputs", "labels"))
    row = 0
    for group in groups:
        count = len(group.symmetries) * len(group.pairs)
        for place, (source, target) in enumerate(group.pairs):
            rows = slice(row + place, row + count, len(group.pairs))
            _write(inputs[rows], source, group.symmetries, canvas)
            if target is not None:
                _write(labels[rows], target, group.symmetries, canvas)
        row += count
    return PuzzleSet.build(
        inputs,
        labels,
        vocab_size=VOCAB_SIZE,
        ignore_label_id=PAD,
        puzzle_identifiers=np.concatenate(
            [group.first_identifier + np.arange(len(group.symmetries)) for group in groups]
        ),
        puzzle_indices=np.concatenate([[0], np.cumsum(np.repeat(sizes, puzzles))]),
        group_indices=np.concatenate([[0], np.cumsum(puzzles)]),
        num_puzzle_identifiers=num_identifiers,
        where=split,
    )


def _allocate(
    shape: tuple[int, int], scratch: pathlib.Path | None, name: str
) -> npt.NDArray[np.uint8]:
    """Zeros, that is pad."""
    if scratch is None:
        return np.zeros(shape, np.uint8)
    return np.lib.format.open_memmap(
        scratch / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape
    )


def _write(out: npt.NDArray[np.uint8], grid: Grid, symmetries: Augmentations, canvas: int) -> None:
    """Fills `out` [A, S], all pad, with the grid under each symmetry: a lookup for each turn."""
    count = len(symmetries)
    tables = np.empty((VOCAB_SIZE, count), np.uint8)
    tables[PAD], tables[EOS] = PAD, EOS
    tables[FIRST_COLOUR:] = symmetries.colours.T + FIRST_COLOUR
    canvases = out.reshape(count, canvas, canvas)
    for number in np.unique(symmetries.dihedral).tolist():
        turned = dihedral(grid, number)
        height, width = (side + 1 for side in turned.shape)  # with its end; the rest is pad
        tokens = encode(turned, canvas).reshape(canvas, canvas)[:height, :width]
        rows = np.flatnonzero(symmetries.dihedral == number)
        canvases[rows, :height, :width] = np.moveaxis(tables[:, rows][tokens], 2, 0)

"""ARC data sets: from ARC-AGI's and ConceptARC's files or made up, without leaks, as tokens."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.fields import require
from hrm_jax.puzzles.arc.augment import Augmentations, augmentations, dihedral
from hrm_jax.puzzles.arc.leaks import without_leaks
from hrm_jax.puzzles.arc.reader import ArcTask, Grid, read_subsets
from hrm_jax.puzzles.arc.synthetic import FAMILIES, generate_tasks
from hrm_jax.puzzles.arc.tokens import EOS, FIRST_COLOUR, PAD, VOCAB_SIZE, encode
from hrm_jax.puzzles.base import Array, PuzzleData, only


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArcData(PuzzleData):
    """Which tasks: a data set folder, files, or else made-up ones.

    Attributes:
        training: Sources of training tasks, separated by commas: folders, archives or Kaggle's
            files, see `reader.read_tasks`; their split `training`, or all tasks of a source
            without splits, or those that are named behind it, as in `combined:training2+concept`.
        evaluation: Source of the evaluation tasks; its split `evaluation`, or else `test`, or all
            tasks of a source without splits, or those that are named.
        num_aug: Augmentations of each task, besides the task itself; the paper has 1000.
        test_aug: How many of them are in the test; -1 for all.
        canvas: Rows and columns of the canvas; 0: 30, or one more than `side` if made up.
        max_grid: Tasks with a longer side are left out; 0: every task must fit the canvas.
        num_train, num_test: Made-up training and evaluation tasks.
        side: Longest side of made-up grids.
        demonstrations: Demonstrations of each made-up task.
        families: Kinds of made-up rules, separated by commas, of `synthetic.FAMILIES`; "" for all.
    """

    training: str = dataclasses.field(default="", metadata={"many": True})
    evaluation: str = ""
    num_aug: int = 100
    test_aug: int = -1
    canvas: int = 0
    max_grid: int = 0
    num_train: int = only("draw", 480)
    num_test: int = only("draw", 48)
    side: int = only("draw", 6)
    demonstrations: int = only("draw", 3)
    families: str = only("draw", "")

    def files(self) -> str:
        return "training" if self.training or self.evaluation else ""

    def unused(self) -> dict[str, str]:
        nothing = {"seed": "num_aug is 0: nothing is drawn"}
        return {**({} if self.num_aug or not self.files() else nothing), **super().unused()}

    def __post_init__(self) -> None:
        require(
            not (self.path and (self.training or self.evaluation)),
            "data.path and data.training/evaluation: give one or the other",
        )
        require(self.test_aug >= -1, f"data.test_aug: expected -1 or more, got {self.test_aug}")


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def load_tasks(data: ArcData) -> tuple[list[ArcTask], list[ArcTask], list[str]]:
    """Reads or makes up training and evaluation tasks.

    The third list says which training pairs were left out because they give an answer: see
    `leaks.without_leaks`, which refuses evaluation tasks among the training tasks.
    """
    if bool(data.training) != bool(data.evaluation):
        raise DataError("training and evaluation belong together: give both or neither")
    if data.evaluation:
        found: dict[str, tuple[ArcTask, str]] = {}
        for path in _parts(data.training):
            for task in read_subsets(path, ("training", "all")):
                if task.name in found:
                    raise DataError(
                        f"{path}: its training task {task.name} is also in {found[task.name][1]}; "
                        f"ARC-AGI-2 holds most of ARC-AGI-1, give one of them"
                    )
                found[task.name] = (task, path)
        training = [task for task, _ in found.values()]
        evaluation = read_subsets(data.evaluation, ("evaluation", "test", "all"))
    else:
        if data.num_train < 1 or data.num_test < 1:
            raise DataError(
                f"num_train is {data.num_train}, num_test {data.num_test}; expected 1 or more"
            )
        tasks = generate_tasks(
            data.num_train + data.num_test,
            data.seed,
            side=data.side,
            demonstrations=data.demonstrations,
            families=_parts(data.families) or tuple(FAMILIES),
        )
        training, evaluation = tasks[: data.num_train], tasks[data.num_train :]
    training, left_out = without_leaks(training, evaluation)
    if data.max_grid:
        training = [task for task in training if task.side() <= data.max_grid]
        evaluation = [task for task in evaluation if task.side() <= data.max_grid]
        if not training or not evaluation:
            raise DataError(
                f"max_grid is {data.max_grid}: {len(training)} training and "
                f"{len(evaluation)} evaluation tasks are left, expected some of each"
            )
    return training, evaluation, left_out


@dataclasses.dataclass(frozen=True)
class _Group:
    """A task's examples in one split; its puzzles are the symmetries."""

    pairs: Sequence[tuple[Grid, Grid | None]]
    symmetries: Augmentations
    first_identifier: int


def to_puzzle_sets(
    training: Sequence[ArcTask],
    evaluation: Sequence[ArcTask],
    data: ArcData,
    scratch: pathlib.Path | None = None,
) -> tuple[PuzzleSet, PuzzleSet, list[str]]:
    """Makes the splits of the reference: a group is a task, a puzzle one of its symmetries.

    Train: demonstrations and test pairs of the training tasks, demonstrations of the evaluation
    tasks. Test: the test inputs of the evaluation tasks; unknown outputs are all pad. In both,
    grids are at the origin; see `augment.translate`. The third result are the identifiers' names,
    `<blank>` first; a symmetry of an evaluation task has one identifier in both splits.

    `scratch` is a folder for the arrays, which are then mapped files: a thousand augmentations of
    ARC-AGI-1 are 7 GB.

    Raises:
        DataError: No evaluation tasks, a grid that does not fit, or bad numbers.
    """
    if not evaluation:
        raise DataError("there are no evaluation tasks")
    canvas = data.canvas or (30 if data.evaluation else data.side + 1)
    identifiers = ["<blank>"]
    train: list[_Group] = []
    test: list[_Group] = []
    for held_out, task in [(False, t) for t in training] + [(True, t) for t in evaluation]:
        if task.side() > canvas:
            raise DataError(
                f"task {task.name} has a grid of {task.side()} rows or columns, the canvas has "
                f"{canvas}; set max_grid to leave out such tasks, or a larger canvas"
            )
        symmetries = augmentations(task, data.num_aug, data.seed)
        first = len(identifiers)
        identifiers += symmetries.names(task.name)
        known = [] if held_out else [pair for pair in task.test if pair[1] is not None]
        train.append(_Group([*task.train, *known], symmetries, first))
        if held_out:
            tested = len(symmetries) if data.test_aug < 0 else 1 + data.test_aug
            test.append(_Group(task.test, symmetries.take(slice(tested)), first))
    return (
        _puzzle_set("train", train, canvas, len(identifiers), scratch),
        _puzzle_set("test", test, canvas, len(identifiers), scratch),
        identifiers,
    )


def _puzzle_set(
    split: str, groups: list[_Group], canvas: int, identifiers: int, scratch: pathlib.Path | None
) -> PuzzleSet:
    puzzles = np.array([len(group.symmetries) for group in groups])
    sizes = np.array([len(group.pairs) for group in groups])
    shape = (int((puzzles * sizes).sum()), canvas * canvas)
    arrays: Any
    if scratch:
        arrays = (
            np.lib.format.open_memmap(scratch / f"{split}{k}.npy", "w+", np.uint8, shape)
            for k in range(2)
        )
    else:
        arrays = np.zeros((2, *shape), np.uint8)  # that is pad
    inputs, labels = arrays
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
        num_puzzle_identifiers=identifiers,
        where=split,
    )


def _write(out: Array, grid: Grid, symmetries: Augmentations, canvas: int) -> None:
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

"""Which test input, and which symmetry of it, each example of an ARC test split is."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.puzzles.arc.augment import Augmentations, parse_names
from hrm_jax.puzzles.arc.reader import Grid
from hrm_jax.puzzles.arc.tokens import decode
from hrm_jax.puzzles.base import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """A task's test input number `index`, as the task has it, and the output where it is known."""

    task: str
    index: int
    source: Grid
    answer: Grid | None


@dataclasses.dataclass(frozen=True, eq=False)
class Questions:
    """The test inputs, and for each of the E examples of the test split where it comes from."""

    items: tuple[Question, ...]  # task by task
    item: Array  # index into `items`, int32 [E]
    augmentation: Array  # of the task, 0 the first, int32 [E]
    symmetry: Augmentations  # [E]

    def __len__(self) -> int:
        return len(self.item)

    @property
    def known(self) -> bool:
        """Whether any answer is known."""
        return any(question.answer is not None for question in self.items)

    def take(self, rows: slice | Array) -> Questions:
        """The same of some of the examples; `items` stays as it is."""
        return Questions(
            self.items, self.item[rows], self.augmentation[rows], self.symmetry.take(rows)
        )

    @classmethod
    def of(cls, test: PuzzleSet, identifiers: Sequence[str]) -> Questions:
        """Works them out from a test split: a group is a task, a puzzle one of its symmetries.

        Grids are at the origin, and every puzzle of a group has the same test inputs in the same
        order. DataError if identifiers and split do not belong together, or a group is none.
        """
        if len(identifiers) != test.metadata.num_puzzle_identifiers:
            raise DataError(
                f"identifiers.json names {len(identifiers)} identifiers, the test split has "
                f"{test.metadata.num_puzzle_identifiers}"
            )
        names = [identifiers[int(row)] for row in test.puzzle_identifiers]
        tasks, symmetry = parse_names(names)
        sizes = np.diff(test.puzzle_indices)
        item = np.empty(len(test), np.int32)
        items: list[Question] = []
        bounds = test.group_indices.tolist()
        for first, stop in itertools.pairwise(bounds):
            size, task = int(sizes[first]), tasks[first]
            if set(tasks[first:stop]) != {task} or (sizes[first:stop] != size).any():
                raise DataError(
                    f"test split: the group of {task} holds other tasks, or puzzles with more or "
                    f"fewer examples, expected the same test inputs under symmetries"
                )
            start, end = int(test.puzzle_indices[first]), int(test.puzzle_indices[stop])
            item[start:end] = np.tile(np.arange(len(items), len(items) + size), stop - first)
            for index in range(size):
                source, answer = (
                    symmetry.undo(first, decode(tokens[start + index]))
                    for tokens in (test.inputs, test.labels)
                )
                items.append(Question(task, index, source, answer if answer.size else None))
        of_puzzle = np.arange(len(names)) - np.repeat(test.group_indices[:-1], np.diff(bounds))
        puzzle = np.repeat(np.arange(len(names)), sizes)
        return cls(
            tuple(items),
            item,
            of_puzzle[puzzle].astype(np.int32),
            symmetry.take(puzzle),
        )

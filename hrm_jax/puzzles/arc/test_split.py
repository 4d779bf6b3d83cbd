"""The test split of an ARC data set, and what it takes to score answers to it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np

from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.puzzles.arc.baselines import copy_input_baseline, most_frequent_colour_baseline
from hrm_jax.puzzles.arc.questions import Questions
from hrm_jax.puzzles.arc.vote import Ballot
from hrm_jax.puzzles.base import Array, Votes


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArcTest(PuzzleSet):
    """The test split.

    Attributes:
        identifiers: Name of each puzzle identifier; 0 is `<blank>`.
        questions: Which test input and symmetry each example is.
        baselines: Figures of answers without learning, such as `copy_pass_at_1`; {} where no
            answers are known.
    """

    identifiers: Sequence[str]
    questions: Questions
    baselines: Mapping[str, float]

    @classmethod
    def of(cls, train: PuzzleSet, test: PuzzleSet, identifiers: Sequence[str]) -> ArcTest:
        """Works it out from the splits and the names of their identifiers.

        Raises:
            DataError: They do not belong together.
        """
        questions = Questions.of(test, identifiers)
        baselines: dict[str, float] = {}
        if questions.known:
            copied = copy_input_baseline(questions, test)
            filled = most_frequent_colour_baseline(questions, test, train, identifiers)
            for name, figures in (("copy", copied), ("colour", filled)):
                baselines |= {f"{name}_{figure}": value for figure, value in figures.items()}
        fields = {f.name: getattr(test, f.name) for f in dataclasses.fields(PuzzleSet)}
        return cls(**fields, identifiers=identifiers, questions=questions, baselines=baselines)

    def identifiers_digest(self) -> str:
        """Returns the SHA-256 of the identifiers' names."""
        return hashlib.sha256(json.dumps(list(self.identifiers)).encode()).hexdigest()

    def first(self, augmentations: int) -> ArcTest:
        """The same test inputs with only so many augmentations, besides the task itself."""
        rows = np.flatnonzero(self.questions.augmentation <= augmentations)
        sizes = np.diff(self.group_indices)
        places = np.arange(len(self.puzzle_identifiers)) - np.repeat(self.group_indices[:-1], sizes)
        puzzles = np.flatnonzero(places <= augmentations)
        return dataclasses.replace(
            self,
            inputs=self.inputs[rows],
            labels=self.labels[rows],
            puzzle_identifiers=self.puzzle_identifiers[puzzles],
            puzzle_indices=_boundaries(np.diff(self.puzzle_indices)[puzzles]),
            group_indices=_boundaries(np.minimum(sizes, augmentations + 1)),
            metadata=dataclasses.replace(
                self.metadata, mean_puzzle_examples=len(rows) / len(puzzles)
            ),
            questions=self.questions.take(rows),
        )

    def ballot(self, votes: Votes) -> Ballot:
        """The votes of answers to the first N examples, on those test inputs that occur there."""
        questions = self.questions.take(slice(len(votes[0][0])))
        asked = questions.items[: int(np.max(questions.item)) + 1]
        ballot = Ballot(dataclasses.replace(questions, items=asked))
        for predictions, q_halt in votes:
            ballot.add(predictions, q_halt)
        return ballot


def _boundaries(sizes: Array) -> Array:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)

"""The test split of an ARC data set, and what it takes to score answers to it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.puzzles.arc.questions import Questions
from hrm_jax.puzzles.arc.reader import is_placeholder
from hrm_jax.puzzles.arc.tokens import FIRST_COLOUR, VOCAB_SIZE, canvas_side, encode
from hrm_jax.puzzles.arc.vote import Ballot, cell_accuracy, pass_at_k
from hrm_jax.puzzles.base import Array, Votes

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArcTest(PuzzleSet):
    """The test split, with the names of the puzzle identifiers, what each example asks, and the
    figures of answers without learning, such as `copy_pass_at_1`; {} where no answers are known.
    """

    identifiers: Sequence[str]
    questions: Questions
    baselines: Mapping[str, float]

    @classmethod
    def of(cls, train: PuzzleSet, test: PuzzleSet, identifiers: Sequence[str]) -> ArcTest:
        """Works it out; DataError if splits and names do not belong together."""
        questions = Questions.of(test, identifiers)
        answers = [x.answer for x in questions.items if x.answer is not None]
        if answers and all(map(is_placeholder, answers)):
            logger.warning(
                "all %d answers of the ARC test split are [[0]], the placeholder of hidden "
                "solutions: figures of it say nothing",
                len(answers),
            )
        baselines = _baselines(questions, train, identifiers) if questions.known else {}
        fields = {f.name: getattr(test, f.name) for f in dataclasses.fields(PuzzleSet)}
        return cls(**fields, identifiers=identifiers, questions=questions, baselines=baselines)

    def identifiers_digest(self) -> str:
        """The SHA-256 of the identifiers' names."""
        return hashlib.sha256(json.dumps(list(self.identifiers)).encode()).hexdigest()

    def first(self, augmentations: int) -> ArcTest:
        """The same test inputs with only so many augmentations, besides the task itself."""
        rows = np.flatnonzero(self.questions.augmentation <= augmentations)
        sizes = np.diff(self.group_indices)
        of_puzzle = self.questions.augmentation[self.puzzle_indices[:-1]]
        puzzles = np.flatnonzero(of_puzzle <= augmentations)
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


def _baselines(
    questions: Questions, train: PuzzleSet, identifiers: Sequence[str]
) -> dict[str, float]:
    """Figures of answers that need no learning: the input, and all of its size in one colour.

    The colour is the most frequent one of the outputs of the task's demonstrations, the lowest of
    several. Missing cells are wrong.
    """
    puzzles = {identifiers[x]: row for row, x in enumerate(train.puzzle_identifiers.tolist())}
    if not {question.task for question in questions.items} <= set(puzzles):
        return {}  # another program's, which shows tasks under symmetries alone
    canvas = canvas_side(train.metadata.seq_len)
    ballots = {"copy": Ballot(questions), "colour": Ballot(questions)}
    for row in np.flatnonzero(questions.augmentation == 0).tolist():
        question = questions.items[questions.item[row]]
        first, stop = train.puzzle_indices[puzzles[question.task] :][:2]
        counts = np.bincount(train.labels[first:stop].reshape(-1), minlength=VOCAB_SIZE)
        filled = np.full_like(question.source, np.argmax(counts[FIRST_COLOUR:]))
        for name, answer in (("copy", question.source), ("colour", filled)):
            tokens = encode(questions.symmetry.apply(row, answer), canvas)
            ballots[name].add(tokens[None], np.zeros(1), np.array([row]))
    figures = {}
    for name, ballot in ballots.items():
        figures[f"{name}_pass_at_1"] = pass_at_k(ballot, (1,))["pass@1"]
        figures[f"{name}_cell_accuracy"] = cell_accuracy(ballot)
    return figures


def _boundaries(sizes: Array) -> Array:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)

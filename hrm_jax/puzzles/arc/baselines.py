"""What needs no learning scores on ARC: copying the input, and filling it with one colour."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.puzzles.arc.questions import Question, Questions
from hrm_jax.puzzles.arc.reader import COLOURS, Grid
from hrm_jax.puzzles.arc.tokens import FIRST_COLOUR, canvas_side, encode
from hrm_jax.puzzles.arc.vote import Ballot, cell_accuracy, pass_at_k


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Figures of an answer to each test input.

    Attributes:
        pass_at_1: Share of test inputs solved exactly, the mean over tasks.
        cell_accuracy: Share of the right answers' cells that are right, over all test inputs; a
            cell that the answer lacks is wrong.
    """

    pass_at_1: float
    cell_accuracy: float


def copy_input_baseline(questions: Questions, test: PuzzleSet) -> Baseline:
    """Figures of answering with the input.

    Raises:
        DataError: No answers are known.
    """
    return _score(questions, test, lambda question: question.source)


def most_frequent_colour_baseline(
    questions: Questions, test: PuzzleSet, train: PuzzleSet, identifiers: Sequence[str]
) -> Baseline:
    """Figures of a grid of the input's size, all in its task's most frequent output colour.

    The colour is taken from the demonstrations' outputs, the lowest where several are as frequent.
    """
    puzzle_of = {name: row for row, name in enumerate(identifiers)}
    places = {identifier: row for row, identifier in enumerate(train.puzzle_identifiers.tolist())}

    def answer(question: Question) -> Grid:
        row = places[puzzle_of[question.task]]
        labels = train.labels[train.puzzle_indices[row] : train.puzzle_indices[row + 1]]
        counts = np.bincount(labels.reshape(-1), minlength=FIRST_COLOUR + COLOURS)
        return np.full_like(question.source, np.argmax(counts[FIRST_COLOUR:]))

    return _score(questions, test, answer)


def _score(questions: Questions, test: PuzzleSet, answer: Callable[[Question], Grid]) -> Baseline:
    canvas = canvas_side(test.metadata.seq_len)
    ballot = Ballot(questions)
    for row in np.flatnonzero(questions.augmentation == 0).tolist():
        question = questions.items[questions.item[row]]
        shown = questions.symmetry.apply(row, answer(question))
        ballot.add(encode(shown, canvas)[None], np.zeros(1), np.array([row]))
    return Baseline(pass_at_k(ballot, (1,))["pass@1"], cell_accuracy(ballot))

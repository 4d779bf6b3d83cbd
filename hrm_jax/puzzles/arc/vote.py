"""From one prediction for each symmetry to answers: undo the symmetry, count, score, submit.

Source: `evaluators/arc.py` of TRM (arXiv:2510.04871) and `arc_eval.ipynb` of HRM.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.arc.augment import inverse_dihedral
from hrm_jax.puzzles.arc.questions import Questions
from hrm_jax.puzzles.arc.reader import Grid
from hrm_jax.puzzles.arc.tokens import FIRST_COLOUR, VOCAB_SIZE, canvas_side, grid_sizes
from hrm_jax.puzzles.base import Array

PASS_AT = (1, 2, 10, 100, 1000)
_CHUNK = 4096  # predictions at a time
_UNKNOWN = "no answers of the test are known, so it cannot be scored"


class Ballot:
    """Votes for the answer of each of `questions`, of one checkpoint or several."""

    def __init__(self, questions: Questions) -> None:
        self.questions = questions
        self._votes: list[dict[tuple[int, int, bytes], list[float]]] = [{} for _ in questions.items]

    def add(self, predictions: Array, q_halt: Array, examples: Array | None = None) -> None:
        """Adds one vote for each prediction, integer tokens [N, S], of belief sigmoid(q_halt).

        The answer is the rectangle that `tokens.grid_sizes` finds, with the symmetry undone. An
        empty one, which cannot be right, is no vote (the reference counts it). `examples` says of
        which example of the test split each is [N]; None: of all, in order.
        """
        rows = np.arange(len(self.questions)) if examples is None else np.asarray(examples)
        if not len(predictions) == len(q_halt) == len(rows):
            raise DataError(
                f"{len(predictions)} predictions, {len(q_halt)} q_halt and {len(rows)} examples, "
                f"expected the same number of each"
            )
        if len(rows) and not 0 <= np.min(rows) <= np.max(rows) < len(self.questions):
            raise DataError(f"examples: expected numbers below {len(self.questions)}")
        with np.errstate(over="ignore"):
            weights = 1 / (1 + np.exp(-np.asarray(q_halt, np.float64)))
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._add(np.asarray(predictions[part]), weights[part], rows[part])

    def _add(self, predictions: Array, weights: Array, rows: Array) -> None:
        canvas = canvas_side(predictions.shape[-1])
        heights, widths = (sizes.tolist() for sizes in grid_sizes(predictions))
        inverse = np.argsort(self.questions.symmetry.colours[rows], axis=1).astype(np.uint8)
        # What is no colour lies outside the rectangles.
        colours = np.clip(predictions, FIRST_COLOUR, VOCAB_SIZE - 1) - FIRST_COLOUR
        grids = np.take_along_axis(inverse, colours.astype(np.int64), axis=1)
        grids = grids.reshape(-1, canvas, canvas)
        turns = self.questions.symmetry.dihedral[rows].tolist()
        items = self.questions.item[rows].tolist()
        for row, (item, turn) in enumerate(zip(items, turns, strict=True)):
            if not heights[row]:
                continue
            grid = inverse_dihedral(grids[row, : heights[row], : widths[row]], turn)
            vote = self._votes[item].setdefault((*grid.shape, grid.tobytes()), [0, 0.0])
            vote[0] += 1
            vote[1] += float(weights[row])

    def ranking(self, item: int) -> list[tuple[Grid, int, float]]:
        """The answers to `questions.items[item]`: grid, votes and mean sigmoid(q_halt) of each.

        The likeliest comes first: by votes, then by mean, then by who came first.
        """
        votes = [
            (np.frombuffer(cells, np.uint8).reshape(height, width), int(count), total / count)
            for (height, width, cells), (count, total) in self._votes[item].items()
        ]
        return sorted(votes, key=lambda vote: (-vote[1], -vote[2]))


def pass_at_k(ballot: Ballot, ks: Sequence[int] = PASS_AT) -> dict[str, float]:
    """`pass@k`: the share of test inputs solved where k answers to each may be given.

    It is the mean over a task's test inputs, and then over the tasks, as in the reference. Test
    inputs without a known answer do not count, DataError where there are no others; one without a
    vote is not solved.
    """
    ranks: dict[str, list[float]] = {}  # of the right answer, by task
    for item, question in enumerate(ballot.questions.items):
        if question.answer is None:
            continue
        right = (np.array_equal(grid, question.answer) for grid, _, _ in ballot.ranking(item))
        rank = next((place for place, hit in enumerate(right) if hit), float("inf"))
        ranks.setdefault(question.task, []).append(rank)
    if not ranks:
        raise DataError(_UNKNOWN)
    return {
        f"pass@{k}": float(np.mean([np.mean(np.less(task, k)) for task in ranks.values()]))
        for k in ks
    }


def cell_accuracy(ballot: Ballot) -> float:
    """The share of the right answers' cells that the likeliest answers have right.

    Test inputs count as in `pass_at_k`; a cell that an answer lacks is wrong, one that it has too
    many is not counted.
    """
    right = cells = 0
    for item, question in enumerate(ballot.questions.items):
        if question.answer is None:
            continue
        cells += question.answer.size
        for grid, _, _ in ballot.ranking(item)[:1]:
            height, width = np.minimum(grid.shape, question.answer.shape)
            right += int((grid[:height, :width] == question.answer[:height, :width]).sum())
    if not cells:
        raise DataError(_UNKNOWN)
    return right / cells


def submission(ballot: Ballot, attempts: int = 2) -> dict[str, list[dict[str, list[list[int]]]]]:
    """What Kaggle's ARC Prize wants as `submission.json`, which takes two attempts.

    For each task a list with one object for each test input, `attempt_1`, `attempt_2`, …; the
    likeliest answer is repeated where there are too few, and `[[0]]` stands where there is none.
    """
    result: dict[str, list[dict[str, list[list[int]]]]] = {}
    for item, question in enumerate(ballot.questions.items):
        grids = [grid.tolist() for grid, _, _ in ballot.ranking(item)[:attempts]] or [[[0]]]
        grids += grids[:1] * (attempts - len(grids))
        answers = {f"attempt_{number}": grid for number, grid in enumerate(grids, 1)}
        result.setdefault(question.task, []).append(answers)
    return result

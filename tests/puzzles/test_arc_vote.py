"""Voting: symmetries undone, order of the answers, scores and Kaggle's file."""

import dataclasses
import json

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.arc.build import ArcData, to_puzzle_sets
from hrm_jax.puzzles.arc.puzzle import ARC
from hrm_jax.puzzles.arc.questions import Questions
from hrm_jax.puzzles.arc.reader import ArcTask
from hrm_jax.puzzles.arc.tokens import encode
from hrm_jax.puzzles.arc.vote import Ballot, pass_at_k, submission

A, B, C = (np.array(rows, np.uint8) for rows in ([[1, 2]], [[3], [4]], [[5, 0], [0, 6]]))


@pytest.fixture(scope="module")
def questions():
    """Tasks x (two test inputs, answers A and B) and y (one, answer C), four symmetries each."""
    inputs = [np.array([[k, 0, 7], [1, 2, k]], np.uint8) for k in range(3, 6)]
    pair = (np.array([[1, 2, 3]], np.uint8), np.array([[4, 5, 6]], np.uint8))
    tasks = [
        ArcTask("x", (pair,), ((inputs[0], A), (inputs[1], B))),
        ArcTask("y", (pair,), ((inputs[2], C),)),
    ]
    _, test, names = to_puzzle_sets([], tasks, ArcData(canvas=4, num_aug=3))
    return Questions.of(test, names)


def ballot(questions, votes):
    """Votes (task, test index, augmentation, answer, q), the answers as the task has them."""
    result = Ballot(questions)
    for task, index, augmentation, grid, q in votes:
        (row,) = (
            row
            for row in range(len(questions))
            if questions.augmentation[row] == augmentation
            and questions.items[questions.item[row]].task == task
            and questions.items[questions.item[row]].index == index
        )
        tokens = encode(questions.symmetry.apply(row, grid), 4)
        result.add(tokens[None].astype(np.int32), np.array([q], np.float32), np.array([row]))
    return result


def answers(some, item):
    return [(grid.tolist(), count) for grid, count, _ in some.ranking(item)]


def test_right_predictions_of_all_symmetries_agree():
    _, test = ARC.make(ArcData(num_train=5, num_test=36, num_aug=20))
    result = test.ballot([(test.labels, np.zeros(len(test)))])
    assert pass_at_k(result) == {f"pass@{k}": 1.0 for k in (1, 2, 10, 100, 1000)}
    for item, question in enumerate(test.questions.items):
        ((grid, count, mean),) = result.ranking(item)
        assert grid.tolist() == question.answer.tolist()
        assert (count, mean) == ((test.questions.item == item).sum(), 0.5)


def test_answers_go_by_votes_then_by_belief(questions):
    result = ballot(
        questions,
        [
            ("x", 0, 0, B, 9.0),
            ("x", 0, 1, A, -9.0),
            ("x", 0, 2, A, -9.0),
            ("x", 1, 0, A, 1.0),
            ("x", 1, 1, B, 2.0),
            ("y", 0, 3, A, 1.0),
            ("y", 0, 1, B, 1.0),
        ],
    )
    assert answers(result, 0) == [(A.tolist(), 2), (B.tolist(), 1)]
    assert answers(result, 1) == [(B.tolist(), 1), (A.tolist(), 1)]
    assert answers(result, 2) == [(A.tolist(), 1), (B.tolist(), 1)]  # a tie: who came first
    assert result.ranking(0)[1][2] == pytest.approx(1 / (1 + np.exp(-9.0)))
    more = ballot(questions, [("x", 0, 3, B, 0.0)])
    assert answers(more, 0) == [(B.tolist(), 1)]


def test_votes_may_come_in_parts(questions):
    """Of another checkpoint, say."""
    result = ballot(questions, [("x", 0, 0, A, 0.0), ("x", 0, 1, B, 1.0)])
    assert answers(result, 0)[0] == (B.tolist(), 1)
    row = np.array([0])
    result.add(encode(A, 4)[None], np.array([-50.0]), row)
    assert answers(result, 0)[0] == (A.tolist(), 2)
    assert result.ranking(0)[0][2] == pytest.approx(0.25)


def test_pass_at_k_is_the_mean_over_tasks(questions):
    votes = [
        ("x", 0, 0, A, 0.0),  # right at once
        ("x", 1, 0, A, 3.0),
        ("x", 1, 1, B, 2.0),  # right at the second try
        ("y", 0, 0, A, 3.0),
        ("y", 0, 1, B, 2.0),
        ("y", 0, 2, C, 1.0),  # at the third
    ]
    result = ballot(questions, votes)
    assert pass_at_k(result, (1, 2, 3)) == {"pass@1": 0.25, "pass@2": 0.5, "pass@3": 1.0}
    assert pass_at_k(ballot(questions, votes[:1]), (1000,)) == {"pass@1000": 0.25}
    known = (*questions.items[:2], dataclasses.replace(questions.items[2], answer=None))
    partly = ballot(dataclasses.replace(questions, items=known), votes)
    assert pass_at_k(partly, (1, 2)) == {"pass@1": 0.5, "pass@2": 1.0}


def test_submission_is_kaggle_s(questions):
    votes = [("x", 0, 0, A, 1.0), ("x", 0, 1, B, 0.0), ("x", 0, 2, C, -1.0), ("x", 1, 0, B, 1.0)]
    result = submission(ballot(questions, votes))
    assert json.loads(json.dumps(result)) == {
        "x": [
            {"attempt_1": A.tolist(), "attempt_2": B.tolist()},
            {"attempt_1": B.tolist(), "attempt_2": B.tolist()},
        ],
        "y": [{"attempt_1": [[0]], "attempt_2": [[0]]}],
    }


def test_nonsense_is_no_vote_and_wrong_numbers_are_refused(questions):
    result = Ballot(questions)
    nonsense = np.full((2, 16), 1)
    nonsense[1, :2] = 11, -100
    result.add(nonsense, np.zeros(2), np.array([0, 0]))
    ((grid, count, _),) = result.ranking(0)
    assert (grid.shape, count) == ((1, 1), 1)
    with pytest.raises(DataError, match="2 predictions, 1 q_halt and 2 examples"):
        result.add(nonsense, np.zeros(1), np.array([0, 1]))
    with pytest.raises(DataError, match="2 predictions, 2 q_halt and 12 examples"):
        Ballot(questions).add(nonsense, np.zeros(2))
    with pytest.raises(DataError, match="expected numbers below 12"):
        result.add(nonsense, np.zeros(2), np.array([0, 12]))

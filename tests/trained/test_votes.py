"""Votes: symmetries undone, the election, the rules, several checkpoints, and their figures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hrm_jax
from hrm_jax.data.errors import DataError
from hrm_jax.data.npy_folder import read_npy
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.models import recurrent
from hrm_jax.models.act import Solved
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.base import Puzzle, PuzzleData
from hrm_jax.puzzles.digits import solver as sudoku_solver
from hrm_jax.puzzles.domino.encoding import decode, encode_move
from hrm_jax.puzzles.domino.game import best_move
from hrm_jax.puzzles.domino.generator import DominoData, to_puzzle_set
from hrm_jax.puzzles.domino.generator import generate as generate_positions
from hrm_jax.puzzles.maze import solver as maze_solver
from hrm_jax.puzzles.maze.board import MazeShape
from hrm_jax.puzzles.maze.generator import generate as generate_mazes
from hrm_jax.puzzles.sudoku.board import SudokuShape, from_tokens, to_tokens
from hrm_jax.puzzles.sudoku.generator import generate as generate_sudokus
from hrm_jax.tasks.puzzles.evaluation import answers_compared
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.tasks.puzzles.votes import cast, cast_all, elect, obeying
from hrm_jax.trained.evaluate import evaluate, voted_figures
from hrm_jax.trained.load import load_last
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import WorkdirError

KEY = jax.random.key(0)


def _solved(predictions, q_halt=None, steps=None):
    count = len(predictions)
    return Solved(
        predictions=np.asarray(predictions, np.uint8),
        steps=np.ones(count, np.int32) if steps is None else np.asarray(steps, np.int32),
        q_halt=np.zeros(count, np.float32) if q_halt is None else np.asarray(q_halt, np.float32),
        trace=None,
        iterations=count,
    )


# --- symmetries -----------------------------------------------------------------------------------


@functools.cache
def _puzzles(name):
    """Inputs, labels, and a solver that is always right, of one puzzle."""
    if name == "sudoku":
        shape = SudokuShape.of(6)
        found = generate_sudokus(shape, 12, (16, 20), 0)
        inputs, labels = to_tokens(found.questions), to_tokens(found.answers)

        def answers(tokens):
            return to_tokens(sudoku_solver.solve_many(from_tokens(tokens), shape, 1)[1])

        return PUZZLES[name], inputs, labels, answers
    if name == "maze":
        shape = MazeShape(7, 7)
        found = generate_mazes(shape, 12, 6, 0)
        inputs, labels = found.questions, found.answers
        return (
            PUZZLES[name],
            inputs,
            labels,
            lambda tokens: maze_solver.solve_many(tokens, shape)[0],
        )

    def moves(tokens):
        rows = np.stack([encode_move(best_move(decode(row))) for row in tokens])
        rows[:, 3:] = tokens[:, 3:] % 7  # these are no part of the answer
        return rows

    found = to_puzzle_set(generate_positions(DominoData(), 12).values())
    return PUZZLES[name], found.inputs, found.labels, moves


@pytest.mark.parametrize("name", ["sudoku", "maze", "domino"])
def test_who_is_always_right_is_right_under_every_symmetry(name):
    puzzle, inputs, labels, answers = _puzzles(name)
    asked = []

    def solve(tokens):
        asked.append(tokens)
        solved = _solved(answers(tokens))
        return solved.replace(trace=np.stack([tokens, solved.predictions], axis=1))

    ballots = cast(puzzle, solve, inputs, 6, KEY)
    assert len(ballots) == len(asked) == 6
    np.testing.assert_array_equal(asked[0], inputs)
    assert all((x != inputs).any(1).mean() > 0.5 for x in asked[1:])
    assert len({x.tobytes() for x in asked}) == 6
    length = puzzle.answer_length
    for ballot in ballots:
        if name == "maze":  # of several shortest paths, which one is found turns with the board
            assert puzzle.score(inputs, labels, ballot.predictions)["optimal"].all()
        else:
            right = ballot.predictions[:, :length] == labels[:, :length]
            assert right.all()
        if name != "domino":
            np.testing.assert_array_equal(ballot.trace[:, 0], inputs)
        np.testing.assert_array_equal(ballot.trace[:, 1], ballot.predictions)
    assert obeying(puzzle, inputs, ballots).all()
    elected = elect(ballots, None, length)
    assert (elected.votes == 6).all() or name == "maze"
    # A puzzle's symmetries do not depend on its company, and a plain answer is not sought again.
    few = cast(puzzle, solve, inputs[:2], 3, KEY, plain=ballots[0])
    assert few[0] is ballots[0]
    np.testing.assert_array_equal(asked[-1], asked[2][:2])
    other = cast(puzzle, solve, inputs, 2, jax.random.key(1))
    assert (asked[-1] != asked[1]).any()
    assert len(other) == 2


@pytest.mark.parametrize("name", ["sudoku", "maze", "domino"])
def test_obeying_the_rules_needs_no_label(name):
    puzzle, inputs, labels, _ = _puzzles(name)
    assert puzzle.obeys(inputs, labels).all()
    assert not puzzle.obeys(inputs, np.roll(labels, 1, axis=0)).any() or name == "domino"
    assert not puzzle.obeys(inputs, np.zeros_like(labels)).any()
    if name == "sudoku":  # a right board of which a given was changed
        swapped = np.where(labels == 2, 3, np.where(labels == 3, 2, labels))
        assert not puzzle.obeys(inputs, swapped).any()
        assert not puzzle.obeys(inputs, inputs).any()
    if name == "domino":
        assert (puzzle.obeys(inputs, np.roll(labels, 1, axis=0))).mean() < 0.5


def test_arc_is_refused():
    with pytest.raises(DataError, match=r"votes: .*ARC's evaluation votes over its augmentations"):
        cast(PUZZLES["arc"], lambda tokens: _solved(tokens), np.zeros((1, 9), np.uint8), 2, KEY)
    with pytest.raises(DataError, match=r"verify: .*cannot be checked"):
        obeying(PUZZLES["arc"], np.zeros((1, 9), np.uint8), [_solved(np.zeros((1, 9)))])


# --- election -------------------------------------------------------------------------------------

A, B, C = [1, 1], [1, 2], [2, 2]


def _winner(votes, obeys=None, length=None):
    """The answer to one puzzle of votes (answer, q_halt), and how many votes it has."""
    ballots = [_solved([answer], [q]) for answer, q in votes]
    checked = None if obeys is None else np.array(obeys)[:, None]
    elected = elect(ballots, checked, length)
    row = elected.answers
    return row.predictions[0].tolist(), int(elected.votes[0]), float(row.q_halt[0])


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([(A, 9.0), (B, -9.0), (B, -8.0)], (B, 2, -8.0)),  # votes first, not belief
        ([(A, 1.0), (A, 1.0), (B, 3.0), (B, 0.5), (C, 9.0)], (B, 2, 3.0)),  # then mean belief
        ([(A, 20.0), (A, -1.0), (B, 3.0), (B, 2.0)], (B, 2, 3.0)),  # of sigmoids, not of logits
        ([(A, 1.0), (B, 3.0), (C, 2.0)], (B, 1, 3.0)),  # all differ: the surest
        ([(A, 50.0), (B, 60.0)], (B, 1, 60.0)),  # where sigmoids are equal in floating point
        ([(A, 1.0), (B, 1.0)], (A, 1, 1.0)),  # a tie: the first, which is the plain one
        ([(A, -2000.0)], (A, 1, -2000.0)),
    ],
)
def test_election(votes, expected):
    assert _winner(votes) == expected


@pytest.mark.parametrize(
    ("obeys", "expected"),
    [
        ([False, False, True, False], (B, 1, -5.0)),
        ([True, True, True, False], (A, 2, 2.0)),
        ([True, False, True, True], (C, 1, 9.0)),  # one vote of A counts, and the surest wins
        ([False, False, False, False], (A, 2, 2.0)),  # none obeys: the plain vote
    ],
)
def test_only_votes_that_obey_count(obeys, expected):
    assert _winner([(A, 1.0), (A, 2.0), (B, -5.0), (C, 9.0)], obeys) == expected


def test_whole_answers_are_voted_on_and_not_cells():
    three = [([1, 1, 2], 0.0), ([1, 2, 1], 0.1), ([2, 1, 1], 0.0)]
    assert _winner(three)[0] == [1, 2, 1]  # the majority of each cell would be 1 1 1


def test_only_the_answer_is_compared():
    assert _winner([([1, 5], 0.0), ([2, 6], 1.0), ([1, 7], 0.0)], length=1)[:2] == ([1, 5], 2)
    assert _winner([([1, 5], 0.0), ([2, 6], 1.0), ([1, 7], 0.0)])[:2] == ([2, 6], 1)


def test_many_puzzles_at_once_as_one_by_one():
    random = np.random.default_rng(0)
    answers = random.integers(0, 2, (7, 200, 2))
    q_halt = random.normal(size=(7, 200)).round(1)
    obeys = random.random((7, 200)) < 0.3
    steps = random.integers(1, 5, (7, 200))
    ballots = [_solved(*x) for x in zip(answers, q_halt, steps, strict=True)]
    elected = elect(ballots, obeys)
    np.testing.assert_array_equal(elected.steps, steps.sum(0))
    for row in range(200):
        votes = list(zip(answers[:, row].tolist(), q_halt[:, row], strict=True))
        found = (elected.answers.predictions[row].tolist(), int(elected.votes[row]))
        assert found == _winner(votes, obeys[:, row])[:2]
    assert elected.answers.iterations == 7 * 200


# --- models ---------------------------------------------------------------------------------------


@functools.cache
def _always_ones():
    """A network that answers with its input, and every blank with the digit 1: see `test_sudoku`.

    Under a symmetry it so answers the blanks with the digit that 1 stands for.
    """
    config = HRMConfig(
        seq_len=16, vocab_size=6, hidden_size=32, num_heads=1, expansion=1.0, H_layers=1,
        L_layers=1, H_cycles=1, L_cycles=1, halt_max_steps=3, q_target="none",
        forward_dtype="float32",
    )  # fmt: skip
    zeros = jax.tree.map(jnp.zeros_like, recurrent.init(config, KEY))
    params = zeros["params"]
    params["embed_tokens"]["embedding"] = jnp.asarray(100 * np.eye(6, 32, dtype=np.float32))
    head = np.eye(32, 6, dtype=np.float32)
    head[1] = [0, 0, 1, 0, 0, 0]
    params["lm_head"]["kernel"] = jnp.asarray(head)
    params["q_head"]["bias"] = jnp.array([1.0, 0.0])
    return PuzzleModel(config, {"params": params, "constants": zeros["constants"]})


def _four_puzzles():
    """One solution; in puzzle k all digits k + 1 are missing."""
    solution = np.array([2, 3, 4, 5, 4, 5, 2, 3, 3, 2, 5, 4, 5, 4, 3, 2], np.uint8)
    questions = np.stack([np.where(solution == token, 1, solution) for token in range(2, 6)])
    return PuzzleSet.simple(questions, np.repeat(solution[None], 4, axis=0), 6, 0)


def _voted(models, puzzles, *, votes=1, verify=False, limit=None):
    """Figures of a vote, and the answers to the puzzles as they are."""
    model, identifiers = models[0], puzzles.example_identifiers()[:limit]
    inputs = puzzles.inputs[:limit]
    plain = model.answers(inputs, identifiers)
    ballots = cast_all(models, inputs, identifiers, votes=votes, plain=plain, max_steps=3)
    return voted_figures(model.puzzle, puzzles, ballots, verify=verify), plain


def test_figures_of_a_vote():
    model, puzzles = _always_ones(), _four_puzzles()
    figures, plain = _voted([model], puzzles, votes=16, verify=True)
    assert answers_compared(puzzles, plain.predictions)["exact_accuracy"] == 0.25
    assert figures["verified/exact_accuracy"] == 1.0  # some symmetry makes each digit a 1
    assert figures["verified/accuracy"] == figures["verified/blank_accuracy"] == 1.0
    assert figures["voted/exact_accuracy"] < 1.0
    wrong = 1 - figures["voted/exact_accuracy"]
    np.testing.assert_allclose(figures["voted/accuracy"], 1 - wrong / 4)
    np.testing.assert_allclose(figures["voted/blank_accuracy"], 1 - wrong)
    assert figures["voted/votes"] == figures["voted/steps"] == 16  # it stops after one step
    assert 0 < figures["verified/agreement"] < figures["voted/agreement"] < 1
    first, _ = _voted([model], puzzles, verify=True)
    assert first["verified/exact_accuracy"] == 0.25
    assert "voted/exact_accuracy" not in first  # one vote is no vote
    twice, _ = _voted([model, model], puzzles)
    assert twice["voted/votes"] == 2
    assert twice["voted/agreement"] == 1
    few, _ = _voted([model], puzzles, votes=2, limit=2)  # the first puzzles only
    assert few["voted/exact_accuracy"] in (0.0, 0.5, 1.0)


def test_puzzles_without_labels_have_no_part_in_the_accuracies():
    puzzles = _four_puzzles()
    labels = puzzles.labels.copy()
    labels[1] = 0
    some = PuzzleSet.simple(puzzles.inputs, labels, 6, 0)

    class Scored(Puzzle):
        def score(self, inputs, labels, predictions):
            return {"first": np.array([True, False, False, False])}

    scored = Scored(name="scored", about="", data=PuzzleData, painter=None)
    for predictions, right in ((puzzles.labels, 1.0), (puzzles.inputs, 0.0)):
        figures = answers_compared(some, predictions, scored)
        assert figures == {
            "first": 0.25,
            "exact_accuracy": right,
            "accuracy": 0.75 + right / 4,
            "blank_accuracy": right,
        }
    none = PuzzleSet.simple(puzzles.inputs, np.zeros_like(labels), 6, 0)
    assert answers_compared(none, puzzles.inputs) == {}


def test_solving_by_vote():
    model, puzzles = _always_ones(), _four_puzzles()
    plain = model.solve(puzzles.inputs)
    assert [x.valid for x in plain] == [True, False, False, False]
    assert [(x.votes, x.total_steps) for x in plain] == [(1, 1)] * 4
    found = model.solve(puzzles.inputs, votes=16, verify=True, trace=True)
    assert all(x.valid for x in found)
    for solution, labels in zip(found, puzzles.labels, strict=True):
        np.testing.assert_array_equal(solution.tokens, labels)
        np.testing.assert_array_equal(solution.trace, labels[None])
        assert solution.trace_text == (solution.text,)
        assert 1 <= solution.votes <= 15
        assert solution.total_steps == 16
    most = model.solve(puzzles.inputs, votes=16)
    assert [x.votes for x in most] >= [x.votes for x in found]
    again = model.solve(puzzles.inputs, votes=16, seed=1)
    assert [x.votes for x in again] != [x.votes for x in most]
    both = model.solve(puzzles.inputs, others=[model], max_steps=2, halting="fixed")
    assert [(x.text, x.votes, x.total_steps) for x in both] == [(x.text, 2, 4) for x in plain]
    with pytest.raises(ValueError, match="votes: expected at least 1, got 0"):
        model.solve(puzzles.inputs, votes=0)


# --- runs -----------------------------------------------------------------------------------------


def test_evaluation_by_vote(trained):
    plain = evaluate(trained)
    figures = evaluate(trained, votes=3, verify=True, last=2, max_steps=5)
    more = evaluate(trained, max_steps=5)
    for name, value in more.items():
        if name != "eval/puzzles_per_second":
            assert figures[name] == value, name
    assert list(figures)[: len(more)] == list(more)
    assert figures["voted/votes"] == figures["verified/votes"] == 6
    assert figures["voted/steps"] > figures["eval/steps"]
    assert figures["verified/exact_accuracy"] >= figures["voted/exact_accuracy"]
    assert not any(name.startswith(("voted", "verified")) for name in plain)
    assert evaluate(trained, votes=2, limit=3)["voted/votes"] == 2
    one = evaluate(trained, verify=True, limit=3)
    assert {x.split("/")[0] for x in one} == {"eval", "verified"}


def test_the_newest_checkpoints(trained, tmp_path):
    newest, before = load_last(trained, 2)
    test = read_npy(trained / "data", "test")
    for model, step in ((newest, 4), (before, 2)):
        expected = hrm_jax.load(trained, step).solve(test.inputs)
        assert [x.q_halt for x in model.solve(test.inputs)] == [x.q_halt for x in expected]
    with pytest.raises(CheckpointError, match=r"last=3, but the checkpoints there are: 2, 4; "):
        load_last(trained, 3)
    with pytest.raises(ValueError, match="last: expected at least 1, got 0"):
        evaluate(trained, last=0)
    with pytest.raises(WorkdirError, match="not the workdir of a run"):
        load_last(tmp_path, 1)
    with pytest.raises(DataError, match="last=2 and checkpoint=4: give one or the other"):
        evaluate(trained, last=2, checkpoint=4)
    with pytest.raises(DataError, match="votes: expected at least 1, got 0"):
        evaluate(trained, votes=0)

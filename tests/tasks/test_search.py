"""Search that a network guides: what the rules leave, whom it asks, and what it finds."""

import jax
import numpy as np
import pytest
import scipy.special

from hrm_jax.data.errors import DataError
from hrm_jax.fields import ConfigError
from hrm_jax.models import recurrent
from hrm_jax.models.act import Solved
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.trm import TRMConfig
from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.digits.board import check_rules, from_tokens, to_tokens
from hrm_jax.puzzles.latin.board import LatinShape
from hrm_jax.puzzles.sudoku.board import SudokuShape
from hrm_jax.puzzles.sudoku.generator import generate
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.tasks.puzzles.search import search

SUDOKU = PUZZLES["sudoku"]
SHAPE = SudokuShape.of(6)


@pytest.fixture(scope="module")
def puzzles():
    found = generate(SHAPE, 12, (12, 16), 0)
    return to_tokens(found.questions), to_tokens(found.answers)


class Network:
    """Thinks of the label so much, and otherwise of anything alike; remembers who asked."""

    def __init__(self, labels, belief, seed=0):
        self.labels, self.belief = labels, belief
        self.noise = np.random.default_rng(seed).normal(size=(*labels.shape, SHAPE.vocab_size))
        self.asked = []

    def __call__(self, tokens, rows):
        self.asked.append((tokens.copy(), rows.copy()))
        logits = self.noise[rows].copy()
        np.put_along_axis(logits, self.labels[rows][..., None].astype(int), self.belief, axis=-1)
        count = len(tokens)
        predictions = logits.argmax(-1).astype(np.uint8)
        return Solved(
            predictions, np.full(count, 3), np.zeros(count), None, 3, 0.5, logits.astype(np.float32)
        )


def _searched(puzzles, belief, most=500, **options):
    inputs, labels = puzzles
    network = Network(labels, belief)
    found = search(SUDOKU, network, inputs, np.arange(len(inputs)), most, **options)
    return network, found


@pytest.mark.parametrize(("name", "shape"), [("sudoku", SHAPE), ("latin", LatinShape(5))])
def test_what_the_rules_leave(name, shape):
    rng = np.random.default_rng(0)
    boards = np.where(
        rng.random((40, shape.cells)) < 0.25, rng.integers(1, shape.size + 1, shape.cells), 0
    )
    possible = PUZZLES[name].possible(to_tokens(boards.astype(np.int8)))
    assert possible.shape == (40, shape.cells, shape.vocab_size)
    assert not possible[..., :2].any()  # pad and blank are nothing to stand there
    units = [set(unit.tolist()) for unit in shape.units()]
    for board, row in zip(boards, possible, strict=True):
        for cell in range(shape.cells):
            seen = {board[x] for unit in units if cell in unit for x in unit if x != cell}
            free = set(range(1, shape.size + 1)) - seen
            expected = free if board[cell] == 0 else free & {board[cell]}
            assert set(np.flatnonzero(row[cell]) - 1) == expected
    legal = check_rules(boards.astype(np.int8), shape)
    assert 0 < legal.sum() < 40  # with and without contradictions
    filled = np.where(boards[..., None] > 0, possible, True)
    np.testing.assert_array_equal(filled.any(-1).all(-1), legal)


def test_a_network_that_knows_is_asked_once(puzzles):
    network, found = _searched(puzzles, belief=9.0)
    np.testing.assert_array_equal(found.answers.predictions, puzzles[1])
    assert (found.questions == 1).all()
    assert (found.steps == 3).all()
    assert len(network.asked) == 1


def test_one_that_knows_nothing_is_a_search_without_it(puzzles):
    """It ends with the answer, by guesses alone; a better one asks less."""
    sums = []
    for belief in (0.0, 1.0, 2.0):
        _, found = _searched(puzzles, belief, most=5000)
        np.testing.assert_array_equal(found.answers.predictions, puzzles[1])
        sums.append(found.questions.sum())
    assert sums == sorted(sums, reverse=True)
    assert sums[0] > 2 * sums[-1] > 2 * len(puzzles[0])


def test_the_likeliest_guesses_of_the_least_sure_cell_come_first(puzzles):
    inputs, labels = (x[:1] for x in puzzles)
    network, found = _searched((inputs, labels), belief=1.0)
    assert found.questions[0] > 3
    costs = {inputs.tobytes(): 0.0}  # of questions that are known and have not been asked
    for (tokens,), (row,) in list(network.asked):
        key = tokens.tobytes()
        assert costs[key] == min(costs.values())
        cost = costs.pop(key)
        possible = SUDOKU.possible(tokens[None])[0]
        logits = network(tokens[None], np.array([row])).logits[0]
        log_p = scipy.special.log_softmax(np.where(possible, logits, -np.inf), axis=-1)
        blanks = np.flatnonzero(tokens == 1)
        cell = blanks[np.argmin(log_p[blanks].max(-1))]
        for value in np.flatnonzero(possible[cell]):
            guess = tokens.copy()
            guess[cell] = value
            if SUDOKU.possible(guess[None])[0].any(-1).all():
                costs[guess.tobytes()] = cost - float(log_p[cell, value])


def test_it_stops_where_it_is_told_and_others_go_on(puzzles):
    _, whole = _searched(puzzles, belief=1.0)
    assert len(set(whole.questions.tolist())) > 3
    for most in (1, 4):
        _, found = _searched(puzzles, belief=1.0, most=most)
        np.testing.assert_array_equal(found.questions, np.minimum(whole.questions, most))
        solved = SUDOKU.obeys(puzzles[0], found.answers.predictions)
        np.testing.assert_array_equal(solved, whole.questions <= most)
        assert not solved.all()
        # What is not solved has the answer to the puzzle itself.
        _, plain = _searched(puzzles, belief=1.0, most=1)
        np.testing.assert_array_equal(
            found.answers.predictions[~solved], plain.answers.predictions[~solved]
        )


def test_how_many_are_asked_at_once_changes_no_answer(puzzles):
    network, some = _searched(puzzles, belief=1.0, at_once=3)
    assert {len(tokens) for tokens, _ in network.asked} == {3}
    _, all_ = _searched(puzzles, belief=1.0)
    jax.tree.map(
        np.testing.assert_array_equal,
        (some.answers.predictions, some.questions, some.steps),
        (all_.answers.predictions, all_.questions, all_.steps),
    )


def test_a_puzzle_without_a_solution_ends(puzzles):
    """All guesses are refuted."""
    inputs = puzzles[0][:1].copy()
    cell = int(SUDOKU.possible(inputs)[0].sum(-1).argmax())
    inputs[0, cell] = min(
        {*np.flatnonzero(SUDOKU.possible(inputs)[0, cell])} - {int(puzzles[1][0, cell])}
    )
    _, found = _searched((inputs, puzzles[1][:1]), belief=0.0, most=10**6)
    assert 1 <= found.questions[0] < 10**5
    assert not SUDOKU.obeys(inputs, found.answers.predictions)[0]


@pytest.fixture(scope="module")
def model():
    config = HRMConfig(
        vocab_size=6, seq_len=16, hidden_size=32, num_heads=2, H_layers=1, L_layers=1, H_cycles=1,
        L_cycles=1, halt_max_steps=2, puzzle_emb_ndim=0,
    )  # fmt: skip
    return PuzzleModel(config, recurrent.init(config, jax.random.key(0)), SUDOKU)


def test_an_untrained_model_finds_answers_too(model):
    found = generate(SudokuShape.of(4), 6, (5, 7), 0)
    plain = model.solve(to_tokens(found.questions))
    assert not any(x.valid for x in plain)
    assert {x.questions for x in plain} == {1}
    searched = model.solve(to_tokens(found.questions), search=200)
    for solution, answer in zip(searched, found.answers, strict=True):
        assert solution.valid
        np.testing.assert_array_equal(from_tokens(solution.tokens), answer)
        assert solution.total_steps == 2 * solution.questions > 2
    assert model.solve(np.zeros((0, 16), np.uint8), search=3) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": -1}, "search: expected a number of questions, 1 or more, got -1"),
        ({"search": 9, "votes": 2}, "votes not with it"),
        ({"search": 9, "others": [None]}, "others or last not with it"),
        ({"search": 9, "verify": True, "trace": True}, "verify, trace not with it"),
    ],
)
def test_what_does_not_go_with_a_search(model, options, message):
    for number in (0, 1):  # puzzles
        with pytest.raises(ValueError, match=message):
            model.solve(np.ones((number, 16), np.uint8), **options)


def test_what_it_cannot_search(puzzles):
    for count, most in ((0, 5), (2, 0), (2, -1)):
        with pytest.raises(ConfigError, match="search: expected"):
            _searched([x[:count] for x in puzzles], belief=1.0, most=most)
    with pytest.raises(ConfigError, match="slots: expected at least 1, got 0"):
        _searched(puzzles, belief=1.0, at_once=0)
    config = HRMConfig(vocab_size=7, seq_len=16, hidden_size=32, num_heads=2, puzzle_emb_ndim=0)
    other = PuzzleModel(config, {}, SUDOKU)
    with pytest.raises(DataError, match="of 16 tokens have a vocabulary of 6, the model one of 7"):
        other.solve(np.ones((1, 16), np.uint8), search=5)


def test_a_token_that_no_question_has_is_no_blank(puzzles):
    inputs = puzzles[0][:2].astype(np.int64)
    inputs[0, np.flatnonzero(inputs[0] == 1)[0]] = 0
    _, found = _searched((inputs, puzzles[1][:2]), belief=1.0)
    assert found.answers.predictions.dtype == np.uint8
    np.testing.assert_array_equal(SUDOKU.obeys(inputs, found.answers.predictions), [False, True])
    assert found.questions[0] == 1
    assert found.questions[1] >= 1


def test_others_change_no_puzzle_s_search():
    """Not even of a model whose restarts are drawn by a puzzle's place in the batch."""
    units = tuple(tuple(tuple(x.tolist()) for x in kind) for kind in SUDOKU.units(16))
    config = TRMConfig(
        vocab_size=6, seq_len=16, hidden_size=16, L_layers=1, H_cycles=1, L_cycles=1, expansion=1.0,
        halt_max_steps=2, puzzle_emb_ndim=0, mixer="units", unit_width=8, restart_noise=1.0,
        restart_after=2, units=units, values=SUDOKU.values(16),
    )  # fmt: skip
    model = PuzzleModel(config, recurrent.init(config, jax.random.key(0)), SUDOKU)
    inputs = to_tokens(generate(SudokuShape.of(4), 5, (5, 7), 0).questions)
    options = {"search": 200, "max_steps": 6, "slots": 4}
    together = model.solve(inputs, **options)
    alone = [model.solve(row, **options) for row in inputs]
    assert [x.questions for x in together] == [x.questions for x in alone]
    assert len({x.questions for x in together}) > 2


def test_guesses_that_cannot_be_checked():
    puzzle = PUZZLES["maze"]
    with pytest.raises(DataError, match="search: guesses at maze puzzles cannot be checked"):
        puzzle.possible(np.zeros((1, 16), np.uint8))

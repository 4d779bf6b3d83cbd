"""Latin squares: sampler, unique puzzles, splits, symmetries, checks, text, files, pictures."""

import itertools
from collections import Counter

import jax
import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.fields import ConfigError
from hrm_jax.puzzles.digits.board import check_rules
from hrm_jax.puzzles.digits.solver import solve_many
from hrm_jax.puzzles.digits.symmetry import apply, inverse
from hrm_jax.puzzles.latin.board import LatinShape
from hrm_jax.puzzles.latin.generator import generate, generate_split, squares
from hrm_jax.puzzles.latin.puzzle import LATIN, LatinData
from hrm_jax.puzzles.latin.symmetry import invariants, random_symmetry

SQUARE = "12345" "23451" "34512" "45123" "51234"  # fmt: skip
QUESTION = "1.3.." ".34.1" "3.51." ".5123" "5.2.4"  # fmt: skip


def _is_latin(board, size):
    grid = board.reshape(size, size)
    return all(sorted(line) == list(range(1, size + 1)) for line in (*grid, *grid.T))


def _all_squares(size):
    """All Latin squares, row by row."""
    rows = list(itertools.permutations(range(1, size + 1)))

    def longer(grid):
        if len(grid) == size:
            yield grid
            return
        for row in rows:
            if all(a != b for old in grid for a, b in zip(old, row, strict=True)):
                yield from longer([*grid, row])

    return np.array(list(longer([])), np.int8).reshape(-1, size * size)


@pytest.mark.parametrize("size", [5, 9])
def test_generated_puzzles_have_one_solution(size):
    shape = LatinShape(size)
    low, high = (8, 12) if size == 5 else (34, 40)
    puzzles = generate(shape, 20, (low, high), 3)
    assert all(_is_latin(board, size) for board in puzzles.answers)
    given = puzzles.questions > 0
    assert ((given.sum(1) >= low) & (given.sum(1) <= high)).all()
    assert len(set(given.sum(1).tolist())) > 1
    np.testing.assert_array_equal(puzzles.questions[given], puzzles.answers[given])
    counts, solutions, guesses = solve_many(puzzles.questions, shape)
    assert (counts == 1).all()
    np.testing.assert_array_equal(solutions, puzzles.answers)
    np.testing.assert_array_equal(puzzles.ratings, guesses)
    assert len(np.unique(puzzles.questions, axis=0)) == 20


def test_the_solver_counts_as_the_list_of_all_squares_does():
    known = _all_squares(4)
    assert len(known) == 576
    random = np.random.default_rng(0)
    boards = np.where(random.random((300, 16)) < 0.25, random.choice(known, 300), 0)
    boards[::7, :2] = 1, 2  # some of these have no completion, or contradict themselves
    boards = boards[check_rules(boards, LatinShape(4))]
    fits = ((boards[:, None] == 0) | (boards[:, None] == known)).all(2).sum(1)
    assert {0, 1, 2} <= set(fits.tolist())
    counts, solutions, guesses = solve_many(boards, LatinShape(4))
    np.testing.assert_array_equal(counts, np.minimum(fits, 2))
    assert (guesses[fits > 1] > 0).all()
    for board, solution in zip(boards[fits > 0], solutions[fits > 0], strict=True):
        assert _is_latin(solution, 4)
        assert (solution == board)[board > 0].all()


def test_squares_are_drawn_uniformly():
    shape = LatinShape(4)
    drawn = squares(shape, 0, 5760, 0, 0)[1]
    numbers = Counter(square.tobytes() for square in drawn)
    assert len(numbers) == 576
    expected = 10.0
    chi = sum((number - expected) ** 2 / expected for number in numbers.values())
    assert abs(chi - 575) < 5 * (2 * 575) ** 0.5
    rare = min(Counter(invariants(drawn, shape)).values()) / 5760
    assert abs(rare - 0.25) < 0.03  # 144 of the 576 are of the four-group's class


def test_the_same_seed_gives_the_same_puzzles():
    shape = LatinShape(6)
    one, more = generate(shape, 10, (14, 18), 5), generate(shape, 100, (14, 18), 5)
    np.testing.assert_array_equal(one.questions, more.questions[:10])
    np.testing.assert_array_equal(one.ratings, more.ratings[:10])
    for other in (generate(shape, 10, (14, 18), 6), generate(shape, 10, (14, 18), 5, stream=1)):
        assert (one.answers != other.answers).any(1).all()


@pytest.mark.parametrize("size", [5, 6, 7])
def test_training_and_test_share_no_class(size):
    shape = LatinShape(size)
    givens = (shape.cells // 2, shape.cells // 2 + 3)
    train, test = generate_split(shape, 60, 30, givens, 1)
    assert (len(train), len(test)) == (60, 30)
    classes = [set(invariants(x.answers, shape)) for x in (train, test)]
    assert not classes[0] & classes[1]
    keys = jax.random.split(jax.random.key(0), 60)
    moved = np.asarray(jax.jit(jax.vmap(LATIN.transform))(keys, train.answers + 1)) - 1
    assert set(invariants(moved, shape)) <= classes[0]


@pytest.mark.parametrize(
    ("size", "givens", "message"),
    [
        (5, (5, 9), "givens are 5 to 9, expected a range inside 6 to 25 for 5×5"),
        (5, (9, 8), "givens are 9 to 8"),
        (9, (20, 20), "found no 9×9 puzzles with 20 to 20 givens in .* allow more givens"),
        (4, (16, 16), "only .* distinct ones of 600: 4×4 puzzles with 16 to 16 givens"),
    ],
)
def test_impossible_givens_are_refused(size, givens, message):
    with pytest.raises(DataError, match=message):
        generate(LatinShape(size), 600 if size == 4 else 1, givens, 0)


def test_bad_sizes_are_refused():
    with pytest.raises(DataError, match="size is 3, expected 4 to 9"):
        LATIN.make(LatinData(size=3))
    with pytest.raises(DataError, match=r"has 16, 25, 36, 49, 64 or 81 cells, not 24"):
        LatinShape.for_cells(24)
    with pytest.raises(ConfigError, match=r"data\.givens"):
        LatinData(givens=(3,))


@pytest.mark.parametrize("seed", range(5))
def test_symmetries_are_undone_and_keep_what_is_right(seed):
    board = LATIN.parse(SQUARE, 25)
    question, key = LATIN.parse(QUESTION, 25), jax.random.key(seed)
    inputs, labels = LATIN.augment(LatinData(), key, question, board)
    assert inputs.dtype == question.dtype
    assert LATIN.valid(np.asarray(inputs)[None], np.asarray(labels)[None]).all()
    moved = LATIN.transform(key, question)
    np.testing.assert_array_equal(moved, inputs)
    np.testing.assert_array_equal(LATIN.restore(key, moved), question)
    np.testing.assert_array_equal(LATIN.restore(key, labels), board)
    other = np.arange(25, dtype=np.int32) - 100  # no tokens of digits: they only move
    symmetry = random_symmetry(key, LatinShape(5))
    there = apply(symmetry, other, LatinShape(5))
    assert sorted(there.tolist()) == other.tolist() != there.tolist()
    np.testing.assert_array_equal(apply(inverse(symmetry), there, LatinShape(5)), other)


def test_every_symmetry_is_drawn():
    board = LATIN.parse(SQUARE, 25)
    keys = jax.random.split(jax.random.key(0), 400)
    shape = LatinShape(5)
    symmetries = jax.jit(jax.vmap(lambda key: random_symmetry(key, shape)))(keys)
    cells, digits = symmetries.cells, symmetries.digits
    assert set(cells[:, 0].tolist()) == set(range(25))
    assert set(digits[:, 0].tolist()) == set(range(2, 7))
    transposed = (cells[:, 1] - cells[:, 0]) % 5 == 0  # the row's second cell is from its column
    assert 150 < int(transposed.sum()) < 250
    boards = jax.jit(jax.vmap(lambda symmetry: apply(symmetry, board, shape)))(symmetries)
    assert len(np.unique(boards, axis=0)) > 390


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ({("inputs", 1): 0}, "a cell of the question is pad, expected blank or digit"),
        ({("inputs", 1): 2, ("labels", 1): 2}, "a given digit stands twice in a unit"),
        ({("inputs", 1): 6}, "the answer changes a given"),
        ({("labels", 1): 2}, "the answer is no full valid grid"),
        ({("labels", 1): 0}, "the answer is no full valid grid"),
        ({("labels", 1): 99}, "the answer is no full valid grid"),
        ({("inputs", 1): 99}, "the answer changes a given"),
    ],
)
def test_each_kind_of_damage_is_found(damage, what):
    arrays = {"inputs": LATIN.parse(QUESTION, 25), "labels": LATIN.parse(SQUARE, 25)}
    arrays = {name: np.stack([board] * 3).astype(np.int64) for name, board in arrays.items()}
    for (name, cell), token in damage.items():
        arrays[name][1, cell] = token
    found = {
        words: bad.tolist()
        for _, bad, words in LATIN.check(arrays["inputs"], arrays["labels"], 5, test=True)
    }
    assert found[what] == [False, True, False]
    assert LATIN.valid(arrays["inputs"], arrays["labels"]).tolist() == [True, False, True]


def test_answers_are_judged_without_the_label():
    question = np.stack([LATIN.parse(QUESTION, 25)] * 2)
    answers = np.stack([LATIN.parse(SQUARE, 25)] * 2)
    answers[1] = LATIN.parse(SQUARE[5:] + SQUARE[:5], 25)  # Latin, but of other givens
    assert LATIN.obeys(question, answers).tolist() == [True, False]
    assert [[len(unit) for unit in kind] for kind in LATIN.units(25)] == [[5] * 10]
    assert LATIN.values(25) == 5


def test_text_and_back():
    tokens = LATIN.parse(f" {QUESTION}\n".replace(".", "0"), 25)
    assert LATIN.to_text(tokens) == QUESTION
    assert LATIN.answer_text(tokens) == QUESTION.replace(".", "?")
    assert LATIN.typing(25).what == "a 5×5 Latin square (. for a blank)"
    for text, message in (
        (QUESTION[1:], "board has 24 characters, expected 25"),
        (QUESTION[:-1] + "6", "row 5, column 5: '6' is illegal, expected a digit 1 to 5, . or 0"),
        ("11" + QUESTION[2:], "digit 1 stands twice in row 1: at row 1, column 1 and row 1, col"),
        ("5" + QUESTION[1:], "digit 5 stands twice in column 1: at row 1, column 1 and row 5"),
    ):
        with pytest.raises(DataError, match=message):
            LATIN.parse(text, 25)


def test_it_is_shown_as_text():
    question, board = LATIN.parse("1" + "." * 15, 16), LATIN.parse("12.." + "." * 12, 16)
    assert LATIN.painter.text(question, board) == "1 2 . .\n" + "\n".join([". . . ."] * 3)
    clash = board.copy()
    clash[1] = 2  # 1 again, in the first row
    assert np.flatnonzero(LATIN.painter.conflicts(question, clash)).tolist() == [0, 1]


def test_csv_files(tmp_path):
    data = LatinData(size=5, num_train=20, num_test=10)
    identity = LATIN.build(tmp_path / "csv", data, "csv")
    train, test = LATIN.make(data)
    files = {f"{split}_csv": str(tmp_path / "csv" / f"{split}.csv") for split in ("train", "test")}
    again = LATIN.load(LatinData(**files))
    assert again.identity.sha256 == identity.sha256
    np.testing.assert_array_equal(again.train.inputs, train.inputs)
    np.testing.assert_array_equal(again.test.labels, test.labels)
    with pytest.raises(DataError, match=r"its solution .*that of .*train\.csv, puzzle 1; 20 of 20"):
        LATIN.make(LatinData(train_csv=files["train_csv"], test_csv=files["train_csv"]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{QUESTION[1:]},{SQUARE}", "csv:2: question has 24|a Latin square has"),
        (f"{'11' + QUESTION[2:]},{SQUARE}", "csv:2: contradictory puzzle: digit 1 stands twice"),
        (f"{QUESTION},{SQUARE[5:] + SQUARE[:5]}", "csv:2: answer does not fit the question"),
        (f"{QUESTION},{'1' * 25}", "csv:2: answer breaks the rules: digit 1"),
        (f"{'1' + '.' * 24},{SQUARE}", "csv:2: puzzle with more than one solution"),
        (f"{'1234.' + '....5' + '.' * 15},{SQUARE}", "csv:2: unsolvable puzzle|answer does not"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "puzzles.csv"
    path.write_text(f"question,answer\n{line}\n")
    with pytest.raises(DataError, match=message):
        LATIN.read_csv(path)

"""Loading, evaluating and solving from a workdir."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import hrm_jax
from hrm_jax import tasks
from hrm_jax.data.errors import DataError
from hrm_jax.data.npy_folder import read_npy
from hrm_jax.puzzles.sudoku.board import SudokuShape, from_tokens, to_text
from hrm_jax.puzzles.sudoku.generator import generate
from hrm_jax.puzzles.sudoku.puzzle import SUDOKU
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.trained.browse import trace_puzzles
from hrm_jax.trained.evaluate import evaluate, held_out
from hrm_jax.training.checkpoints import CheckpointError, load_weights
from hrm_jax.training.metrics import read_metrics
from hrm_jax.training.workdir import WorkdirError

FOUR = SudokuShape.of(4)


@pytest.fixture(scope="module")
def model(trained):
    return hrm_jax.load(trained)


@pytest.fixture(scope="module")
def test_set(trained):
    return read_npy(trained / "data", "test")


@pytest.mark.parametrize(("checkpoint", "step"), [("last", 4), ("best", 4), (2, 2), (4, 4)])
def test_load(checkpoint, step, trained):
    weights, found = load_weights(trained, checkpoint)
    assert found == step
    model = hrm_jax.load(trained, checkpoint)
    np.testing.assert_array_equal(
        model.variables["params"]["lm_head"]["kernel"], weights["params"]["lm_head"]["kernel"]
    )
    assert (model.config.seq_len, model.config.vocab_size) == (16, 6)
    assert model.puzzle is SUDOKU


def test_load_errors(trained, workdir, tmp_path):
    with pytest.raises(WorkdirError, match=r"nowhere: not the workdir of a run"):
        hrm_jax.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no checkpoint 3; there are: 2, 4"):
        hrm_jax.load(trained, 3)
    with pytest.raises(CheckpointError, match=r"no checkpoint 'newest'"):
        hrm_jax.load(trained, "newest")
    shutil.rmtree(workdir / "best")
    with pytest.raises(CheckpointError, match=r"best: no such folder"):
        hrm_jax.load(workdir, "best")
    file = max((workdir / "checkpoints/4/weights").glob("**/d/*"), key=lambda f: f.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"checkpoints/4: damaged"):
        hrm_jax.load(workdir)
    assert hrm_jax.load(workdir, 2).config.seq_len == 16
    (workdir / "config.json").write_text('{"task": "sudoku",\n "steps": }')
    with pytest.raises(ValueError, match=r"config\.json:2: not valid JSON"):
        hrm_jax.load(workdir)


def test_evaluation_repeats_the_figures_of_training(trained):
    logged = read_metrics(trained / "metrics.jsonl")[-1]
    figures = evaluate(trained)
    for name, value in figures.items():
        if name != "eval/puzzles_per_second":
            assert value == pytest.approx(logged[name]), name
    assert evaluate(trained, halting="fixed", max_steps=5)["eval/steps"] == 5
    assert evaluate(trained, limit=3)["eval/puzzles"] == 3


def test_evaluation_of_other_puzzles(trained, tmp_path):
    puzzles = generate(FOUR, 5, (8, 10), seed=7)
    SUDOKU.write_csv(tmp_path / "more.csv", puzzles)
    assert evaluate(trained, tmp_path / "more.csv")["eval/puzzles"] == 5
    assert evaluate(trained, trained / "data")["eval/puzzles"] == 8
    with pytest.raises(DataError, match="no such file or folder"):
        evaluate(trained, tmp_path / "none.csv")
    SUDOKU.write_csv(tmp_path / "six.csv", generate(SudokuShape.of(6), 2, (20, 24), seed=0))
    with pytest.raises(DataError, match="puzzles have 36 cells, the model was trained on 16"):
        evaluate(trained, tmp_path / "six.csv")
    for bad in ({"max_steps": 0}, {"limit": 0}, {"limit": -1}, {"slots": 0}):
        (name,) = bad
        with pytest.raises(ValueError, match=name):
            evaluate(trained, **bad)


def test_changed_data_are_noticed(workdir):
    assert len(held_out(workdir)) == 8
    path = workdir / "data" / "test" / "all__labels.npy"
    labels = np.load(path)
    labels[0, :2] = labels[0, 1::-1]
    np.save(path, labels)
    with pytest.raises(WorkdirError, match=r"have changed since(.|\n)*sha256\.test(.|\n)*--data"):
        evaluate(workdir)


def test_solving_by_text_list_and_tokens(model, test_set):
    tokens = test_set.inputs[:3]
    texts = [to_text(from_tokens(row)) for row in tokens]
    one = model.solve(texts[0], trace=True)
    assert len(one.text) == 16
    assert str(one) == one.text
    assert one.trace.shape == (one.steps, 16)
    assert one.trace_text[-1] == one.text
    np.testing.assert_array_equal(one.trace[-1], one.tokens)
    many = model.solve(texts)
    by_tokens = model.solve(tokens)
    assert [s.text for s in many] == [s.text for s in by_tokens]
    assert model.solve(tokens[0]).text == many[0].text == one.text
    assert many[0].trace.shape == (0, 16)
    assert model.solve([texts[0].replace(".", "0")])[0].text == one.text
    assert model.solve(texts[0], max_steps=6, halting="fixed").steps == 6
    assert model.solve_tokens(np.zeros((0, 16), int)) == []


def test_validity_is_checked_and_not_believed(model, test_set):
    solutions = model.solve_tokens(test_set.inputs)
    for solution, labels in zip(solutions, test_set.labels, strict=True):
        assert solution.valid == bool((solution.tokens == labels).all())


@pytest.mark.parametrize(
    ("puzzle", "message"),
    [
        ("123", "3 characters, expected 16"),
        ("5" + "." * 15, "row 1, column 1: '5' is illegal, expected a digit 1 to 4"),
        ("11" + "." * 14, "digit 1 stands twice in row 1"),
        ("x" * 16, "'x' is illegal"),
        ("." * 81, "81 characters, expected 16"),
    ],
)
def test_bad_puzzles(puzzle, message, model):
    with pytest.raises(DataError, match=message):
        model.solve(puzzle)
    with pytest.raises(DataError, match=message):
        model.solve(["." * 16, puzzle])


def test_bad_tokens(model):
    for bad, message in (
        (np.zeros((2, 17), int), r"expected tokens \[N, 16\]"),
        (np.full((1, 16), 6), r"expected tokens 0\.\.5"),
        (np.full((1, 16), -1), r"expected tokens 0\.\.5"),
    ):
        with pytest.raises(ValueError, match=message):
            model.solve_tokens(bad)
    with pytest.raises(ValueError, match="max_steps: expected at least 1"):
        model.solve_tokens(np.full((1, 16), 2), max_steps=0)


@pytest.fixture(scope="module")
def five(model):
    """The model with five rows in its puzzle table."""
    config = dataclasses.replace(model.config, num_puzzle_identifiers=5)
    table = np.random.default_rng(0).standard_normal((5, 32)).astype(np.float32)
    tables = {**model.variables["tables"], "puzzle_emb": table}
    return PuzzleModel(config, {**model.variables, "tables": tables})


@pytest.mark.parametrize(
    ("identifiers", "message"),
    [
        ([0, 1, 5], r"puzzle_identifiers 0\.\.4, got 5 at \[2\]"),
        ([99, -1, 0], r"puzzle_identifiers 0\.\.4, got 99 at \[0\] \(2 such\)"),
        ([0, 10**6, 0], "got 1000000"),
        ([0, 2**40, 0], "got 1099511627776"),
        ([0, 2**70, 0], "that are integers, got object"),
        ([0, 1.7, 0], "got 1.7 at"),
        ([0, float("nan"), 0], "got nan at"),
        ([True, False, True], "that are integers, got bool"),
        (["0", "1", "2"], "that are integers"),
        ([0], r"expected puzzle_identifiers \[3\], got an array of shape \(1,\)"),
        (np.array(3), r"expected puzzle_identifiers \[3\], got an array of shape \(\)"),
        ([[0, 1, 2]], r"expected puzzle_identifiers \[3\], got an array of shape \(1, 3\)"),
    ],
)
def test_identifiers_that_the_model_has_no_row_for(five, test_set, identifiers, message):
    tokens = test_set.inputs[:3]
    batch = {"inputs": tokens.astype(np.int32), "puzzle_identifiers": np.zeros(3, np.int32)}
    carry = five.initial_carry(batch)
    batch["puzzle_identifiers"] = np.asarray(identifiers)
    calls = {
        "solve": lambda: five.solve(tokens, puzzle_identifiers=identifiers),
        "answers": lambda: five.answers(tokens, np.asarray(identifiers)),
        "initial_carry": lambda: five.initial_carry(batch),
        "act_step": lambda: five.act_step(carry, batch),
        "trace_puzzles": lambda: trace_puzzles(
            five.config, five.variables, tokens, np.asarray(identifiers), max_steps=1
        ),
    }
    for call in calls.values():
        with pytest.raises(ValueError, match=message):
            call()


def test_every_row_of_the_puzzle_table_answers(five, test_set):
    one = np.repeat(test_set.inputs[:1], 5, axis=0)
    beliefs = {solution.q_halt for solution in five.solve(one, puzzle_identifiers=range(5))}
    assert len(beliefs) == 5
    assert five.solve(one[:1], puzzle_identifiers=[2.0])[0].q_halt in beliefs


def test_batches_of_acts_must_agree(model, test_set):
    batch = {"inputs": test_set.inputs[:3], "puzzle_identifiers": np.zeros(3, int)}
    carry = model.initial_carry(batch)
    with pytest.raises(ValueError, match=r"expected inputs \[3, 16\], got .* \(1, 16\)"):
        model.act_step(carry, {k: v[:1] for k, v in batch.items()})
    with pytest.raises(ValueError, match="puzzle_identifiers is missing"):
        model.act_step(carry, {"inputs": batch["inputs"]})
    with pytest.raises(ValueError, match=r"expected inputs 0\.\.5, got 200"):
        model.act_step(carry, {**batch, "inputs": np.full((3, 16), 200)})


def test_data_of_other_identifiers_are_refused(trained, workdir, tmp_path):
    more = shutil.copytree(trained / "data", tmp_path / "more")
    facts = json.loads((more / "test" / "dataset.json").read_text())
    facts["num_puzzle_identifiers"] = 8
    (more / "test" / "dataset.json").write_text(json.dumps(facts))
    np.save(more / "test" / "all__puzzle_identifiers.npy", np.arange(8))
    with pytest.raises(DataError, match="more: puzzle identifier 7 is not one of the 1 that"):
        evaluate(trained, more)
    with pytest.raises(DataError, match="num_puzzle_identifiers is 8 in the test split, but 1"):
        tasks.build(tasks.parse({"task": "sudoku", "data": {"path": str(more)}}))


def test_seeds_without_effect_are_refused(trained):
    with pytest.raises(DataError, match="seed: 3 has no effect: it draws symmetries, and votes"):
        evaluate(trained, seed=3)


def test_metrics_survive_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1, "train/loss": 2.0}) + '\n{"step": 2, "tra')
    assert read_metrics(path) == [{"step": 1, "train/loss": 2.0}]
    assert read_metrics(tmp_path / "none.jsonl") == []

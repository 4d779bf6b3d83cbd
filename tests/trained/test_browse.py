"""Which puzzles there are to look at, and what a model thinks of them step by step."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import hrm_jax
from hrm_jax import tasks
from hrm_jax.data.errors import DataError
from hrm_jax.data.npy_folder import PuzzleSet, read_npy, write_npy
from hrm_jax.fields import to_mapping
from hrm_jax.puzzles.maze.board import MazeShape
from hrm_jax.puzzles.maze.generator import generate
from hrm_jax.puzzles.maze.puzzle import MAZE
from hrm_jax.trained.browse import examples, trace_puzzles


def test_csv_files_are_read_as_the_runs_kind_of_puzzles(tmp_path):
    mazes = generate(MazeShape(6, 6), 5, 4, 0)
    MAZE.write_csv(tmp_path / "mazes.csv", mazes)
    with pytest.raises(DataError, match=r"character 1: .* is illegal, expected a digit"):
        examples(None, tmp_path / "mazes.csv")
    config = to_mapping(tasks.parse({"task": "maze"}))
    (tmp_path / "config.json").write_text(json.dumps(config))
    puzzles, names = examples(tmp_path, tmp_path / "mazes.csv")
    np.testing.assert_array_equal(puzzles.inputs, mazes.questions)
    assert names == []


@pytest.mark.parametrize("halting", ["q", "fixed"])
def test_the_trace_is_that_of_solve(halting, trained):
    model = hrm_jax.load(trained)
    puzzles = read_npy(trained / "data", "test")
    traces = trace_puzzles(
        model.config, model.variables, puzzles.inputs, puzzles.example_identifiers(),
        max_steps=5, halting=halting, rows=3,
    )  # fmt: skip
    assert traces.boards.shape == traces.confidence.shape == (8, 5, 16)
    solved = model.solve_tokens(puzzles.inputs, max_steps=5, halting=halting, trace=True)
    for row, solution in enumerate(solved):
        assert traces.stops[row] == solution.steps
        np.testing.assert_array_equal(traces.boards[row, : solution.steps], solution.trace)
        np.testing.assert_allclose(
            traces.q_halt[row, solution.steps - 1], solution.q_halt, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
def test_the_confidence_is_the_probability_that_was_trained(loss, trained):
    model = hrm_jax.load(trained)
    inputs = read_npy(trained / "data", "test").inputs[:4]
    batch = {
        "inputs": jnp.asarray(inputs, jnp.int32),
        "puzzle_identifiers": jnp.zeros(4, jnp.int32),
    }
    _, out = model.act_step(model.initial_carry(batch), batch)
    x = np.asarray(out.logits, np.float64)
    s = np.exp(x) if loss == "softmax" else np.where(x >= 0, x + 1, 1 / (1 - np.minimum(x, 0)))
    traces = trace_puzzles(
        model.config, model.variables, inputs, np.zeros(4, int), max_steps=1, loss=loss
    )
    expected = 255 * (s / s.sum(-1, keepdims=True)).max(-1)
    np.testing.assert_allclose(traces.confidence[:, 0], expected, atol=0.6)
    assert model.loss == "stablemax"


def test_trace_errors(trained):
    model = hrm_jax.load(trained)
    for change, message in (({"max_steps": 0}, "max_steps"), ({"rows": 0}, "rows")):
        with pytest.raises(ValueError, match=f"{message}: expected at least 1"):
            trace_puzzles(model.config, model.variables, np.ones((1, 16), int), np.zeros(1, int),
                          **{"max_steps": 1, **change})  # fmt: skip
    with pytest.raises(ValueError, match="puzzles: expected at least 1"):
        trace_puzzles(model.config, {}, np.ones((0, 16), int), np.zeros(0, int), max_steps=1)


def test_examples(trained, tmp_path):
    assert len(examples(trained, None, "train")[0]) == 16
    assert len(examples(trained, None)[0]) == 8
    puzzles = PuzzleSet.simple(np.ones((5, 16), int), np.ones((5, 16), int), 6, 0)
    write_npy(tmp_path, "test", puzzles, ["<blank>"])
    puzzles, names = examples(None, tmp_path)
    assert (len(puzzles), names) == (5, [])
    (tmp_path / "identifiers.json").write_text('["<blank>", "a"]')
    assert examples(None, tmp_path)[1] == ["<blank>", "a"]
    for content, message in (("{", "not valid JSON"), ("[1]", "expected a list of names")):
        (tmp_path / "identifiers.json").write_text(content)
        with pytest.raises(DataError, match=rf"identifiers\.json: {message}"):
            examples(None, tmp_path)
    with pytest.raises(DataError, match="no such file"):
        examples(None, tmp_path / "none")
    with pytest.raises(DataError, match="give a data set"):
        examples(None, None)

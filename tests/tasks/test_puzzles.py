"""Mazes and dominoes as tasks, and TRM as the network of any of them."""

import itertools
import json
import pathlib

import jax
import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.fields import ConfigError, to_mapping
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.trm import TRMConfig
from hrm_jax.puzzles import PUZZLES
from hrm_jax.tasks.base import Task
from hrm_jax.tasks.puzzles.model import PuzzleModel

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
SMALL = {"hidden_size": 32, "num_heads": 2, "H_layers": 1, "L_layers": 1, "puzzle_emb_ndim": 32}
DATA = {
    "sudoku": {"size": 4, "num_train": 16, "num_test": 4, "givens": ()},
    "maze": {"size": 5, "num_train": 16, "num_test": 4, "min_path": 3},
    "domino": {"num_train": 16, "num_test": 4},
    "latin": {"size": 4, "num_train": 16, "num_test": 4, "givens": ()},
}


def _config(name, preset="", model="hrm"):
    preset = preset or {"sudoku": "hrm6", "maze": "small"}.get(name, "laptop")
    config = tasks.file_config(CONFIGS / f"{name}.py", preset)
    config.model.name = model
    return config


def _tiny(name, model):
    config = _config(name, model=model)
    config.data.update(DATA[name])
    config.model.update({k: v for k, v in SMALL.items() if model == "hrm" or k != "H_layers"})
    config.update(steps=3, batch_size=4, microbatch_size=0, eval_slots=4, eval_max_steps=3)
    return tasks.parse(config.to_dict())


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        *itertools.product(DATA, ("laptop", "small", "paper")),
        *(("sudoku", preset) for preset in ("hrm6", "real")),
    ],
)
def test_presets_are_complete(name, preset):
    config = tasks.parse(_config(name, preset).to_dict())
    assert isinstance(config.model, HRMConfig)
    stored = json.loads(json.dumps(to_mapping(config)))
    assert tasks.parse({**stored, "preset_values": stored}) == config
    trm = tasks.parse(_config(name, preset, "trm").to_dict())
    assert isinstance(trm.model, TRMConfig)
    assert trm.model.hidden_size == config.model.hidden_size
    assert tasks.parse({**to_mapping(trm), "preset_values": to_mapping(trm)}) == trm


def test_an_unknown_network_is_named():
    with pytest.raises(ConfigError, match=r"config\.model\.name: .*'hrm', 'trm', got 'hmr'"):
        tasks.parse(_config("maze", model="hmr").to_dict())


@pytest.mark.parametrize(
    ("name", "model"),
    [("sudoku", "hrm"), ("latin", "hrm"), ("maze", "trm"), ("domino", "trm")],
)
def test_trains_and_evaluates(name, model, tmp_path):
    task = tasks.build(_tiny(name, model), tmp_path)
    assert isinstance(task, Task)
    state = task.init(jax.random.key(0))
    batch = next(task.batches())
    after, metrics = jax.jit(task.step)(state, batch)
    assert np.isfinite(metrics["loss"]).all()
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), state.params, after.params)
    assert max(jax.tree.leaves(moved)) > 0
    figures = task.evaluate(after)
    expected = {"maze": {"valid", "optimal"}, "domino": {"legal", "optimal"}}
    for verdict in ("exact_accuracy", *expected.get(name, ())):
        assert 0 <= figures[f"eval/{verdict}"] <= 1
    again = tasks.build(_tiny(name, model), tmp_path)  # from what was kept
    assert again.identity.sha256 == task.identity.sha256


def test_a_maze_is_solved_as_text():
    task = tasks.build(_tiny("maze", "hrm"))
    variables = task.weights(task.init(jax.random.key(0)))
    model = PuzzleModel(task.config.model, variables)
    maze = PUZZLES["maze"]
    assert model.puzzle is maze
    question = task.test.inputs[:1]
    solution = model.solve(maze.to_text(question[0]), trace=True, max_steps=2)
    assert len(solution.text) == 25
    assert len(solution.trace_text) == solution.steps
    assert solution.valid == maze.valid(question, solution.tokens[None])[0]

"""Which puzzles there are to look at."""

import json

import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.data.errors import DataError
from hrm_jax.fields import to_mapping
from hrm_jax.puzzles.maze.board import MazeShape
from hrm_jax.puzzles.maze.generator import generate
from hrm_jax.puzzles.maze.puzzle import MAZE
from hrm_jax.trained.browse import examples


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

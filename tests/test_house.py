"""The rules of the house: formatting, lint, types, imports, and the configs that we ship."""

import dataclasses
import importlib.util
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.models import recurrent

ROOT = pathlib.Path(__file__).parents[1]


def _tool(name):
    beside = pathlib.Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["ruff", "format", "--check", "."], ["ruff", "check", "."], ["mypy"], ["lint-imports"]],
    ids=" ".join,
)
def test_rules(command):
    done = subprocess.run(
        [_tool(command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _presets():
    return [
        (path, preset) for path in sorted((ROOT / "configs").glob("*.py"))
        for preset in _config(path).PRESETS
    ]  # fmt: skip


def _config(path):
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("path", "preset"), _presets(), ids=lambda x: getattr(x, "stem", x))
def test_every_preset_is_a_valid_configuration(path, preset):
    config = tasks.parse(_config(path).get_config(preset).to_dict())
    assert config.preset.startswith(preset)
    assert config.expect
    assert config.steps % config.checkpoint_every == 0 or config.steps > config.checkpoint_every


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match=r"unknown preset 'huge'; expected one of laptop, small"):
        _config(ROOT / "configs" / "sudoku.py").get_config("huge")


def test_the_papers_model_has_the_papers_number_of_parameters():
    """27,275,266 counts what Adam trains: neither puzzle table nor initial states."""
    values = _config(ROOT / "configs" / "sudoku.py").get_config("paper").to_dict()
    model = dataclasses.replace(tasks.parse(values).model, seq_len=81, vocab_size=11)
    shapes = jax.eval_shape(lambda: recurrent.init(model, jax.random.key(0)))
    count = {k: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(v)) for k, v in shapes.items()}
    assert count == {"params": 27_275_266, "tables": 512, "constants": 2 * 512}

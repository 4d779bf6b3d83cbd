"""The rules of the house: formatting, lint, types, imports, and the configs that we ship."""

import ast
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
    with pytest.raises(ValueError, match=r"unknown preset 'huge'; expected one of laptop, hrm6"):
        _config(ROOT / "configs" / "sudoku.py").get_config("huge")


def test_the_papers_model_has_the_papers_number_of_parameters():
    """27,275,266 counts what Adam trains: neither puzzle table nor initial states."""
    values = _config(ROOT / "configs" / "sudoku.py").get_config("paper").to_dict()
    model = dataclasses.replace(tasks.parse(values).model, seq_len=81, vocab_size=11)
    shapes = jax.eval_shape(lambda: recurrent.init(model, jax.random.key(0)))
    count = {k: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(v)) for k, v in shapes.items()}
    assert count == {"params": 27_275_266, "tables": 512, "constants": 2 * 512}


_WITHOUT = """
import re, runpy, sys, types

setup = open("setup.py").read()
before, after = setup.split("extras_require", 1)
base, extras = before.split("install_requires", 1)[1], before.split("setup(")[0] + after
names = {x.replace("-", "_") for x in re.findall(r'"([A-Za-z][\\w-]*)[>=\\[]', extras)}
names -= {x.replace("-", "_") for x in re.findall(r'"([A-Za-z][\\w-]*)[>=\\[]', base)}
names -= {"jax"}


class Missing:
    @staticmethod
    def find_spec(name, *_):
        if name.split(".")[0] in names:
            raise ModuleNotFoundError(name)


assert {"torch", "gymnasium", "tokenizers", "starlette"} <= names, names
sys.meta_path.insert(0, Missing)
for script in sys.argv[1:]:
    runpy.run_path(script, run_name="imported")
"""


def test_scripts_start_without_extras(child):
    scripts = ["train", "evaluate", "solve", "export", "play", "view", "build_dataset"]
    paths = [f"launch/{name}.py" for name in scripts]
    command = [sys.executable, "-c", _WITHOUT, *paths]
    done = subprocess.run(command, cwd=ROOT, env=child(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# What parses the content of files and can raise anything.
_PARSERS = {
    *("json.load", "json.loads", "yaml.safe_load", "csv.reader", "np.load", "open_memmap"),
    *("np.lib.format.read_array", "np.lib.format.open_memmap", "tarfile.open", "zipfile.ZipFile"),
    *("torch.load", "h5py.File", "safetensors.numpy.load_file", "package.Tokenizer.from_file"),
}
# Functions whose callers are `reading` or catch all, and those that parse what we wrote just now.
_WITHIN = {
    *("_read_safetensors", "_checked_zip", "_read_torch", "_read_numpy", "_read_keras"),
    *("from_json", "_archive_files", "_tarred", "_zipped", "parse", "_restore_data"),
    *("_write_keras", "_puzzle_set", "agreed", "_completed", "prepare", "_ask", "main"),
    *("_respelled", "read_questions"),
}


def _bare_parsers(node, function=""):
    """Calls of parsers outside a `with reading(...)` and outside a `try` for whatever is raised."""
    match node:
        case ast.FunctionDef(name=function) | ast.AsyncFunctionDef(name=function):
            pass
        case ast.With(items=items) if any("reading(" in ast.unparse(item) for item in items):
            return
        case ast.Try(handlers=handlers) if any(
            "Exception" in ast.unparse(handler) or "RecursionError" in ast.unparse(handler)
            for handler in handlers
        ):
            return
        case ast.Call(func=called) if ast.unparse(called) in _PARSERS and function not in _WITHIN:
            yield f"{node.lineno} {function}: {ast.unparse(node)[:60]}"
    for inner in ast.iter_child_nodes(node):
        yield from _bare_parsers(inner, function)


def test_whatever_a_file_holds_its_readers_name_it():
    found = {
        f"{path.relative_to(ROOT)}:{place}"
        for path in (ROOT / "hrm_jax").rglob("*.py")
        for place in _bare_parsers(ast.parse(path.read_text()))
    }
    assert not found

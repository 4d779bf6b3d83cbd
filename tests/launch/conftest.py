"""The scripts of launch/ as modules, and runs that several of them are tried on."""

import functools
import importlib.util
import logging
import pathlib

import pytest

from hrm_jax import experiment

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


@pytest.fixture(scope="session")
def script():
    """Imports launch/<name>.py."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"launch_{name}", LAUNCH / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(autouse=True)
def _handlers():
    """What a script logs to goes with its test, and so does the stream that it writes to."""
    before = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = before


DATA = {
    "sudoku": {"size": 4},
    "maze": {"size": 5, "min_path": 3},
    "domino": {},
}


@pytest.fixture(scope="session")
def finished(tiny, tmp_path_factory):
    """Trains two steps on a puzzle, once: (workdir, what the report says). Tests only read it."""

    @functools.cache
    def train(task):
        workdir = tmp_path_factory.mktemp(task) / "run"
        config = tiny(task=task, steps=2, data={"num_train": 16, "num_test": 8, **DATA[task]})
        result = experiment.train(config, workdir, progress=False)
        return workdir, experiment.report(result, workdir)

    return train

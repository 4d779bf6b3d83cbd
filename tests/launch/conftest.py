"""The scripts of launch/ as modules."""

import importlib.util
import pathlib

import pytest

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

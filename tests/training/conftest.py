"""What the tests of the training loop share."""

import jax
import numpy as np
import pytest

from hrm_jax.training.metrics import read_metrics


def _bits(state):
    """Every array of a state as bytes, by its path."""
    result = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaf = np.asarray(leaf)
        result[jax.tree_util.keystr(path)] = (leaf.dtype.name, leaf.shape, leaf.tobytes())
    return result


@pytest.fixture(scope="session")
def assert_same_state():
    """Asserts that two states are equal bit for bit, the carry and the key included."""

    def check(a, b):
        a, b = _bits(a), _bits(b)
        assert a.keys() == b.keys()
        assert [name for name in a if a[name] != b[name]] == []

    return check


@pytest.fixture(scope="session")
def figures():
    """The lines of a run's metrics.jsonl without what the clock says."""
    clock = ("per_second", "seconds", "data_wait")

    def read(workdir):
        return [
            {k: v for k, v in line.items() if not k.endswith(clock)}
            for line in read_metrics(workdir / "metrics.jsonl")
        ]

    return read


@pytest.fixture(scope="session")
def straight(tiny, start, tmp_path_factory):
    """An uninterrupted run of 8 steps: (its workdir, how it ended)."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    return workdir, start(tiny(steps=8), workdir)

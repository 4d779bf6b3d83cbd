"""What the tests of weights share: the references' numbers, and a small model of every kind."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import traverse_util

from hrm_jax.models import recurrent
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.trm import TRMConfig


@pytest.fixture(scope="session")
def parity_folder(parity):
    return parity / "rope"


@pytest.fixture(scope="session", params=["trm_att", "trm_mlp"])
def trm_folder(parity, request):
    return parity / request.param


@pytest.fixture
def parity_config(parity_folder):
    return json.loads((parity_folder / "config.json").read_text())


@pytest.fixture
def parity_state_dict(parity_folder):
    with np.load(parity_folder / "state_dict.npz") as file:
        return dict(file)


_SMALL = HRMConfig(
    seq_len=5, vocab_size=7, hidden_size=8, num_heads=2, H_layers=1, L_layers=2, expansion=1.0
)


@pytest.fixture
def small_config():
    """Two prefix tokens with padding, learned positions, unequal depths."""
    return dataclasses.replace(
        _SMALL, num_puzzle_identifiers=3, puzzle_emb_ndim=12, pos_encodings="learned"
    )


@pytest.fixture
def plain_config():
    """No puzzle embedding, rotary positions."""
    return _SMALL


@pytest.fixture(params=["attention", "MLP"])
def trm_config(request):
    """Three prefix tokens, of which one is padding."""
    config = TRMConfig(
        seq_len=5, vocab_size=7, hidden_size=8, num_heads=2, expansion=1.0, puzzle_emb_len=3,
        num_puzzle_identifiers=3, puzzle_emb_ndim=12,
    )  # fmt: skip
    if request.param == "MLP":
        config = dataclasses.replace(config, mlp_t=True, pos_encodings="none")
    return config


def _random_variables(config):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: recurrent.init(config, jax.random.key(0)))
    return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes)


@pytest.fixture
def make_variables():
    """Draws variables of which no two entries are equal (fresh ones are half zeros)."""
    return _random_variables


def _assert_same(a, b):
    a, b = traverse_util.flatten_dict(a), traverse_util.flatten_dict(b)
    assert a.keys() == b.keys()
    for path in a:
        assert a[path].dtype == b[path].dtype == np.float32, path
        np.testing.assert_array_equal(
            np.asarray(a[path]).view(np.uint32), np.asarray(b[path]).view(np.uint32), str(path)
        )


@pytest.fixture
def assert_same():
    """Asserts that two trees of variables are equal bit for bit."""
    return _assert_same

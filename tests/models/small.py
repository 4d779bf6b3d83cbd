"""Small recurrent networks for the tests of this folder, and puzzles for them."""

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.models import recurrent
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.trm import TRMConfig

SMALL = HRMConfig(
    seq_len=4, vocab_size=7, hidden_size=16, num_heads=2, expansion=1.0, H_layers=1, L_layers=1,
    halt_max_steps=4, num_puzzle_identifiers=3, puzzle_emb_ndim=16, forward_dtype="float32",
)  # fmt: skip
TINY = TRMConfig(
    seq_len=4, vocab_size=7, hidden_size=16, num_heads=2, expansion=1.0, L_layers=1, H_cycles=2,
    L_cycles=3, halt_max_steps=4, num_puzzle_identifiers=3, puzzle_emb_ndim=16, puzzle_emb_len=2,
    forward_dtype="float32",
)  # fmt: skip
KEY = jax.random.key(0)


def random_variables(config, seed=0):
    """Variables without zeros, so that q and the puzzle table matter."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: recurrent.init(config, KEY))
    return jax.tree.map(
        lambda x: jnp.asarray(random.standard_normal(x.shape) / np.sqrt(x.shape[0]), x.dtype),
        shapes,
    )


def batch_of(rows, config=SMALL, seed=0):
    random = np.random.default_rng(seed)
    return {
        "inputs": jnp.asarray(random.integers(1, config.vocab_size, (rows, config.seq_len))),
        "puzzle_identifiers": jnp.asarray(random.integers(0, 3, rows)),
    }

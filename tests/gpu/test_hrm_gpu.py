"""HRM on a real GPU: `HRM_JAX_TEST_PLATFORM=cuda python -m pytest tests/gpu`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.compilation import jit
from hrm_jax.interop.torch import load_hrm

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "gpu",
    reason="needs a GPU and HRM_JAX_TEST_PLATFORM=cuda",
)


def test_parity_in_full_precision(parity):
    folder = parity / "rope"
    model = load_hrm(folder / "state_dict.npz", folder / "config.json")
    with np.load(folder / "batches.npz") as file:
        batch = {k: file[f"b0/{k}"] for k in ("inputs", "puzzle_identifiers")}
    carry = model.initial_carry(batch)
    with jax.default_matmul_precision("highest"), np.load(folder / "eval_steps.npz") as expected:
        for step in range(3):
            carry, out = model.act_step(carry, batch)
            np.testing.assert_allclose(out.logits, expected[f"step{step}/logits"], atol=1e-4)
            np.testing.assert_allclose(carry.z_H, expected[f"step{step}/z_H"], atol=1e-4)


def test_bfloat16_training_learns():
    config = {
        "task": "sudoku",
        "batch_size": 128,
        "steps": 300,
        "data": {"size": 4, "num_train": 200, "num_test": 50},
        "model": {
            "hidden_size": 64,
            "num_heads": 2,
            "H_layers": 1,
            "L_layers": 1,
            "puzzle_emb_ndim": 64,
            "halt_max_steps": 4,
        },
        "optimizer": {"name": "adamw", "learning_rate": 2e-3, "warmup_steps": 20},
    }
    task = tasks.build(tasks.parse(config))
    state, batches = task.init(jax.random.key(0)), task.batches()
    step = jit(task.step, donate_argnums=0)
    losses = []
    for _ in range(300):
        state, metrics = step(state, next(batches))
        losses.append(metrics["loss"])
    losses = [float(total / count) for total, count in jax.device_get(losses)]
    assert state.rows.z_H.dtype == jnp.bfloat16
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state.params))
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])

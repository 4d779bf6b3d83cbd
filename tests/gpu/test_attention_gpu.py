"""The kernels compiled: `HRM_JAX_TEST_PLATFORM=cuda python -m pytest tests/gpu`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.compilation import jit
from hrm_jax.kernels.attention import attention, self_attention
from hrm_jax.kernels.pallas_attention import held_whole, pallas_attention
from hrm_jax.kernels.rotary import rotary_tables

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "gpu",
    reason="needs a GPU and HRM_JAX_TEST_PLATFORM=cuda",
)


def _output_and_gradients(function, q, k, v, do):
    @jax.jit
    def run(q, k, v, do):
        out, back = jax.vjp(function, q, k, v)
        return out, *back(do)

    with jax.default_matmul_precision("highest"):
        return [np.asarray(x, np.float32) for x in run(q, k, v, do)]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize(
    ("length", "causal"),
    [*((length, False) for length in (1, 7, 81, 82, 97, 128, 901, 916)), (82, True), (901, True)],
)
def test_kernels(length, size, dtype, causal):
    keys = jax.random.split(jax.random.key(length), 4)
    q, do = (jax.random.normal(key, (3, length, 4, size), dtype) for key in keys[:2])
    k, v = (jax.random.normal(key, (3, length, 2, size), dtype) for key in keys[2:])
    lengths = jnp.array([length, max(1, length // 2), 0])
    oracle = [np.asarray(x, np.float32) for x in (q, k, v, do)]
    expected = _output_and_gradients(
        lambda q, k, v: attention(q, k, v, causal=causal, lengths=lengths, impl="xla"),
        *(jnp.asarray(x) for x in oracle),
    )
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    for short in {held_whole(length, size, dtype), False}:
        found = _output_and_gradients(
            lambda q, k, v, short=short: pallas_attention(q, k, v, lengths, causal, short=short),
            q, k, v, do,
        )  # fmt: skip
        for name, a, b in zip(("o", "dq", "dk", "dv"), found, expected, strict=True):
            assert np.isfinite(a).all(), name
            scale = max(1.0, float(np.abs(b).max()))
            if name in ("dq", "dk"):
                # The third row sees one key, whose weight is 1 whatever they are: its gradients
                # are zero but for the rounding of two sums of C products, added up over S.
                rounding = 2 * jnp.finfo(jnp.float32).eps * (length * size) ** 0.5
                assert np.abs(a[2]).max() < max(tolerance, rounding) * scale, name
                a, b = a[:2], b[:2]
            np.testing.assert_allclose(a / scale, b / scale, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize(("length", "size"), [(1, 64), (60, 32), (82, 64), (97, 32), (128, 128)])
def test_self_attention(length, size, rotated, dtype):
    keys = jax.random.split(jax.random.key(length), 2)
    qkv = jax.random.normal(keys[0], (3, length, 3, 4, size), dtype)
    do = jax.random.normal(keys[1], (3, length, 4, size), dtype)
    rotary = rotary_tables(length, size, 1e4) if rotated else None

    def run(impl, qkv, do):
        def values(qkv, do):
            out, back = jax.vjp(lambda x: self_attention(x, rotary, impl=impl), qkv)
            return out, *back(do)

        with jax.default_matmul_precision("highest"):
            return [np.asarray(x, np.float32) for x in jax.jit(values)(qkv, do)]

    expected = run("xla", *(x.astype(jnp.float32) for x in (qkv, do)))
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    for name, a, b in zip(("o", "dqkv"), run("pallas", qkv, do), expected, strict=True):
        assert np.isfinite(a).all(), name
        scale = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("engine", ["pallas", "cudnn"])
def test_training_step_beside_xla(engine):
    def steps(attention):
        config = {
            "task": "sudoku",
            "batch_size": 32,
            "steps": 10,
            "data": {"size": 9, "num_train": 64, "num_test": 8},
            "model": {"hidden_size": 128, "num_heads": 2, "puzzle_emb_ndim": 128, "H_layers": 2},
        }
        config["model"] |= {"L_layers": 2, "halt_max_steps": 4, "attention": attention}
        task = tasks.build(tasks.parse(config))
        state, batches, losses = task.init(jax.random.key(0)), task.batches(), []
        step = jit(task.step)
        for _ in range(5):
            state, metrics = step(state, next(batches))
            total, count = jax.device_get(metrics["loss"])
            losses.append(float(total) / float(count))
        return losses

    losses = steps(engine)
    assert np.isfinite(losses).all()
    np.testing.assert_allclose(losses, steps("xla"), rtol=2e-2)

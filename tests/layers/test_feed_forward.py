"""The gated layer's own gradient beside autodiff's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.layers import feed_forward
from hrm_jax.layers.feed_forward import gated_silu


def autodiff(gate_up):
    gate, up = jnp.split(gate_up, 2, axis=-1)
    return jax.nn.silu(gate) * up


@pytest.mark.parametrize("shape", [(10,), (3, 4, 14)])
def test_gradient(shape):
    keys = jax.random.split(jax.random.key(0), 2)
    gate_up = 4 * jax.random.normal(keys[0], shape)
    out, expected = jax.vjp(autodiff, gate_up)
    outer = jax.random.normal(keys[1], out.shape)
    found, back = jax.vjp(gated_silu, gate_up)
    np.testing.assert_array_equal(found, out)
    np.testing.assert_allclose(back(outer)[0], expected(outer)[0], atol=1e-6)
    in_one_pass = feed_forward._gradient_in_one_pass(gate_up, outer)  # what a GPU is given
    np.testing.assert_allclose(in_one_pass, expected(outer)[0], atol=1e-6)


def test_gradient_in_bfloat16_is_rounded_once():
    gate_up = jax.random.normal(jax.random.key(0), (64, 32)).astype(jnp.bfloat16)
    outer = jax.random.normal(jax.random.key(1), (64, 16)).astype(jnp.bfloat16)
    exact = jax.vjp(autodiff, gate_up.astype(jnp.float32))[1](outer.astype(jnp.float32))[0]
    found = jax.vjp(gated_silu, gate_up)[1](outer)[0]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(found, np.float32), exact, rtol=2**-8, atol=1e-6
    )  # half a unit in the last place, and what float32 rounds

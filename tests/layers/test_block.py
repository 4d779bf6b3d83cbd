"""The post-norm block."""

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.layers.block import PostNormBlock
from hrm_jax.layers.feed_forward import FeedForward


def test_the_layer_over_positions_mixes_positions_of_one_channel_only():
    block = PostNormBlock(
        lambda x: FeedForward("fused_swiglu", 8, name="mlp_t")(x), width=8, axis=-2
    )
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 6)), jnp.float32)
    variables = block.init(jax.random.key(0), x)
    kernels = variables["params"]
    assert kernels["mlp_t"]["gate_up_proj"]["kernel"].shape == (5, 16)
    assert kernels["mlp_t"]["down_proj"]["kernel"].shape == (8, 5)
    assert "self_attn" not in kernels
    kernels["mlp"]["down_proj"]["kernel"] *= 0  # leaves the norm over channels
    apply = jax.jit(block.apply)
    out = apply(variables, x)
    scale = jnp.sqrt(jnp.mean(out**2, axis=-1))
    np.testing.assert_allclose(scale, 1, rtol=1e-4)
    moved = apply(variables, x.at[0, 2, 3].add(1.0))
    # But for that norm, one number for each position, only channel 3 has changed: everywhere.
    ratio = np.asarray(moved / out)[0]
    others = np.delete(ratio, 3, axis=1)
    np.testing.assert_allclose(others, others[:, :1].repeat(5, axis=1), rtol=1e-3)
    assert (np.abs(ratio[:, 3] - others[:, 0]) > 1e-3).all()

"""What networks are shown of observations: real numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hrm_jax.fields import ConfigError
from hrm_jax.rl.spaces import Box, Discrete, MultiDiscrete, Space


def shown_shape(space: Space) -> tuple[int, ...]:
    """The shape of what `show` gives for one observation."""
    match space:
        case Discrete():
            return (space.n,)
        case MultiDiscrete():
            return (sum(space.nvec),)
        case Box():
            return space.shape or (1,)
    raise ConfigError(f"config.environment: cannot observe {space}")


def show(space: Space, observations: Array) -> Float[Array, ...]:
    """Observations [..., *shape] as float32: bytes divided by 255, choices as one-hot vectors."""
    match space:
        case Discrete():
            return jax.nn.one_hot(observations, space.n)
        case MultiDiscrete():
            each = [jax.nn.one_hot(observations[..., i], n) for i, n in enumerate(space.nvec)]
            return jnp.concatenate(each, -1)
    if observations.dtype == jnp.uint8:
        return observations.astype(jnp.float32) / 255
    return observations.reshape(*observations.shape, *(() if space.shape else (1,))).astype(
        jnp.float32
    )

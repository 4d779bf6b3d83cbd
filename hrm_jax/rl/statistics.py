"""Running means and variances, for observations and returns."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float


class Statistics(struct.PyTreeNode):
    """Of all arrays [*shape] so far: how many, their mean, and their summed squared deviations."""

    count: Float[Array, ""]
    mean: Float[Array, ...]
    squares: Float[Array, ...]

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Statistics:
        return cls(jnp.float32(0), jnp.zeros(shape), jnp.zeros(shape))

    @property
    def variance(self) -> Float[Array, ...]:
        """1 where nothing was seen."""
        return jnp.where(self.count > 0, self.squares / jnp.maximum(self.count, 1), 1.0)

    def update(self, seen: Float[Array, ...]) -> Statistics:
        """With arrays [N, …, *shape] added (Chan, Golub & LeVeque 1979)."""
        axes = tuple(range(seen.ndim - self.mean.ndim))
        number = jnp.float32(seen.size // self.mean.size)
        mean = seen.mean(axes)
        squares = jnp.square(seen - mean).sum(axes)
        count, shift = self.count + number, mean - self.mean
        return Statistics(
            count,
            self.mean + shift * number / count,
            self.squares + squares + jnp.square(shift) * self.count * number / count,
        )

    def normalize(self, x: Float[Array, ...], limit: float = 10.0) -> Float[Array, ...]:
        """To mean 0 and variance 1, clipped at ±`limit`."""
        return jnp.clip((x - self.mean) / jnp.sqrt(self.variance + 1e-8), -limit, limit)

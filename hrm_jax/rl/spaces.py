"""What an environment shows, and what may be done in it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from hrm_jax.fields import require


@dataclasses.dataclass(frozen=True)
class Discrete:
    """One of the numbers 0 … n - 1, int32 []."""

    n: int

    def __post_init__(self) -> None:
        require(self.n >= 1, f"Discrete: expected n of at least 1, got {self.n}")

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def sample(self, key: PRNGKeyArray) -> Int[Array, ""]:
        """Each with equal probability."""
        return jax.random.randint(key, (), 0, self.n)

    def contains(self, x: Any) -> Bool[Array, ""]:
        """Whether x is of this space: an integer in range."""
        return _contains(x, self.shape, np.integer, 0, self.n - 1)


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
    """Several choices at once: of each i one of the numbers 0 … nvec[i] - 1, int32 [len(nvec)]."""

    nvec: tuple[int, ...]

    def __post_init__(self) -> None:
        valid = len(self.nvec) > 0 and min(self.nvec) >= 1
        require(valid, f"MultiDiscrete: expected numbers of at least 1, got {self.nvec}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def sample(self, key: PRNGKeyArray) -> Int[Array, " N"]:
        """Each with equal probability."""
        return jax.random.randint(key, self.shape, 0, np.array(self.nvec))

    def contains(self, x: Any) -> Bool[Array, ""]:
        """Whether x is of this space: integers of its shape, each in range."""
        return _contains(x, self.shape, np.integer, 0, np.array(self.nvec) - 1)


class Box:
    """Arrays with bounds, which belong to the space and may be infinite.

    Attributes:
        low, high: Arrays of its shape and dtype.
        shape: By default that of the bounds.
        dtype: float32 unless told; any real dtype, integers and bool too.
    """

    def __init__(
        self,
        low: Any,
        high: Any,
        shape: tuple[int, ...] | None = None,
        dtype: Any = np.float32,
    ) -> None:
        self.dtype = np.dtype(dtype)
        bounds = np.broadcast_arrays(low, high)
        self.shape = bounds[0].shape if shape is None else tuple(shape)
        self.low, self.high = (
            np.broadcast_to(np.asarray(bound, self.dtype), self.shape) for bound in bounds
        )
        require(
            bool(np.all(self.low <= self.high)),
            f"Box: expected low of at most high, got {self.low} and {self.high}",
        )

    def __repr__(self) -> str:
        return f"Box({self.low.min()}, {self.high.max()}, {self.shape}, {self.dtype})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _content(self) -> tuple[Any, ...]:
        return self.shape, self.dtype, self.low.tobytes(), self.high.tobytes()

    @property
    def bounded(self) -> bool:
        """Whether all bounds are finite."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def sample(self, key: PRNGKeyArray) -> Array:
        """Uniform where both bounds are finite, exponential from the one that is, normal where none
        is, as in gymnasium."""
        if not np.issubdtype(self.dtype, np.floating):
            return self._sample_integers(key)
        low, high = jnp.asarray(self.low), jnp.asarray(self.high)
        below, above = jnp.isfinite(low), jnp.isfinite(high)
        low, high = jnp.where(below, low, 0), jnp.where(above, high, 0)
        uniform, exponential, normal = (
            draw(part, self.shape, self.dtype)
            for draw, part in zip(
                (jax.random.uniform, jax.random.exponential, jax.random.normal),
                jax.random.split(key, 3),
                strict=True,
            )
        )
        between = (1 - uniform) * low + uniform * high  # their difference may be no number
        one_sided = jnp.where(below, low + exponential, high - exponential)
        return jnp.where(below & above, between, jnp.where(below | above, one_sided, normal))

    def _sample_integers(self, key: PRNGKeyArray) -> Array:
        if self.dtype == np.bool_:
            return jax.random.bernoulli(key, shape=self.shape) & self.high | self.low
        limits = np.iinfo(jax.dtypes.canonicalize_dtype(self.dtype))
        low, high = (np.clip(bound, limits.min, limits.max) for bound in (self.low, self.high))
        # randint leaves its upper bound out, and takes one beyond the dtype as the dtype's last.
        above = np.minimum(high.astype(np.int64) + 1, np.iinfo(np.int32).max)
        return jax.random.randint(key, self.shape, low, above, limits.dtype)

    def contains(self, x: Any) -> Bool[Array, ""]:
        """Whether x is of this space: its shape, a dtype of the same kind, and within bounds."""
        kinds = (np.floating, np.integer, np.bool_)
        kind = next(kind for kind in kinds if np.issubdtype(self.dtype, kind))
        return _contains(x, self.shape, kind, self.low, self.high)


Space = Discrete | MultiDiscrete | Box


def _contains(x: Any, shape: tuple[int, ...], kind: type, low: Any, high: Any) -> Array:
    x = jnp.asarray(x)
    if x.shape != shape or not jnp.issubdtype(x.dtype, kind):
        return jnp.bool_(False)
    return jnp.all((x >= low) & (x <= high))

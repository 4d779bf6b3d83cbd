"""Policies as distributions over raw actions, given by the outputs of a network.

Raw actions are what is stored and learnt from; `Distribution.act` turns them into what the
environment takes. So the ratio of a policy to itself is 1 whatever the environment's bounds.
"""

from __future__ import annotations

import abc
import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from hrm_jax.fields import ConfigError
from hrm_jax.rl.spaces import Box, Discrete, MultiDiscrete, Space


class Distribution(abc.ABC):
    """A family of distributions; `outputs` [..., `size`] are the network's for a batch."""

    size: int
    gaussian = False

    @abc.abstractmethod
    def sample(self, outputs: Array, key: PRNGKeyArray) -> Array:
        """Raw actions."""

    @abc.abstractmethod
    def mode(self, outputs: Array) -> Array:
        """The likeliest raw actions."""

    @abc.abstractmethod
    def log_prob(self, outputs: Array, actions: Array) -> Array:
        """Of raw actions, [...], in nats."""

    @abc.abstractmethod
    def entropy(self, outputs: Array) -> Array:
        """[...], in nats."""

    def act(self, actions: Array) -> Array:
        """What the environment is given."""
        return actions


@dataclasses.dataclass(frozen=True)
class Categorical(Distribution):
    """One of `size` actions; the outputs are logits."""

    size: int

    def sample(self, outputs: Array, key: PRNGKeyArray) -> Array:
        return jax.random.categorical(key, outputs)

    def mode(self, outputs: Array) -> Array:
        return jnp.argmax(outputs, -1)

    def log_prob(self, outputs: Array, actions: Array) -> Array:
        return jnp.take_along_axis(jax.nn.log_softmax(outputs), actions[..., None], -1)[..., 0]

    def entropy(self, outputs: Array) -> Array:
        logs = jax.nn.log_softmax(outputs)
        return -jnp.sum(jnp.exp(logs) * logs, -1)


@dataclasses.dataclass(frozen=True)
class MultiCategorical(Distribution):
    """Several independent choices [..., N] among so many actions each; logits side by side."""

    choices: tuple[int, ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return sum(self.choices)

    def _each(self, outputs: Array) -> list[tuple[Categorical, Array]]:
        ends = [sum(self.choices[:n]) for n in range(1, len(self.choices))]
        parts = jnp.split(outputs, ends, -1)
        return [(Categorical(n), part) for n, part in zip(self.choices, parts, strict=True)]

    def sample(self, outputs: Array, key: PRNGKeyArray) -> Array:
        keys = jax.random.split(key, len(self.choices))
        each = zip(self._each(outputs), keys, strict=True)
        return jnp.stack([one.sample(part, key) for (one, part), key in each], -1)

    def mode(self, outputs: Array) -> Array:
        return jnp.stack([one.mode(part) for one, part in self._each(outputs)], -1)

    def log_prob(self, outputs: Array, actions: Array) -> Array:
        each = enumerate(self._each(outputs))
        return sum(one.log_prob(part, actions[..., n]) for n, (one, part) in each)  # type: ignore[return-value]

    def entropy(self, outputs: Array) -> Array:
        return sum(one.entropy(part) for one, part in self._each(outputs))  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class DiagonalGaussian(Distribution):
    """Real actions of a box; the outputs are means and log standard deviations [..., 2 A].

    The environment is given the action clipped to the box, or where `squash` says so its tanh
    scaled to the box; probabilities and entropies are those of the raw action. (The Jacobian of
    tanh cancels in ratios of probabilities.)
    """

    box: Box
    squash: bool = False
    gaussian = True

    @property
    def size(self) -> int:  # type: ignore[override]
        return math.prod(self.box.shape)

    def _parts(self, outputs: Array) -> tuple[Array, Array]:
        mean, log_std = jnp.split(outputs, 2, -1)
        return mean, log_std

    def sample(self, outputs: Array, key: PRNGKeyArray) -> Array:
        mean, log_std = self._parts(outputs)
        return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)

    def mode(self, outputs: Array) -> Array:
        return self._parts(outputs)[0]

    def log_prob(self, outputs: Array, actions: Array) -> Array:
        mean, log_std = self._parts(outputs)
        z = (actions - mean) * jnp.exp(-log_std)
        return jnp.sum(-0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi), -1)

    def entropy(self, outputs: Array) -> Array:
        _, log_std = self._parts(outputs)
        return jnp.sum(log_std + 0.5 * math.log(2 * math.pi * math.e), -1)

    def act(self, actions: Array) -> Float[Array, ...]:
        shape = (*actions.shape[:-1], *self.box.shape)
        actions = actions.reshape(shape)
        low, high = jnp.asarray(self.box.low), jnp.asarray(self.box.high)
        if self.squash:
            return low + (jnp.tanh(actions) + 1) / 2 * (high - low)
        return jnp.clip(actions, low, high)


def distribution(space: Space, squash: bool = False) -> Distribution:
    """The distribution of policies for a space of actions."""
    match space:
        case Discrete():
            return Categorical(space.n)
        case MultiDiscrete():
            return MultiCategorical(space.nvec)
        case Box() if jnp.issubdtype(space.dtype, jnp.floating):
            if squash and not jnp.all(jnp.isfinite(jnp.asarray([space.low, space.high]))):
                raise ConfigError("config.squash: the actions have no bounds to be scaled to")
            return DiagonalGaussian(space, squash)
    raise ConfigError(f"config.environment: cannot act in {space}")

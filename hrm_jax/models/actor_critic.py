"""Networks of policies and values: a body of dense or convolutional layers, and linear heads."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hrm_jax.fields import require, require_fields


@dataclasses.dataclass(frozen=True)
class BodyConfig:
    """What lies between an observation and the heads.

    Attributes:
        hidden: Sizes of the dense layers.
        filters: Filters of 3×3 convolutions in front of them, without padding, for observations
            [H, W, C]; none flattens such observations.
        activation: What follows each layer.
    """

    hidden: tuple[int, ...] = (64, 64)
    filters: tuple[int, ...] = ()
    activation: Literal["tanh", "relu"] = "tanh"

    def __post_init__(self) -> None:
        check = functools.partial(require_fields, self, "config.model")
        check("sizes of at least 1", lambda x: all(n >= 1 for n in x), "hidden", "filters")


@dataclasses.dataclass(frozen=True)
class ActorCriticConfig(BodyConfig):
    """A policy and its value.

    Attributes:
        shared: Whether both read one body; else each has its own.
        log_std: Of a continuous action at the start.
    """

    shared: bool = False
    log_std: float = 0.0


@dataclasses.dataclass(frozen=True)
class QNetworkConfig(BodyConfig):
    """Values of actions.

    Attributes:
        dueling: Whether a value and advantages with mean 0 are added (Wang et al. 2016,
            https://arxiv.org/abs/1511.06581, equation 9).
    """

    activation: Literal["tanh", "relu"] = "relu"
    dueling: bool = False


class Body(nn.Module):
    """From observations [..., *shape] to features [..., D]; orthogonal weights, gain √2."""

    config: BodyConfig

    @nn.compact
    def __call__(self, x: Float[Array, ...], rank: int) -> Float[Array, ...]:
        c = self.config
        activate = {"tanh": jnp.tanh, "relu": jax.nn.relu}[c.activation]
        init = nn.initializers.orthogonal(math.sqrt(2))
        if c.filters:
            require(rank == 3, f"config.model.filters: observations have {rank} axes, expected 3")
            for number, filters in enumerate(c.filters):
                layer = nn.Conv(filters, (3, 3), padding="VALID", kernel_init=init)
                x = activate(layer.copy(name=f"conv_{number}")(x))
        x = x.reshape(*x.shape[: x.ndim - rank], -1)
        for number, size in enumerate(c.hidden):
            x = activate(nn.Dense(size, kernel_init=init, name=f"dense_{number}")(x))
        return x


def _head(size: int, gain: float, name: str) -> Any:
    return nn.Dense(size, kernel_init=nn.initializers.orthogonal(gain), name=name)


class ActorCritic(nn.Module):
    """Outputs of a policy [..., A] and its value [...] for float observations of so many axes.

    A `gaussian` policy's outputs are a mean, and a log standard deviation that does not depend on
    the observation, one behind the other [..., 2 A].
    """

    config: ActorCriticConfig
    outputs: int
    gaussian: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, ...], rank: int) -> tuple[Array, Array]:
        c = self.config
        policy = Body(c, name="body" if c.shared else "policy_body")(x, rank)
        value = policy if c.shared else Body(c, name="value_body")(x, rank)
        outputs = _head(self.outputs, 0.01, "policy_head")(policy)
        if self.gaussian:
            start = nn.initializers.constant(c.log_std)
            log_std = self.param("log_std", start, (self.outputs,))
            outputs = jnp.concatenate([outputs, jnp.broadcast_to(log_std, outputs.shape)], -1)
        return outputs, _head(1, 1.0, "value_head")(value)[..., 0]


class QNetwork(nn.Module):
    """Values of each of so many actions [..., A] for float observations of so many axes."""

    config: QNetworkConfig
    actions: int

    @nn.compact
    def __call__(self, x: Float[Array, ...], rank: int) -> Float[Array, ...]:
        x = Body(self.config, name="body")(x, rank)
        values = _head(self.actions, 1.0, "value_head")(x)
        if self.config.dueling:
            state = _head(1, 1.0, "state_head")(x)
            values = state + values - values.mean(-1, keepdims=True)
        return values

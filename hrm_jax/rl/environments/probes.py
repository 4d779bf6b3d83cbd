"""Probes: the smallest environments with known values, each of which tells one fault of an
algorithm from others (after Andy Jones, "Debugging reinforcement learning systems",
https://andyljones.com/posts/rl-debugging.html, and the tests of rejax).

Where a probe fails and those before it do not, look at what it alone needs:

| probe | needs |
|---|---|
| `OneStep` | that values learn anything: the loss, its optimizer |
| `SeenReward` | that the network sees the observation that belongs to the reward |
| `Endless` | that a truncated episode is bootstrapped, with the discount |
| `NoisyReward` | that actions are told apart by their mean rewards, advantages and losses |
| `TwoSteps` | that credit goes back over a step, discounted once |

Each has a twin with continuous actions, `continuous=True`.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import struct
from jaxtyping import Array, Float32, Int, PRNGKeyArray

from hrm_jax.rl.environments.base import Action, Environment, Timestep
from hrm_jax.rl.spaces import Box, Discrete

BEST = 0.5  # continuous action

Numbers = npt.NDArray[np.float32]


class Known(NamedTuple):
    """What is known of some observations, the first of which is that of a first step.

    Attributes:
        observations: [N, D]
        values: Of acting well from there on, [N].
        action_values: [N, 2] of discrete actions; None of continuous ones.
        action: The best one on the first observation; None where all are as good.
    """

    observations: Numbers
    values: Numbers
    action_values: Numbers | None
    action: float | None


class State(struct.PyTreeNode):
    """What is seen, and the steps of the episode that are done."""

    observation: Float32[Array, " D"]
    time: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Probe(Environment):
    """What probes share: observations are float32 [D].

    Of two discrete actions the second is the better one, if it matters; of continuous ones, [1] in
    [-1, 1], the best is 0.5.
    """

    continuous: bool = False

    width = 1

    @property
    def observation_space(self) -> Box:
        return Box(-1, 1, (self.width,))

    @property
    def action_space(self) -> Discrete | Box:
        return Box(-1, 1, (1,)) if self.continuous else Discrete(2)

    def reset(self, key: PRNGKeyArray) -> tuple[State, Array]:
        observation = self.first(key)
        return State(observation, jnp.int32(0)), observation

    def first(self, key: PRNGKeyArray) -> Float32[Array, " D"]:
        """The first observation."""
        return jnp.zeros(self.width)

    @abc.abstractmethod
    def known(self, gamma: float) -> Known:
        """What there is to learn, with that discount."""

    def worth(self, action: Action) -> Float32[Array, ""]:
        """1 of the best action: 0 of the other one, or less by the square of the distance."""
        action = jnp.asarray(action, jnp.float32)
        return 1 - (action[0] - BEST) ** 2 if self.continuous else action

    def _known(self, observations: Any, values: Any, action_values: Any = None) -> Known:
        """As told, where actions matter; else all are worth what their observation is."""
        action = None
        if action_values is None:
            action_values = np.stack([values, values], axis=1)
        else:
            action = BEST if self.continuous else 1
        seen, worth, of_actions = (
            np.asarray(numbers, np.float32) for numbers in (observations, values, action_values)
        )
        return Known(seen, worth, None if self.continuous else of_actions, action)


def _step(observation: Array, reward: Array, terminated: bool | Array) -> Timestep:
    return Timestep(observation, reward, jnp.asarray(terminated), jnp.bool_(False))


@dataclasses.dataclass(frozen=True)
class OneStep(Probe):
    """One step with a reward of 1."""

    name = "OneStep-probe"

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        state = state.replace(time=state.time + 1)
        return state, _step(state.observation, jnp.float32(1), True)

    def known(self, gamma: float) -> Known:
        return self._known([[0]], [1])


@dataclasses.dataclass(frozen=True)
class SeenReward(Probe):
    """One step with a reward that was seen: -1 or 1."""

    name = "SeenReward-probe"

    def first(self, key: PRNGKeyArray) -> Float32[Array, " 1"]:
        return jax.random.rademacher(key, (1,), jnp.float32)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        state = state.replace(time=state.time + 1)
        return state, _step(state.observation, state.observation[0], True)

    def known(self, gamma: float) -> Known:
        return self._known([[-1], [1]], [-1, 1])


@dataclasses.dataclass(frozen=True)
class Endless(Probe):
    """A reward of 1 in each step, without end; a limit of time truncates what is seen of it.

    Worth 1 / (1 - γ) at any time. Who takes the limit for an end learns less than `max_steps`.
    """

    max_steps: int = 4

    name = "Endless-probe"

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        state = state.replace(time=state.time + 1)
        truncated = state.time >= self.max_steps
        return state, Timestep(state.observation, jnp.float32(1), jnp.bool_(False), truncated)

    def known(self, gamma: float) -> Known:
        return self._known([[0]], [1 / (1 - gamma)])


@dataclasses.dataclass(frozen=True)
class NoisyReward(Probe):
    """One step with a random reward, whose mean the action decides: 1 more or less than it."""

    name = "NoisyReward-probe"

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        state = state.replace(time=state.time + 1)
        reward = self.worth(action) + jax.random.rademacher(key, (), jnp.float32)
        return state, _step(state.observation, reward, True)

    def known(self, gamma: float) -> Known:
        return self._known([[0]], [1], [[0, 1]])


@dataclasses.dataclass(frozen=True)
class TwoSteps(Probe):
    """Two steps: the first action decides the reward of the second, whatever is done then.

    Observed are whether this is the second step, and what the reward will be.
    """

    name = "TwoSteps-probe"
    width = 2

    @property
    def observation_space(self) -> Box:
        return Box([0, -1.25], 1)  # a continuous action may be as bad as that

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        second, reward = state.observation
        seen = jnp.stack([jnp.float32(1), jnp.where(second == 1, reward, self.worth(action))])
        return State(seen, state.time + 1), _step(seen, second * reward, second == 1)

    def known(self, gamma: float) -> Known:
        return self._known([[0, 0], [1, 1]], [gamma, 1], [[0, gamma], [1, 1]])


PROBES: tuple[type[Probe], ...] = (OneStep, SeenReward, Endless, NoisyReward, TwoSteps)

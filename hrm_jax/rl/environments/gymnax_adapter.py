"""Environments of gymnax (https://github.com/RobertTLange/gymnax), among them MinAtar."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from hrm_jax.fields import ConfigError
from hrm_jax.rl import spaces
from hrm_jax.rl.environments import drawing
from hrm_jax.rl.environments.base import Action, Environment, Picture, State, Timestep

MINATAR = tuple(
    f"{game}-MinAtar" for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
)
"""Games of MinAtar (Young and Tian 2019, https://arxiv.org/abs/1903.03176): they need no prefix."""


class Gymnax(Environment):
    """`gymnax:NAME`: any environment of gymnax whose observation is an array.

    gymnax's own `step` resets by itself; this does not. What gymnax reports apart from a limit of
    time terminates, and the limit truncates. MinAtar's planes are bool [10, 10, planes], as in
    MinAtar itself; gymnax has float32, four times as large. Other observations are as they are.

    Args:
        name: Name in gymnax.
        max_steps: Limit of an episode; by default what gymnax has.
        **options: Of the environment: fields of its parameters, or arguments it is made with.

    Raises:
        ConfigError: There is no such environment or option, or its spaces do not fit.
        ImportError: gymnax is not installed.
    """

    def __init__(self, name: str, max_steps: int | None = None, **options: Any) -> None:
        try:
            import gymnax
        except ImportError as error:
            raise ImportError(
                f"environment {name} needs gymnax: pip install 'hrm_jax[rl]'"
            ) from error
        if name not in gymnax.registered_envs:
            known = ", ".join(gymnax.registered_envs)
            raise ConfigError(f"unknown environment 'gymnax:{name}'; gymnax has {known}")
        self.name = name if name in MINATAR else f"gymnax:{name}"
        if max_steps is not None:
            options["max_steps_in_episode"] = max_steps
        _, parameters = gymnax.make(name)
        fields = {field.name for field in dataclasses.fields(parameters)}
        ours = {key: value for key, value in options.items() if key in fields}
        try:
            self._environment, parameters = gymnax.make(
                name, **{key: value for key, value in options.items() if key not in fields}
            )
        except TypeError as error:
            known = ", ".join(sorted({"max_steps", *fields}))
            raise ConfigError(f"{self.name}: {error}; its parameters are {known}") from error
        self._parameters = parameters.replace(**ours)
        self._observations = _space(
            self._environment.observation_space(self._parameters), f"observations of {self.name}"
        )
        self._actions = _space(
            self._environment.action_space(self._parameters), f"actions of {self.name}"
        )
        if name in MINATAR:
            self._observations = spaces.Box(0, 1, self._observations.shape, bool)
        elif isinstance(self._observations, spaces.Box):  # its dtype may be another than it says
            seen, _ = jax.eval_shape(self._reset, jax.random.key(0))
            low, high = self._observations.low, self._observations.high
            self._observations = spaces.Box(low, high, seen.shape, seen.dtype)

    @property
    def observation_space(self) -> spaces.Space:
        return self._observations

    @property
    def action_space(self) -> spaces.Space:
        return self._actions

    def _reset(self, key: PRNGKeyArray) -> tuple[Array, State]:
        return self._environment.reset_env(key, self._parameters)

    def reset(self, key: PRNGKeyArray) -> tuple[State, Array]:
        observation, state = self._reset(key)
        return _arrays(state), observation.astype(self._observations.dtype)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        observation, state, reward, terminated, _ = self._environment.step_env(
            key, state, action, self._parameters
        )
        timestep = Timestep(
            observation.astype(self._observations.dtype),
            jnp.asarray(reward, jnp.float32),
            jnp.asarray(terminated, bool),
            jnp.asarray(self._environment.is_truncated(state, self._parameters), bool),
        )
        return _arrays(state), timestep

    def _plane(self, state: State) -> np.ndarray | None:
        """Which plane is seen at each place of MinAtar, int [10, 10]; -1 for none."""
        if self.name not in MINATAR:
            return None
        seen = self._environment.observe(jax.random.key(0), state, None, self._parameters)
        planes = np.asarray(seen, bool)
        return np.where(planes.any(-1), planes.argmax(-1), -1)

    def frame(self, state: State) -> Picture | None:
        plane = self._plane(state)
        if plane is None:
            return None
        return drawing.board(np.array([*drawing.COLOURS, drawing.GROUND])[plane], 16).picture()

    def text(self, state: State) -> str:
        plane = self._plane(state)
        if plane is None:
            return super().text(state)
        return "\n".join(map(" ".join, np.array([*map(str, range(10)), "·"])[plane]))


def _arrays(state: State) -> State:
    """The state with numbers of Python as arrays, so that its types never change."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), state)


def _space(space: Any, what: str) -> spaces.Space:
    kind = type(space).__name__
    if kind == "Discrete":
        return spaces.Discrete(space.n)
    if kind == "Box":
        return spaces.Box(space.low, space.high, space.shape, space.dtype)
    raise ConfigError(f"{what}: expected a space Discrete or Box, got {kind}")

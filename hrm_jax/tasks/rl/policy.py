"""A trained agent, ready to act."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.rl.environments import Environment
from hrm_jax.rl.rollout import Episodes


class Moment(NamedTuple):
    """A step of an episode: the state before the action, which `Environment.frame` draws."""

    state: Any
    action: Any
    reward: float
    ended: bool


class Policy:
    """The agent of a run, or of one of its seeds.

    Attributes:
        run: Configuration of the run.
        config: Of its networks.
        variables: Their weights, as `Task.weights` gives them.
        environment: What it was trained in.
    """

    def __init__(self, task: Any, variables: Mapping[str, Any]) -> None:
        self._task, self._all = task, variables
        self.run, self.config = task.config, task.config.model
        self.environment: Environment = task.environment
        self.variables = self._of_seed(0)
        self._act, self._value = jax.jit(task.act), jax.jit(task.value)

    def _of_seed(self, number: int) -> Any:
        if self._task.config.seeds == 1:
            return self._all
        return jax.tree.map(lambda x: x[number], self._all)

    def seed(self, number: int) -> Policy:
        """The agent of the `number`-th of the seeds that were trained side by side."""
        if not 0 <= number < self._task.config.seeds:
            raise DataError(
                f"seed {number}: the run has the seeds 0 to {self._task.config.seeds - 1}"
            )
        policy = Policy(self._task, self._all)
        policy.variables = self._of_seed(number)
        return policy

    def act(self, observation: npt.ArrayLike, deterministic: bool = True, seed: int = 0) -> Any:
        """Actions for an observation, or for several [N, …], as the environment takes them, of
        NumPy.

        The likeliest ones, or else drawn: with the same `seed` the same. Raises `DataError` where
        the observations have other shapes or are not finite.
        """
        several, one = self._several(observation)
        key = None if deterministic else jax.random.key(seed)
        actions = np.asarray(self._act(self.variables, several, key))
        return actions[0] if one else actions

    def value(self, observation: npt.ArrayLike) -> Any:
        """What is to come after an observation, or several [N, …], discounted: a policy's value, or
        that of each action [N, A]. With `normalize_rewards`, in the units of scaled rewards."""
        several, one = self._several(observation)
        values = np.asarray(self._value(self.variables, several))
        return values[0] if one else values

    def _several(self, observation: npt.ArrayLike) -> tuple[Any, bool]:
        """Observations [N, …], and whether only one was given; `DataError` where they are none."""
        space = self.environment.observation_space
        given, axes = np.asarray(observation), len(space.shape)
        if given.ndim not in (axes, axes + 1) or given.shape[given.ndim - axes :] != space.shape:
            raise DataError(
                f"observation: expected {space.shape}, or several of them, got {given.shape}"
            )
        if not np.isfinite(given).all():
            raise DataError("observation: not all numbers are finite")
        several = given.reshape(-1, *space.shape).astype(space.dtype)
        return jnp.asarray(several), given.ndim == axes

    def episodes(self, number: int = 100, seed: int = 0, max_steps: int = 0) -> Episodes:
        """Plays so many episodes with the likeliest actions, all cut off at `max_steps` (0 for
        100,000) steps."""
        return self._task.play(self.variables, jax.random.key(seed), number, max_steps)

    def watch(self, seed: int = 0, max_steps: int = 1000) -> Iterator[Moment]:
        """Plays one episode, step by step."""
        reset, step = jax.jit(self.environment.reset), jax.jit(self.environment.step)
        key = jax.random.key(seed)
        state, observation = reset(key)
        for number in range(max_steps):
            action = self.act(observation)
            key = jax.random.fold_in(key, number)
            after, timestep = step(state, jnp.asarray(action), key)
            ended = bool(timestep.ended)
            yield Moment(state, action, float(timestep.reward), ended)
            if ended:
                yield Moment(after, action, 0.0, True)
                return
            state, observation = after, timestep.observation

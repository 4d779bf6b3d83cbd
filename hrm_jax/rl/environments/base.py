"""What an environment is: pure functions of its state, and the spaces they speak of."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import struct
from jaxtyping import Array, Bool, Float32, PRNGKeyArray

from hrm_jax.rl.spaces import Space

State = Any
"""A PyTree of arrays, whose shapes and dtypes never change."""

Action = Any
"""An array of the action space, or a number of it."""

Picture = npt.NDArray[np.uint8]
"""RGB [H, W, 3]."""


class Timestep(struct.PyTreeNode):
    """What follows an action.

    Attributes:
        observation: Of the state that the action led to, also where the episode ends there.
        reward: For that action.
        terminated: Whether the episode ended there by itself: what would follow is worth nothing.
        truncated: Whether a limit of time cut it off: what would follow has a value. Where both are
            true, as in gymnasium, the episode has terminated.
    """

    observation: Array
    reward: Float32[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]

    @property
    def ended(self) -> Bool[Array, ...]:
        return self.terminated | self.truncated


class Environment(abc.ABC):
    """One environment; many are `jax.vmap` of its functions, which are pure and can be jitted.

    What a limit of time needs lies in the state. The functions do not reset by themselves: stepping
    on after the end of an episode means nothing, see `step_autoreset`. Actions belong to
    `action_space`: who draws from an unbounded distribution clips them.

    Attributes:
        name: What `make` knows it by.
        on_host: Whether its steps are made by this process, one after the other, whatever the
            devices do.
    """

    name: str
    on_host: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def observation_space(self) -> Space: ...

    @property
    @abc.abstractmethod
    def action_space(self) -> Space: ...

    @abc.abstractmethod
    def reset(self, key: PRNGKeyArray) -> tuple[State, Array]:
        """Returns the state that an episode begins with, and its observation."""

    @abc.abstractmethod
    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        """Returns the state that the action leads to, and what is seen and got there."""

    def restart(
        self, state: State, ended: Bool[Array, ""], key: PRNGKeyArray
    ) -> tuple[State, Array]:
        """`reset` for `step_autoreset`, which uses it only where `ended` is true.

        Under `vmap` all environments are reset, though few have ended. One whose resets are dear
        overrides this and may return anything, of the right shapes, for those that have not.
        """
        return self.reset(key)

    def frame(self, state: State) -> Picture | None:
        """A picture of the state; None if there is none of this environment."""
        return None

    def text(self, state: State) -> str:
        """The state for a terminal, in a few lines of the same number and width."""
        leaves = jax.tree_util.tree_leaves_with_path(state)
        return "\n".join(f"{jax.tree_util.keystr(path)} {np.asarray(x)}" for path, x in leaves)


def step_autoreset(
    environment: Environment, state: State, action: Action, key: PRNGKeyArray
) -> tuple[State, Timestep, Array]:
    """Steps; and where the episode has ended, begins the next one.

    Returns:
        The state to go on with.
        What followed the action. Its observation is the last one of the episode, which the value of
        a truncated episode is to be computed from; it is never one of the next episode.
        The observation to act on next: the first one of the next episode where one has ended, and
        else that of the timestep.
    """
    step_key, reset_key = jax.random.split(key)
    state, timestep = environment.step(state, action, step_key)
    fresh = environment.restart(state, timestep.ended, reset_key)
    state, observation = jax.tree.map(
        lambda new, old: jnp.where(timestep.ended, new, old), fresh, (state, timestep.observation)
    )
    return state, timestep, observation

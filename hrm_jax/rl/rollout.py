"""Environments side by side: steps of training, and whole episodes of evaluation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from hrm_jax.rl.environments.base import Environment, Timestep, step_autoreset


class Running(struct.PyTreeNode):
    """B environments in the middle of their episodes.

    Attributes:
        state: Of each environment.
        observation: What each shows now.
        total: Rewards of the episode so far.
        length: Its steps so far.
    """

    state: Any
    observation: Array
    total: Float[Array, " B"]
    length: Int[Array, " B"]


class Finished(struct.PyTreeNode):
    """Sums over the episodes that ended."""

    episodes: Float[Array, ""]
    total: Float[Array, ""]
    length: Float[Array, ""]


def environment_keys(key: PRNGKeyArray, number: int) -> Key[Array, " B"]:
    """A key for each of so many environments, that depends on no other."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(number))


def start(environment: Environment, keys: Key[Array, " B"]) -> Running:
    """Environments at the start of their first episodes."""
    state, observation = jax.vmap(environment.reset)(jax.vmap(_first)(keys))
    zeros = jnp.zeros(keys.shape)
    return Running(state, observation, zeros, zeros.astype(jnp.int32))


def advance(
    environment: Environment, running: Running, actions: Array, keys: Key[Array, " B"]
) -> tuple[Running, Timestep, Finished]:
    """One step of each; one whose episode ends starts the next, and `Timestep.observation` is the
    last of the one that ended."""
    step = functools.partial(step_autoreset, environment)
    state, timestep, observation = jax.vmap(step)(running.state, actions, keys)
    total, length = running.total + timestep.reward, running.length + 1
    done = timestep.ended
    ended = done.astype(jnp.float32)
    finished = Finished(ended.sum(), (ended * total).sum(), (ended * length).sum())
    running = Running(state, observation, jnp.where(done, 0.0, total), jnp.where(done, 0, length))
    return running, timestep, finished


def _first(key: PRNGKeyArray) -> PRNGKeyArray:
    return jax.random.fold_in(key, 2**32 - 1)  # steps fold their numbers in


class Episodes(struct.PyTreeNode):
    """Whole episodes, [E] each; `ended` is False of those that were cut off."""

    total: Float[Array, " E"]
    length: Int[Array, " E"]
    ended: Bool[Array, " E"]


def episodes(
    environment: Environment,
    act: Callable[[Array], Array],
    key: PRNGKeyArray,
    number: int,
    max_steps: int,
) -> Episodes:
    """So many episodes side by side, until all have ended or `max_steps` are done; `act` turns
    observations [E, …] into actions."""
    keys = environment_keys(key, number)
    running = start(environment, keys)

    def going(carry: Any) -> Array:
        tick, _, done = carry
        return (tick < max_steps) & ~done.all()

    def step(carry: Any) -> Any:
        tick, running, done = carry
        actions = act(running.observation)
        step_keys = jax.vmap(lambda k: jax.random.fold_in(k, tick))(keys)
        state, timestep = jax.vmap(environment.step)(running.state, actions, step_keys)
        running = Running(
            state,
            timestep.observation,
            running.total + jnp.where(done, 0.0, timestep.reward),
            running.length + ~done,
        )
        return tick + 1, running, done | timestep.ended

    _, running, done = jax.lax.while_loop(
        going, step, (jnp.int32(0), running, jnp.zeros(number, bool))
    )
    return Episodes(running.total, running.length, done)

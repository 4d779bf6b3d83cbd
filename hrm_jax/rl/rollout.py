"""Environments side by side: steps of training, and whole episodes of evaluation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import PartitionSpec
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
    """Of each environment, sums over the episodes that ended."""

    episodes: Float[Array, " B"]
    total: Float[Array, " B"]
    length: Float[Array, " B"]


def divided(
    function: Callable[..., Any], whole: Any, *rows: Any, axes: Sequence[int] | int = 0
) -> Any:
    """`function(whole, *rows)`, of which each device of the mesh in use (`jax.set_mesh`) computes
    its share of the rows, none of which may depend on another. Rows that do not go round are filled
    up with the last one.

    `whole` is a tree of arrays that every device needs, `rows` are trees of arrays with a row for
    each environment along their first axis; in what the function returns, rows lie along `axes` (of
    each part of the tuple, where there are several).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return function(whole, *rows)
    count = len(jax.tree.leaves(rows)[0])
    total = -(-count // mesh.size) * mesh.size
    if total > count:
        filled = jnp.minimum(jnp.arange(total), count - 1)
        rows = jax.tree.map(lambda x: x[filled], rows)

    def spec(axis: int) -> PartitionSpec:
        return PartitionSpec(*(None,) * axis, mesh.axis_names)

    found = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(PartitionSpec(), *[spec(0) for _ in rows]),
        out_specs=spec(axes) if isinstance(axes, int) else tuple(spec(x) for x in axes),
        check_vma=False,
    )(whole, *rows)
    if total == count:
        return found

    def cut(tree: Any, axis: int) -> Any:
        return jax.tree.map(lambda x: jax.lax.slice_in_dim(x, 0, count, axis=axis), tree)

    return cut(found, axes) if isinstance(axes, int) else tuple(map(cut, found, axes))


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
    finished = Finished(ended, ended * total, ended * length)
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
    keys: Key[Array, " E"],
    max_steps: int,
) -> Episodes:
    """An episode of each key, side by side, until all have ended or `max_steps` are done; `act`
    turns observations [E, …] into actions."""
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
        going, step, (jnp.int32(0), running, jnp.zeros(len(keys), bool))
    )
    return Episodes(running.total, running.length, done)

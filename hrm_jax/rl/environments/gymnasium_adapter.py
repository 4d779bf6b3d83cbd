"""Environments of gymnasium (https://gymnasium.farama.org), which run on the host."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import struct
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt32

from hrm_jax.fields import ConfigError, require
from hrm_jax.rl import spaces
from hrm_jax.rl.environments.base import Action, Environment, Picture, Timestep

Numbers = npt.NDArray[Any]


class State(struct.PyTreeNode):
    """All that an episode follows from: its seed, and what was done in it.

    Attributes:
        seed: What gymnasium's `reset` was given, below 2³¹.
        time: Steps of the episode that are done.
        actions: Its actions, so many of them, [max_steps, …].
    """

    seed: UInt32[Array, ""]
    time: Int[Array, ""]
    actions: Array


class Gymnasium(Environment):
    """`gymnasium:ENV_ID`: any environment of gymnasium whose observation is an array.

    A state is the seed of an episode and its actions so far, and the functions are pure; that is
    why a host's environment can be vmapped, resumed and evaluated amid training. The environments
    on the host are no more than a cache: each waits for the next action of one such state. Where
    none does, as after a resume, one is made that is reset with that seed and given those actions.
    So a run that goes on from a checkpoint equals one that was never stopped, bit for bit, if the
    environment repeats itself when it is given the same seed and actions, as gymnasium asks of it.

    Every episode has a seed of its own, drawn from the key of its reset. gymnasium's autoreset
    modes have no part in this, for each environment is stepped alone. A vector of them is stepped
    one by one, in one process; nothing else runs meanwhile.

    Args:
        env_id: Its name in gymnasium, "module:name" where a module registers it.
        max_steps: Limit of an episode; by default what it is registered with, and needed where it
            is registered with none.
        **options: Further arguments of `gymnasium.make`.

    Raises:
        ConfigError: There is no such environment, it has no limit of time, or its spaces do not
            fit.
        ImportError: gymnasium, or what the environment needs, is not installed.
        jax.errors.JaxRuntimeError: While running, with a text that ends by naming the environment:
            a reward is not finite, an observation has a wrong shape, an episode does not repeat
            itself; or whatever the environment raises.
    """

    on_host = True

    def __init__(self, env_id: str, max_steps: int | None = None, **options: Any) -> None:
        self.name = f"gymnasium:{env_id}"
        require(jax.process_count() == 1, f"{self.name}: runs in one process only")
        arguments = {"max_episode_steps": max_steps, "disable_env_checker": True, **options}
        self._make = functools.partial(_make, self.name, env_id, **arguments)
        example = self._make()
        limit = max_steps or example.spec.max_episode_steps
        if limit is None:
            raise ConfigError(f"{self.name}: has no limit of time; give it max_steps")
        self.max_steps = limit
        self._observations = _space(example.observation_space, f"observations of {self.name}")
        self._actions = _space(example.action_space, f"actions of {self.name}")
        self._modes = example.metadata.get("render_modes", [])
        self._pools = {"": _Pool(self.name, self._observations, self._make, [example])}

    @property
    def observation_space(self) -> spaces.Space:
        return self._observations

    @property
    def action_space(self) -> spaces.Space:
        return self._actions

    def reset(self, key: PRNGKeyArray) -> tuple[State, Array]:
        return self._begin(key, jnp.bool_(True))

    def restart(
        self, state: State, ended: Bool[Array, ""], key: PRNGKeyArray
    ) -> tuple[State, Array]:
        return self._begin(key, ended)

    def _begin(self, key: PRNGKeyArray, wanted: Bool[Array, ""]) -> tuple[State, Array]:
        seed = jax.random.bits(key, (), jnp.uint32) >> 1
        (observation,) = self._call("begin", [self._observations], seed, wanted)
        actions = jnp.zeros((self.max_steps, *self._actions.shape), self._actions.dtype)
        return State(seed, jnp.int32(0), actions), observation

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        action = jnp.asarray(action, self._actions.dtype)
        flag = spaces.Box(0, 1, (), bool)
        kinds = [self._observations, spaces.Box(-np.inf, np.inf, ()), flag, flag]
        given = (state.seed, state.time, state.actions, action)
        timestep = Timestep(*self._call("step", kinds, *given))
        actions = state.actions.at[state.time].set(action)
        return State(state.seed, state.time + 1, actions), timestep

    def _call(self, method: str, kinds: list[spaces.Space], *given: Array) -> list[Array]:
        """Calls a method of the pool for each row of what is vmapped; returns arrays as `kinds`."""
        own = given[0].ndim

        def call(*arrays: Array) -> list[Numbers]:
            leading = arrays[0].shape[: arrays[0].ndim - own]
            rows = [np.asarray(x).reshape((-1, *x.shape[len(leading) :])) for x in arrays]
            results = self._pools[""].each(method, *rows)
            return [
                np.asarray(column, kind.dtype).reshape(leading + kind.shape)
                for column, kind in zip(zip(*results, strict=True), kinds, strict=True)
            ]

        shapes = [jax.ShapeDtypeStruct(kind.shape, kind.dtype) for kind in kinds]
        return jax.pure_callback(call, shapes, *given, vmap_method="broadcast_all")

    def frame(self, state: State) -> Picture | None:
        return self._render(state, "rgb_array")

    def text(self, state: State) -> str:
        drawn = self._render(state, "ansi")
        return drawn or f"{self.name}  seed {int(state.seed)}  step {int(state.time)}"

    def _render(self, state: State, mode: str) -> Any:
        """What gymnasium draws of the state, by environments for this mode; None if it does not."""
        import gymnasium

        if mode not in self._modes:
            return None
        if mode not in self._pools:
            make = functools.partial(self._make, render_mode=mode)
            self._pools[mode] = _Pool(self.name, self._observations, make, [])
        try:
            return self._pools[mode].render(
                int(state.seed), int(state.time), np.asarray(state.actions)
            )
        except gymnasium.error.DependencyNotInstalled as error:
            warnings.warn(f"{self.name}: no pictures: {error}", stacklevel=3)
            return None


class _Pool:
    """Environments of the host: each waits for the next action in one state, or is free."""

    def __init__(
        self, name: str, space: spaces.Space, make: Callable[[], Any], free: list[Any]
    ) -> None:
        self._name, self._space, self._make, self._free = name, space, make, free
        self._made = len(free)
        self._limit = 1
        self._waiting: dict[tuple[int, bytes], list[Any]] = {}  # who waits longest comes first
        self._lock = threading.Lock()

    def each(self, method: str, *rows: Numbers) -> list[Any]:
        """Calls a method for each row: of a seed, and more. Of environments there are up to
        twice as many as rows."""
        with self._lock:
            self._limit = max(self._limit, 2 * len(rows[0]))
            call = getattr(self, method)
            return [call(int(seed), *row) for seed, *row in zip(*rows, strict=True)]

    def begin(self, seed: int, wanted: np.bool_) -> tuple[Any]:
        """Returns the first observation of an episode; zeros if it is not wanted."""
        if not wanted:
            return (np.zeros(self._space.shape, self._space.dtype),)
        host = self._spare()
        observation, _ = host.reset(seed=seed)
        self._wait(host, seed, np.zeros(0))
        return (self._seen(host, observation),)

    def step(
        self, seed: int, time: np.integer, actions: Numbers, action: Action
    ) -> tuple[Any, ...]:
        """Returns the fields of a `Timestep`."""
        host = self._take(seed, actions[:time])
        observation, reward, terminated, truncated, _ = _act(host, action)
        if terminated or truncated:
            self._free.append(host)
        else:
            self._wait(host, seed, np.append(actions[:time], np.asarray(action)[None], axis=0))
        if not np.isfinite(reward):
            raise ValueError(
                f"{self._name}: reward {reward} in step {time + 1} of the episode with seed {seed};"
                " expected a finite number"
            )
        return self._seen(host, observation), reward, terminated, truncated

    def render(self, seed: int, time: int, actions: Numbers) -> Any:
        with self._lock:
            host = self._take(seed, actions[:time])
            self._wait(host, seed, actions[:time])
            return host.render()

    def _take(self, seed: int, history: Numbers) -> Any:
        """The environment that waits in that state; or another one, which is brought there."""
        done = len(history)
        host = self._pop(seed, history)
        if host is None and done:  # pictures of one episode follow one another
            done -= 1
            host = self._pop(seed, history[:done])
        if host is None:
            done = 0
            host = self._spare()
            host.reset(seed=seed)
        ended = False
        for time, action in enumerate(history[done:], start=done):
            if ended:
                raise ValueError(
                    f"{self._name}: the episode with seed {seed} ended in step {time}, which it did"
                    " not before; what does not repeat itself cannot be resumed"
                )
            _, _, *flags, _ = _act(host, action)
            ended = any(flags)
        return host

    def _spare(self) -> Any:
        """One that may be reset; if there are enough, of those that wait who waits longest."""
        if self._free:
            return self._free.pop()
        if self._made >= self._limit and self._waiting:
            return self._pop(*next(iter(self._waiting)))
        self._made += 1
        return self._make()

    def _wait(self, host: Any, seed: int, history: Numbers | bytes) -> None:
        self._waiting.setdefault((seed, bytes(history)), []).append(host)

    def _pop(self, seed: int, history: Numbers | bytes) -> Any:
        place = seed, bytes(history)
        hosts = self._waiting.get(place)
        if hosts is None:
            return None
        host = hosts.pop()
        if not hosts:
            del self._waiting[place]
        return host

    def _seen(self, host: Any, observation: Any) -> Any:
        """An observation as our space has it, a number or an array."""
        given = np.asarray(observation) - getattr(host.observation_space, "start", 0)
        seen = given.astype(self._space.dtype)
        whole = np.issubdtype(seen.dtype, np.integer)
        if given.shape != host.observation_space.shape or (whole and (seen != given).any()):
            raise ValueError(
                f"{self._name}: an observation of shape {given.shape}, from {given.min()} to "
                f"{given.max()}; expected {self._space} of shape {host.observation_space.shape}"
            )
        return seen.reshape(self._space.shape)


def _make(name: str, env_id: str, **arguments: Any) -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError(f"{name} needs gymnasium: pip install 'hrm_jax[rl]'") from error
    try:
        return gymnasium.make(env_id, **arguments)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ImportError(f"{name}: {error}") from error
    except (gymnasium.error.Error, TypeError) as error:
        raise ConfigError(f"{name}: {error}") from error


def _act(host: Any, action: Action) -> tuple[Any, Any, bool, bool, Any]:
    """A step of gymnasium, with the action as its space has it."""
    space = host.action_space
    given = np.asarray(action, space.dtype).reshape(space.shape)
    return host.step(given + space.start if hasattr(space, "start") else given)


def _space(space: Any, what: str) -> spaces.Space:
    from gymnasium import spaces as theirs

    match space:
        case theirs.Discrete():
            return spaces.Discrete(int(space.n))
        case theirs.MultiDiscrete():
            return spaces.MultiDiscrete(tuple(map(int, space.nvec.ravel())))
        case theirs.MultiBinary():
            return spaces.MultiDiscrete((2,) * int(np.prod(space.shape)))
        case theirs.Box():
            dtype = np.dtype(jax.dtypes.canonicalize_dtype(space.dtype))
            bounds = space.low, space.high
            if np.issubdtype(dtype, np.integer):  # of int64 JAX keeps what int32 can hold
                limits = np.iinfo(dtype)
                bounds = tuple(np.clip(bound, limits.min, limits.max) for bound in bounds)
            return spaces.Box(*bounds, space.shape, dtype)
    raise ConfigError(
        f"{what}: expected a space Discrete, MultiDiscrete, MultiBinary or Box, got {space}"
    )

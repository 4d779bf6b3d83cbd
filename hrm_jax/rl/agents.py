"""Agents for anybody's loop over an environment with vectors as states and numbered actions.

They are thin faces over the updates that `configs/ppo.py` and `configs/dqn.py` train with, which
are a hundred times as fast, since there the environment is part of the program.
"""

from __future__ import annotations

import functools
import os
import pathlib
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from hrm_jax.data.errors import DataError, reading
from hrm_jax.files import atomic_path
from hrm_jax.models.actor_critic import (
    ActorCritic,
    ActorCriticConfig,
    QNetwork,
    QNetworkConfig,
)
from hrm_jax.rl import dqn, ppo
from hrm_jax.rl.distributions import Categorical

_MINIBATCH = 64
_STEPS = 5  # whose rewards are added before a value is


class _Agent:
    """Checks what it is given, and keeps its arrays in files."""

    state_dim: int
    action_dim: int
    learned: Any
    """All that learning changes."""

    def _state(self, state: npt.ArrayLike) -> npt.NDArray[np.float32]:
        array = np.asarray(state, np.float32)
        if array.shape != (self.state_dim,):
            raise ValueError(f"state: expected {self.state_dim} numbers, got shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("state: not all numbers are finite")
        return array

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all that was learnt as arrays of NumPy (`.npz`, whatever the name), atomically."""
        leaves = jax.tree_util.tree_leaves_with_path(self.learned)
        arrays = {jax.tree_util.keystr(place): np.asarray(leaf) for place, leaf in leaves}
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Reads what `save` wrote for an agent of the same sizes. Nothing in it is executed.

        Raises:
            DataError: It is no such file (a pickle, for instance), or of an agent of other sizes.
        """
        path = pathlib.Path(path)
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: not a file of `save`; others, pickles above all, are refused")
        with reading(path), np.load(path, allow_pickle=False) as file:
            given = {name: file[name] for name in file.files}
        leaves, treedef = jax.tree_util.tree_flatten_with_path(self.learned)
        expected = {jax.tree_util.keystr(place): leaf for place, leaf in leaves}
        kinds = {k: (v.shape, v.dtype) for k, v in given.items()}
        if kinds != {k: (v.shape, v.dtype) for k, v in expected.items()}:
            raise DataError(
                f"{path}: not of an agent with state_dim={self.state_dim} and "
                f"action_dim={self.action_dim}"
            )
        self.learned = jax.tree.unflatten(treedef, [jnp.asarray(given[name]) for name in expected])


class PPOAgent(_Agent):
    """Learns by PPO, an episode at a time: `select_action`, `store_reward` after each step, and
    `train_step` when the episode is over.

    Policy and value have two layers of 256 tanh each; minibatches have 64 steps.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        epsilon_clip: float = 0.2,
        epochs: int = 10,
        seed: int = 0,
    ) -> None:
        """`epochs` are passes over an episode; `seed` is of weights and actions."""
        self.state_dim, self.action_dim = state_dim, action_dim
        self.gamma, self.epochs = gamma, epochs
        self._random = np.random.default_rng(seed)
        self._policy = Categorical(action_dim)
        network = ActorCritic(ActorCriticConfig(hidden=(256, 256)), action_dim)
        optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(learning_rate))
        params = network.init(jax.random.key(seed), jnp.zeros(state_dim), 1)["params"]
        self.learned = {"params": params, "optimizer": optimizer.init(params)}
        self._episode: list[tuple[Any, ...]] = []
        self._rewards: list[tuple[float, bool, Any]] = []

        def apply(params: Any, states: Any) -> Any:
            return network.apply({"params": params}, states, 1)

        def act(params: Any, state: Any, noise: Any) -> Any:
            logits, value = apply(params, state)
            action = jnp.argmax(logits + noise)  # Gumbel noise draws by the probabilities
            return action, self._policy.log_prob(logits, action), value

        def update(learned: Any, sample: ppo.Sample) -> Any:
            def objective(params: Any) -> Any:
                outputs, values = apply(params, sample.observation)
                rule = ppo.Objective(entropy_weight=0.01)
                return ppo.loss(self._policy, rule, outputs, values, sample, epsilon_clip)[0]

            loss, grads = jax.value_and_grad(objective)(learned["params"])
            updates, state = optimizer.update(grads, learned["optimizer"], learned["params"])
            params = optax.apply_updates(learned["params"], updates)
            return {"params": params, "optimizer": state}, loss

        self._act, self._update, self._apply = jax.jit(act), jax.jit(update), jax.jit(apply)
        self._advantages = jax.jit(functools.partial(ppo.advantages, gamma=gamma, lam=0.95))

    def select_action(self, state: npt.ArrayLike, deterministic: bool = False) -> int:
        """Draws an action for a state [state_dim], or takes the likeliest, which is not learnt
        from. Raises `ValueError` where the last action has got no reward yet."""
        state = self._state(state)
        noise = (
            np.zeros(self.action_dim)
            if deterministic
            else self._random.gumbel(size=self.action_dim)
        )
        found = self._act(self.learned["params"], state, noise.astype(np.float32))
        action, log_prob, value = jax.device_get(found)
        if not deterministic:
            if len(self._episode) != len(self._rewards):
                raise ValueError("select_action: the last action has no reward; call store_reward")
            self._episode.append((state, action, log_prob, value))
        return int(action)

    def store_reward(
        self, reward: float, done: bool, last_state: npt.ArrayLike | None = None
    ) -> None:
        """What the last action got, and whether the episode ended with it.

        Where a limit of time cut it off, `last_state` is the state it led to, whose value is then
        added. Raises `ValueError` where no action waits for a reward, or it is not finite.
        """
        if len(self._rewards) == len(self._episode):
            raise ValueError("store_reward: no action waits for a reward; call select_action")
        if not np.isfinite(reward):
            raise ValueError(f"reward: expected a finite number, got {reward}")
        if last_state is not None and not done:
            raise ValueError("last_state: for the end of an episode only")
        self._rewards.append(
            (reward, done, None if last_state is None else self._state(last_state))
        )

    def train_step(self) -> float:
        """Learns from all steps since the last call and forgets them; the mean loss, 0 if there
        are none. Where the last step does not end an episode, its own value stands for what
        follows."""
        if len(self._rewards) != len(self._episode):
            raise ValueError("train_step: the last action has no reward; call store_reward")
        number = len(self._episode)
        if number == 0:
            return 0.0
        columns: Any = [np.stack(x) for x in zip(*self._episode, strict=True)]
        states, actions, log_probs, values = columns
        later = np.append(values[1:], values[-1])
        for at, (_, _, last_state) in enumerate(self._rewards):
            if last_state is not None:
                later[at] = self._apply(self.learned["params"], last_state)[1]
        cut = np.array([last is not None for _, _, last in self._rewards])
        done = np.array([done for _, done, _ in self._rewards])
        rewards = np.array([reward for reward, _, _ in self._rewards], np.float32)
        ended = cut.copy()
        ended[-1] = True
        # Padded to few lengths, each of which is compiled once.
        room = 1 << (number - 1).bit_length()
        steps = (rewards, values, later, done & ~cut, ended)
        padded = (np.pad(x, (0, room - number))[:, None] for x in steps)
        advantage: Any = np.asarray(self._advantages(*padded))[:number, 0]
        sample = ppo.Sample(states, actions, log_probs, values, advantage, advantage + values)
        losses = []
        for _ in range(self.epochs):
            order = self._random.permutation(number)
            parts = -(-number // _MINIBATCH)
            for picks in np.resize(order, (parts, _MINIBATCH)):  # the last is filled from the start
                part = jax.tree.map(lambda x, picks=picks: x[picks], sample)
                self.learned, loss = self._update(self.learned, part)
                losses.append(loss)
        self._episode.clear()
        self._rewards.clear()
        return float(np.mean(jax.device_get(losses)))


class DQNAgent(_Agent):
    """Learns by double DQN from five steps at a time: `select_action`, `store_transition` and
    `train_step` at each step.

    Values have two layers of 256 ReLU; a batch is drawn from the last `buffer_capacity` steps. The
    probability of any action falls from 1 by 0.5% in each update, to 0.01. The target network
    moves by 0.5% in each update.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        learning_rate: float = 0.001,
        gamma: float = 0.99,
        buffer_capacity: int = 100_000,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        """`seed` is of weights, actions and batches."""
        self.state_dim, self.action_dim = state_dim, action_dim
        self.batch_size, self.epsilon = batch_size, 1.0
        self._random = np.random.default_rng(seed)
        network = QNetwork(QNetworkConfig(hidden=(256, 256)), action_dim)
        optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(learning_rate))
        params = network.init(jax.random.key(seed), jnp.zeros(state_dim), 1)["params"]
        target = jax.tree.map(jnp.copy, params)
        self.learned = {"params": params, "target": target, "optimizer": optimizer.init(params)}
        self._capacity, self._stored = buffer_capacity, 0
        self._recent: list[tuple[Any, ...]] = []  # state, action, rewards since, their discount
        self._next_state: Any = None
        states: Any = np.zeros((2, buffer_capacity, state_dim), np.float32)
        numbers: Any = np.zeros((2, buffer_capacity), np.float32)
        actions: Any = np.zeros(buffer_capacity, np.int32)
        columns = (states[0], actions, numbers[0], numbers[1], states[1])
        self._steps = dqn.Transition(*columns)
        self._gamma = gamma

        def values(params: Any, states: Any) -> Any:
            return network.apply({"params": params}, states, 1)

        def update(learned: Any, batch: dqn.Transition) -> Any:
            judged = values(learned["params"], batch.following)
            targets = dqn.targets(batch, values(learned["target"], batch.following), judged)
            weights = jnp.ones(batch_size)

            def objective(params: Any) -> Any:
                seen = values(params, batch.observation)
                return dqn.loss(seen, batch.action, targets, weights, 1.0)[0]

            loss, grads = jax.value_and_grad(objective)(learned["params"])
            updates, state = optimizer.update(grads, learned["optimizer"], learned["params"])
            params = optax.apply_updates(learned["params"], updates)
            target = optax.incremental_update(params, learned["target"], 0.005)
            return {"params": params, "target": target, "optimizer": state}, loss

        self._values, self._update = jax.jit(values), jax.jit(update, donate_argnums=0)

    def select_action(self, state: npt.ArrayLike, deterministic: bool = False) -> int:
        """The best action for a state [state_dim], or with the probability `epsilon` any."""
        state = self._state(state)
        if not deterministic and self._random.random() < self.epsilon:
            return int(self._random.integers(self.action_dim))
        return int(np.argmax(self._values(self.learned["params"], state)))

    def store_transition(
        self,
        state: npt.ArrayLike,
        action: int,
        reward: float,
        next_state: npt.ArrayLike,
        done: bool,
    ) -> None:
        """Keeps a step. `done` says that what follows is worth nothing: gymnasium's `terminated`,
        and not that a limit of time has cut an episode off; that is seen from the next state, which
        is another one then."""
        if action not in range(self.action_dim):
            raise ValueError(f"action: expected 0 to {self.action_dim - 1}, got {action!r}")
        if not np.isfinite(reward):
            raise ValueError(f"reward: expected a finite number, got {reward}")
        state, next_state = self._state(state), self._state(next_state)
        if not np.array_equal(state, self._next_state):
            self._keep(len(self._recent))
        self._recent.append((state, action, 0.0, 1.0))
        self._recent = [
            (seen, chosen, total + discount * reward, discount * self._gamma)
            for seen, chosen, total, discount in self._recent
        ]
        self._next_state = next_state
        if done:
            self._recent = [(*step[:3], 0.0) for step in self._recent]
            self._keep(len(self._recent))
        elif len(self._recent) == _STEPS:
            self._keep(1)

    def _keep(self, number: int) -> None:
        """Puts so many of the recent steps into the buffer, with the rewards they have got."""
        for step in self._recent[:number]:
            place = self._stored % self._capacity
            columns = jax.tree.leaves(self._steps)
            for column, value in zip(columns, (*step, self._next_state), strict=True):
                column[place] = value
            self._stored += 1
        del self._recent[:number]

    def train_step(self) -> float:
        """One update; the loss, 0 until there are enough steps for a batch."""
        stored = min(self._stored, self._capacity)
        if stored < self.batch_size:
            return 0.0
        picks = self._random.integers(stored, size=self.batch_size)
        batch = jax.tree.map(lambda column: column[picks], self._steps)
        self.learned, loss = self._update(self.learned, batch)
        self.epsilon = max(0.01, self.epsilon * 0.995)
        return float(loss)

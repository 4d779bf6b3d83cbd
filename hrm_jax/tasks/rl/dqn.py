"""DQN as a task: a step of the loop is some steps of the environments, each few of them followed by
updates from the replay buffer."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, PRNGKeyArray

from hrm_jax.fields import ConfigError, require, require_fields
from hrm_jax.models.actor_critic import QNetwork, QNetworkConfig
from hrm_jax.optim.build import build_optimizer
from hrm_jax.rl import dqn
from hrm_jax.rl.observations import show, shown_shape
from hrm_jax.rl.replay import Replay
from hrm_jax.rl.rollout import Running, advance, environment_keys, start
from hrm_jax.rl.spaces import Discrete
from hrm_jax.tasks.base import Metrics, State, pair
from hrm_jax.tasks.rl.task import RLConfig, RLTask, Streams
from hrm_jax.tasks.supervised import apply_gradients


@dataclasses.dataclass(frozen=True, kw_only=True)
class DQNConfig(RLConfig):
    """Configuration of a run of DQN.

    Steps are counted over all environments of a seed.

    Attributes:
        train_every: Steps of each environment in an iteration, before its updates.
        updates: Updates of an iteration.
        minibatch_size: Transitions of an update.
        replay_size: Transitions that are kept.
        learning_starts: Steps before the first update.
        n_step: Steps whose rewards are summed before the value of what follows is taken.
        double: Whether the network that learns, not the target network, says which action is best.
        huber: Error of a value beyond which the loss is linear; 0 for a squared loss.
        target_every: Updates after which the target network is moved.
        tau: How far it is: 1 copies the network.
        epsilon_first, epsilon_last: Probability of a random action, at first and in the end.
        epsilon_fraction: Fraction of the run in which it falls from one to the other, linearly.
        priority_alpha: Power of a transition's error to which it is drawn; 0 draws uniformly.
        priority_beta_first, priority_beta_last: How far weights of the loss make up for that, at
            the start and, rising linearly, at the end of the run.
        priority_offset: Added to errors, so that each transition can be drawn.
    """

    train_every: int = 4
    updates: int = 1
    minibatch_size: int = 64
    replay_size: int = 100_000
    learning_starts: int = 1000
    n_step: int = 1
    double: bool = True
    huber: float = 1.0
    target_every: int = 500
    tau: float = 1.0
    epsilon_first: float = 1.0
    epsilon_last: float = 0.05
    epsilon_fraction: float = 0.2
    priority_alpha: float = 0.0
    priority_beta_first: float = 0.4
    priority_beta_last: float = 1.0
    priority_offset: float = 1e-6
    model: QNetworkConfig = dataclasses.field(default_factory=QNetworkConfig)

    def unused(self) -> dict[str, str]:
        names = ("priority_beta_first", "priority_beta_last", "priority_offset")
        why = "priority_alpha is 0, and all transitions are drawn alike"
        return super().unused() | ({} if self.priority_alpha else dict.fromkeys(names, why))

    def __post_init__(self) -> None:
        super().__post_init__()
        check = functools.partial(require_fields, self, "config")
        whole = ("train_every", "updates", "minibatch_size", "n_step", "target_every")
        check("at least 1", lambda x: x >= 1, *whole)
        check("at least 0", lambda x: x >= 0, "huber", "priority_beta_first", "priority_beta_last")
        check("0 < x <= 1", lambda x: 0 < x <= 1, "tau")
        fractions = ("epsilon_first", "epsilon_last", "epsilon_fraction", "priority_alpha")
        check("0..1", lambda x: 0 <= x <= 1, *fractions)
        check("more than 0", lambda x: x > 0, "priority_offset")
        least = self.train_every * self.batch_size
        check(f"at least {least}, an iteration's", lambda x: x >= least, "replay_size")
        whole_run = self.steps * self.iterations * least
        require(
            self.n_step * self.batch_size <= self.learning_starts <= whole_run,
            f"config.learning_starts: expected {self.n_step * self.batch_size} (n_step × "
            f"batch_size) to {whole_run} (steps of the run), got {self.learning_starts}",
        )


class Learner(struct.PyTreeNode):
    """What DQN hands from iteration to iteration beside the parameters.

    Attributes:
        running: The environments, [B, …].
        window: The last n_step steps, [n_step, B, …].
        replay: Transitions.
        target: Parameters of the target network.
    """

    running: Running
    window: dqn.Step
    replay: Replay
    target: Any


class DQNTask(RLTask):
    """Learns the values of actions by DQN."""

    def __init__(self, config: DQNConfig, *args: Any, **given: Any) -> None:
        super().__init__(config, *args, **given)
        space = self.environment.action_space
        if not isinstance(space, Discrete):
            raise ConfigError(
                f"config.environment: {config.environment}: DQN chooses among actions of a "
                f"Discrete space, got {space}"
            )
        self.actions = space.n
        self.shape = shown_shape(self.environment.observation_space)
        self.network = QNetwork(config.model, space.n)
        self.steps_per_environment = config.train_every * config.iterations
        self.updates = config.iterations * config.updates
        each = config.train_every * config.batch_size
        self.first_learning = -(-config.learning_starts // each) - 1  # number of an iteration

    def init(self, key: PRNGKeyArray) -> State:
        """A fresh state; its randomness comes from the seeds, not from the key."""
        config: DQNConfig = self.config

        def one(seed: Array) -> Any:
            streams = Streams.of(seed)
            params = self.network.init(streams.weights, jnp.zeros(self.shape), len(self.shape))
            keys = environment_keys(streams.environments, config.batch_size)
            running = start(self.environment, keys)
            nothing = jnp.zeros(config.batch_size)
            never, action = nothing.astype(bool), nothing.astype(jnp.int32)
            seen = running.observation
            step = dqn.Step(seen, action, nothing, seen, never, never)
            window = jax.tree.map(lambda x: jnp.broadcast_to(x, (config.n_step, *x.shape)), step)
            item = jax.tree.map(lambda x: x[0, 0], dqn.n_step(window, config.n_step, config.gamma))
            replay = Replay.empty(item, config.replay_size, config.priority_alpha > 0)
            return params["params"], (running, window, replay)

        params, (running, window, replay) = self.over_seeds(one)()
        params = self.start_from({"params": params})["params"]
        optimizer = build_optimizer(config.optimizer, config.steps, self.updates)
        return State(
            step=jnp.int32(0),
            params=params,
            opt_state=self.over_seeds(lambda _, params: optimizer.init(params))(params),
            key=key,
            ema=jax.tree.map(jnp.copy, params) if config.optimizer.ema else None,
            carry=Learner(running, window, replay, jax.tree.map(jnp.copy, params)),
        )

    def _values(self, params: Any, observations: Array) -> Any:
        """Of all actions [..., A]."""
        shown = show(self.environment.observation_space, observations)
        return self.network.apply({"params": params}, shown, len(self.shape))

    def epsilon(self, tick: Array) -> Array:
        """Of the steps that are the tick-th of each environment."""
        config: DQNConfig = self.config
        last = config.epsilon_fraction * config.steps * self.steps_per_environment
        return dqn.linear(config.epsilon_first, config.epsilon_last, tick / max(last, 1))

    def _explore(self, best: Array, epsilon: Array | float, keys: Array) -> Array:
        """These actions [B], or with the probability `epsilon` any; of keys [B, 2]."""
        explores = jax.vmap(jax.random.uniform)(keys[:, 0]) < epsilon
        any_action = jax.vmap(self.environment.action_space.sample)(keys[:, 1])
        return jnp.where(explores, any_action, best)

    def _collect(self, state: State, ticks: Array) -> tuple[Running, dqn.Step, Any]:
        """The environments afterwards, and what they did [T, B, …]."""
        keys = environment_keys(Streams.split(state.key).environments, self.config.batch_size)
        world = self.world(state.frozen)

        def tick(running: Running, tick: Array) -> Any:
            of_step = jax.vmap(lambda k: jax.random.split(jax.random.fold_in(k, tick), 3))(keys)
            observation = running.observation
            best = self.act({"params": state.params}, observation)
            action = self._explore(best, self.epsilon(tick), of_step[:, :2])
            running, timestep, finished = advance(world, running, action, of_step[:, 2])
            step = dqn.Step(
                observation,
                action,
                timestep.reward,
                timestep.observation,
                timestep.terminated,
                timestep.ended,
            )
            return running, (step, finished)

        running, (did, finished) = jax.lax.scan(tick, state.carry.running, ticks)
        return running, did, jax.tree.map(jnp.sum, finished)

    def _store(self, learner: Learner, did: dqn.Step, ticks: Array) -> Learner:
        """The transitions that are complete now: n_step - 1 steps behind what was done."""
        config: DQNConfig = self.config
        joined = jax.tree.map(lambda old, new: jnp.concatenate([old[1:], new]), learner.window, did)
        found = dqn.n_step(joined, config.n_step, config.gamma)
        items = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
        valid = jnp.repeat(ticks >= config.n_step - 1, config.batch_size)
        window = jax.tree.map(lambda x: x[-config.n_step :], joined)
        return learner.replace(window=window, replay=learner.replay.add(items, valid))

    def iteration(self, state: State, number: Array) -> tuple[State, Metrics]:
        """Steps of one seed's environments, and the updates that follow."""
        config: DQNConfig = self.config
        ticks = number * config.train_every + jnp.arange(config.train_every)
        running, did, finished = self._collect(state, ticks)
        learner = self._store(state.carry.replace(running=running), did, ticks)
        state, metrics = self._learn(state.replace(carry=learner), number)
        return state, {
            **metrics,
            "epsilon": pair(self.epsilon(ticks).sum(), config.train_every),
            "return": pair(finished.total, finished.episodes),
            "length": pair(finished.length, finished.episodes),
        }

    def _learn(self, state: State, number: Array) -> tuple[State, Metrics]:
        """All updates of an iteration, once there is enough to learn from."""
        config: DQNConfig = self.config
        items = state.carry.replay.items  # only read here, so that no update copies them
        first = (number - self.first_learning) * config.updates
        key = jax.random.fold_in(Streams.split(state.key).updates, number)

        def update(state: State, count: Array) -> tuple[State, Metrics]:
            return self._update(state, items, jax.random.fold_in(key, count), count)

        def learn(state: State) -> tuple[State, Metrics]:
            state, metrics = jax.lax.scan(update, state, first + jnp.arange(config.updates))
            return state, jax.tree.map(lambda x: x.sum(0), metrics)

        def wait(state: State) -> tuple[State, Metrics]:
            metrics = jax.eval_shape(learn, state)[1]
            return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

        lighter = state.replace(carry=_with_items(state.carry, None), key=None)
        new, metrics = jax.lax.cond(number >= self.first_learning, learn, wait, lighter)
        return new.replace(carry=_with_items(new.carry, items), key=state.key), metrics

    def _update(
        self, state: State, items: dqn.Transition, key: PRNGKeyArray, count: Array
    ) -> tuple[State, Metrics]:
        """The run's update of that number, counted from 0."""
        config: DQNConfig = self.config
        learner: Learner = state.carry
        replay = learner.replay
        places, probabilities = replay.sample(key, config.minibatch_size)
        batch = jax.tree.map(lambda x: x[places], items)
        judged = self._values(state.params, batch.following) if config.double else None
        targets = dqn.targets(batch, self._values(learner.target, batch.following), judged)
        weights = jnp.ones(config.minibatch_size)
        if config.priority_alpha:
            done = state.step / config.steps
            beta = dqn.linear(config.priority_beta_first, config.priority_beta_last, done)
            weights = dqn.importance(probabilities, replay.size, beta)

        def objective(params: Any) -> Any:
            values = self._values(params, batch.observation)
            return dqn.loss(values, batch.action, targets, weights, config.huber)

        (loss, parts), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        left_out = self.first_learning * config.updates
        state, metrics = apply_gradients(
            state, grads, config.optimizer, config.steps, self.updates, left_out
        )
        error = jnp.abs(parts["error"])
        if config.priority_alpha:
            priorities = (error + config.priority_offset) ** config.priority_alpha
            replay = replay.prioritize(places, priorities)
        moved = optax.incremental_update(state.params, learner.target, config.tau)
        moves = (count + 1) % config.target_every == 0
        target = jax.tree.map(lambda new, old: jnp.where(moves, new, old), moved, learner.target)
        figures = {"loss": loss, "td_error": error.mean(), "q": parts["q"].mean()}
        metrics = {**metrics, **{name: pair(x, 1) for name, x in figures.items()}}
        return state.replace(carry=learner.replace(replay=replay, target=target)), metrics

    def act(self, weights: Any, observations: Array, key: PRNGKeyArray | None = None) -> Array:
        """The best actions; with a key as in training, any with the probability `epsilon_last`."""
        best = jnp.argmax(self._values(weights["params"], observations), -1).astype(jnp.int32)
        if key is None:
            return best
        return self._explore(best, self.config.epsilon_last, jax.random.split(key, (len(best), 2)))

    def value(self, weights: Any, observations: Array) -> Array:
        return self._values(weights["params"], observations)


def _with_items(learner: Learner, items: Any) -> Learner:
    return learner.replace(replay=learner.replay.replace(items=items))

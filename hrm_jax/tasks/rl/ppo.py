"""PPO as a task: a step of the loop is a few rollouts, each with the updates it is good for."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray

from hrm_jax.fields import ConfigError, require, require_fields
from hrm_jax.models.actor_critic import ActorCritic, ActorCriticConfig
from hrm_jax.optim.build import build_optimizer
from hrm_jax.rl import ppo
from hrm_jax.rl.distributions import distribution
from hrm_jax.rl.observations import show, shown_shape
from hrm_jax.rl.rollout import Running, advance, environment_keys, start
from hrm_jax.rl.statistics import Statistics
from hrm_jax.tasks.base import Metrics, State, pair
from hrm_jax.tasks.rl.task import RLConfig, RLTask, Streams
from hrm_jax.tasks.supervised import apply_gradients


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPOConfig(RLConfig):
    """Configuration of a run of PPO.

    Attributes:
        rollout_steps: Steps of each environment between updates.
        epochs: How often the steps of a rollout are learnt from.
        minibatches: Parts, drawn anew in each epoch, of an update each.
        gae_lambda: Of the advantage estimates.
        clip: How far from 1 the ratio of probabilities is followed.
        clip_final_ratio: What is left of `clip` at the end of the run, falling linearly.
        value_clip: How far a value is moved from that of the rollout; 0 for any.
        value_weight, entropy_weight: Weights of these parts of the loss.
        target_kl: The updates of a rollout end where the policy has moved 1.5 times as far, in
            nats; 0 never ends them.
        normalize_advantages: Whether they are normalised in each minibatch.
        normalize_observations: Whether observations are, by all that were seen before the rollout.
        normalize_rewards: Whether rewards are divided by the standard deviation of discounted
            returns; figures are of what the environment gives.
        squash: Whether continuous actions are scaled to their bounds by tanh, not clipped.
    """

    rollout_steps: int = 128
    epochs: int = 4
    minibatches: int = 4
    gae_lambda: float = 0.95
    clip: float = 0.2
    clip_final_ratio: float = 1.0
    value_clip: float = 0.0
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    target_kl: float = 0.0
    normalize_advantages: bool = True
    normalize_observations: bool = False
    normalize_rewards: bool = False
    squash: bool = False
    model: ActorCriticConfig = dataclasses.field(default_factory=ActorCriticConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check = functools.partial(require_fields, self, "config")
        whole = ("rollout_steps", "epochs", "minibatches")
        check("at least 1", lambda x: x >= 1, *whole)
        check("more than 0", lambda x: x > 0, "clip")
        check("0..1", lambda x: 0 <= x <= 1, "gae_lambda", "clip_final_ratio")
        weights = ("value_clip", "value_weight", "entropy_weight", "target_kl")
        check("at least 0", lambda x: x >= 0, *weights)
        samples = self.rollout_steps * self.batch_size
        require(
            samples % self.minibatches == 0,
            f"config.minibatches: {self.minibatches} does not divide the {samples} steps of a "
            "rollout (rollout_steps × batch_size)",
        )


class Learner(struct.PyTreeNode):
    """What PPO hands from rollout to rollout beside the parameters.

    Attributes:
        running: The environments, [B, …].
        discounted: Discounted rewards of their episodes so far [B].
        observations: Of observations as networks are shown them.
        returns: Of discounted rewards.
    """

    running: Running
    discounted: Float[Array, " B"]
    observations: Statistics
    returns: Statistics


class PPOTask(RLTask):
    """Trains a policy and its value by PPO."""

    def __init__(self, config: PPOConfig, *args: Any, **given: Any) -> None:
        super().__init__(config, *args, **given)
        space = self.environment.action_space
        self.policy = distribution(space, config.squash)
        given = {"squash": config.squash, "model.log_std": config.model.log_std}
        for name in (x for x in given if given[x] and not self.policy.gaussian):
            raise ConfigError(
                f"config.{name}: has no effect: actions in {config.environment} are {space}"
            )
        self.shape = shown_shape(self.environment.observation_space)
        self.network = ActorCritic(config.model, self.policy.size, self.policy.gaussian)
        self.objective = ppo.Objective(
            config.value_weight,
            config.entropy_weight,
            config.value_clip,
            config.normalize_advantages,
        )
        self.steps_per_environment = config.rollout_steps * config.iterations
        self.updates = config.iterations * config.epochs * config.minibatches

    def init(self, key: PRNGKeyArray) -> State:
        """A fresh state; its randomness comes from the seeds, not from the key."""
        config: PPOConfig = self.config

        def one(seed: Array) -> Any:
            streams = Streams.of(seed)
            shown = jnp.zeros(self.shape)
            params = self.network.init(streams.weights, shown, len(self.shape))["params"]
            keys = environment_keys(streams.environments, config.batch_size)
            return params, Learner(
                start(self.environment, keys),
                jnp.zeros(config.batch_size),
                Statistics.empty(self.shape),
                Statistics.empty(()),
            )

        params, learner = self.over_seeds(one)()
        weights = self.start_from({"params": params, "statistics": vars(learner.observations)})
        params = weights["params"]
        optimizer = build_optimizer(config.optimizer, config.steps, self.updates)
        return State(
            step=jnp.int32(0),
            params=params,
            opt_state=self.over_seeds(lambda _, params: optimizer.init(params))(params),
            key=key,
            ema=jax.tree.map(jnp.copy, params) if config.optimizer.ema else None,
            carry=learner.replace(observations=Statistics(**weights["statistics"])),
        )

    def carry_spec(self, carry: Learner) -> Any:
        """The environments are divided over all devices, but for those of the host."""
        if self.environment.on_host:
            return None
        seeds = (None,) if self.config.seeds > 1 else ()
        rows = PartitionSpec(*seeds, ("data", "fsdp"))
        whole = jax.tree.map(lambda _: PartitionSpec(), carry)
        parts = {"running": carry.running, "discounted": carry.discounted}
        return whole.replace(**jax.tree.map(lambda _: rows, parts))

    def _apply(self, params: Any, observations: Array) -> Any:
        return self.network.apply({"params": params}, observations, len(self.shape))

    def _shown(self, statistics: Statistics, observations: Array) -> Array:
        x = show(self.environment.observation_space, observations)
        return statistics.normalize(x) if self.config.normalize_observations else x

    def _rollout(self, state: State, number: Array) -> tuple[Running, Any, Any]:
        """The environments afterwards, and what they did [T, B, …]."""
        config: PPOConfig = self.config
        keys = environment_keys(Streams.split(state.key).environments, config.batch_size)

        def rollout(whole: Any, running: Running, keys: Array) -> Any:
            params, statistics, frozen, number = whole
            world = self.world(frozen)
            ticks = 1 + number * config.rollout_steps + jnp.arange(config.rollout_steps)

            def tick(running: Running, tick: Array) -> Any:
                of_step = jax.vmap(lambda k: jax.random.split(jax.random.fold_in(k, tick)))(keys)
                observation = running.observation
                outputs, value = self._apply(params, self._shown(statistics, observation))
                actions = jax.vmap(self.policy.sample)(outputs, of_step[:, 0])
                log_prob = self.policy.log_prob(outputs, actions)
                running, timestep, finished = advance(
                    world, running, self.policy.act(actions), of_step[:, 1]
                )
                return running, ((observation, actions, log_prob, value, timestep), finished)

            running, (did, finished) = jax.lax.scan(tick, running, ticks)
            return running, did, jax.tree.map(lambda x: x.sum(0), finished)

        learner: Learner = state.carry
        whole = (state.params, learner.observations, state.frozen, number)
        running, did, finished = self.divided(rollout, whole, learner.running, keys, axes=(0, 1, 0))
        return running, did, jax.tree.map(jnp.sum, finished)

    def _scaled(self, learner: Learner, timestep: Any) -> tuple[Learner, Array]:
        """Rewards [T, B] divided by the deviation of returns, with these among them."""

        def add(total: Array, now: Any) -> tuple[Array, Array]:
            reward, done = now
            total = self.config.gamma * total + reward
            return jnp.where(done, 0.0, total), total

        discounted, totals = jax.lax.scan(
            add, learner.discounted, (timestep.reward, timestep.ended)
        )
        returns = learner.returns.update(totals)
        learner = learner.replace(discounted=discounted, returns=returns)
        scale = jnp.sqrt(returns.variance + 1e-8)
        return learner, jnp.clip(timestep.reward / scale, -10, 10)

    def iteration(self, state: State, number: Array) -> tuple[State, Metrics]:
        """One rollout of one seed, and what is learnt from it."""
        config: PPOConfig = self.config
        learner: Learner = state.carry
        running, did, finished = self._rollout(state, number)
        observation, actions, log_prob, values, timestep = did
        learner, rewards = learner.replace(running=running), timestep.reward
        if config.normalize_rewards:
            learner, rewards = self._scaled(learner, timestep)
        seen = self._shown(learner.observations, observation)
        _, next_values = self._apply(
            state.params, self._shown(learner.observations, timestep.observation)
        )
        advantage = ppo.advantages(
            rewards,
            values,
            next_values,
            timestep.terminated,
            timestep.truncated,
            config.gamma,
            config.gae_lambda,
        )
        sample = ppo.Sample(seen, actions, log_prob, values, advantage, advantage + values)
        sample = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), sample)
        state, metrics = self._learn(state, sample, number)
        if config.normalize_observations:
            raw = show(self.environment.observation_space, observation)
            learner = learner.replace(observations=learner.observations.update(raw))
        residual = sample.target - sample.value
        explained = 1 - residual.var() / jnp.maximum(sample.target.var(), 1e-8)
        metrics = {
            **metrics,
            "return": pair(finished.total, finished.episodes),
            "length": pair(finished.length, finished.episodes),
            "explained_variance": pair(explained, 1),
        }
        return state.replace(carry=learner), metrics

    def _learn(self, state: State, sample: ppo.Sample, number: Array) -> tuple[State, Metrics]:
        """All updates of a rollout."""
        config: PPOConfig = self.config
        total = len(sample.advantage)
        left = 1 - state.step / config.steps * (1 - config.clip_final_ratio)

        def objective(params: Any, part: ppo.Sample) -> Any:
            outputs, values = self._apply(params, part.observation)
            return ppo.loss(self.policy, self.objective, outputs, values, part, config.clip * left)

        def update(carry: tuple[State, Array], picks: Array) -> Any:
            state, stopped = carry
            part = jax.tree.map(lambda x: x[picks], sample)
            (loss, parts), grads = jax.value_and_grad(objective, has_aux=True)(state.params, part)
            new, metrics = apply_gradients(
                state, grads, config.optimizer, config.steps, self.updates
            )
            if config.target_kl:
                stopped |= parts["kl"] > 1.5 * config.target_kl
                new = jax.tree.map(lambda old, new: _unless(stopped, old, new), state, new)
            count = 1.0 - stopped
            found = {k: pair(v, 1) for k, v in {"loss": loss, **parts}.items()}
            told = {k: jnp.where(count, v, 0) for k, v in {**metrics, **found}.items()}
            return (new, stopped), {**told, "updates": pair(count, 1)}

        key = jax.random.fold_in(Streams.split(state.key).updates, number)
        picks = _orders(key, config.epochs, total).reshape(config.epochs * config.minibatches, -1)
        (state, _), metrics = jax.lax.scan(update, (state, jnp.bool(False)), picks)
        return state, jax.tree.map(lambda x: x.sum(0), metrics)

    def act(self, weights: Any, observations: Array, key: PRNGKeyArray | None = None) -> Array:
        shown = self._shown(Statistics(**weights["statistics"]), observations)
        outputs, _ = self._apply(weights["params"], shown)
        actions = self.policy.mode(outputs) if key is None else self.policy.sample(outputs, key)
        return self.policy.act(actions)

    def value(self, weights: Any, observations: Array) -> Float[Array, " N"]:
        shown = self._shown(Statistics(**weights["statistics"]), observations)
        return self._apply(weights["params"], shown)[1]

    def weights(self, state: State) -> dict[str, Any]:
        return {"params": state.averaged, "statistics": vars(state.carry.observations)}


def _orders(key: PRNGKeyArray, number: int, total: int) -> Array:
    """So many permutations of `total` numbers, int32 [number, total]."""
    drawn = jax.random.bits(key, (number, total))
    if total > 2**14:
        return jnp.argsort(drawn, axis=-1)
    # Random bits and number in one word: 18 bits or more are hardly ever drawn twice, and sorting
    # words takes a third of the time that sorting pairs does.
    low = jnp.uint32(2**14 - 1)
    return jnp.sort(drawn & ~low | jnp.arange(total, dtype=jnp.uint32), axis=-1) & low


def _unless(stopped: Array, old: Any, new: Any) -> Any:
    """The old numbers where stopped; but counts go on, for schedules follow the run's steps."""
    if jnp.issubdtype(new.dtype, jnp.floating):
        return jnp.where(stopped, old, new)
    return new

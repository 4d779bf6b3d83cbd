"""What the tasks of reinforcement learning share: environments, seeds, evaluation."""

from __future__ import annotations

import abc
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from hrm_jax.compilation import jit
from hrm_jax.data.identity import Identity
from hrm_jax.data.pipeline import empty_batches
from hrm_jax.fields import ConfigError, require_fields
from hrm_jax.optim.build import OptimizerConfig
from hrm_jax.rl import environments
from hrm_jax.rl.environments import Environment
from hrm_jax.rl.rollout import Episodes, divided, environment_keys, episodes
from hrm_jax.tasks.base import Figures, Metrics, RunConfig, State, Task
from hrm_jax.tasks.rl.policy import Policy
from hrm_jax.tasks.rl.report import policy_report

_LONGEST = 100_000  # steps of an evaluation, where episodes have no limit


@dataclasses.dataclass(frozen=True, kw_only=True)
class RLConfig(RunConfig):
    """Fields that the config of every algorithm has.

    Attributes:
        environment: Name of the environment, see `hrm_jax.rl.environments.make`.
        max_steps: Steps after which an episode is truncated; 0 for the environment's own limit.
        batch_size: Environments side by side, of each seed.
        seeds: Independent runs side by side, of the seeds `seed`, `seed` + 1, …
        iterations: How often environments are run and learnt from in a step of the loop.
        gamma: Discount.
        eval_episodes: Episodes of an evaluation, of each seed, with the likeliest actions.
        eval_max_steps: Steps after which they are cut off; 0 for 100,000.
        init_from: Workdir of a run of the same networks.
    """

    free: ClassVar[tuple[str, ...]] = (*RunConfig.free, "eval_episodes", "eval_max_steps")

    environment: str = "CartPole-v1"
    max_steps: int = 0
    seeds: int = 1
    iterations: int = 1
    gamma: float = 0.99
    eval_episodes: int = 100
    eval_max_steps: int = 0
    best_metric: str = "eval/return"
    model: Any = None
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)

    def unused(self) -> dict[str, str]:
        return {
            "microbatch_size": "minibatches are what is learnt from at a time",
            "shard_tables": "there are no tables",
        }

    def __post_init__(self) -> None:
        super().__post_init__()
        check = functools.partial(require_fields, self, "config")
        check("at least 1", lambda x: x >= 1, "seeds", "iterations", "eval_episodes")
        check("at least 0", lambda x: x >= 0, "eval_max_steps", "max_steps")
        check("0 <= x <= 1", lambda x: 0 <= x <= 1, "gamma")


class Streams(NamedTuple):
    """Keys of one seed, of which none is drawn from another's."""

    weights: PRNGKeyArray
    environments: PRNGKeyArray
    updates: PRNGKeyArray
    evaluation: PRNGKeyArray

    @classmethod
    def of(cls, seed: Array) -> Streams:
        return cls.split(jax.random.key(seed))

    @classmethod
    def split(cls, key: PRNGKeyArray) -> Streams:
        return cls(*jax.random.split(key, 4))


class RLTask(Task):
    """An agent in an environment; an algorithm says how it learns.

    With several seeds, parameters, the optimizer's state and the carry have a leading axis for
    them; each seed's numbers are those of its run alone.
    """

    unit = "environments"
    shown: ClassVar[Mapping[str, str]] = {"return": "train/return", "held-out": "eval/return"}
    steps_per_environment: int
    """Steps that each environment makes in a step of the loop."""

    def __init__(
        self,
        config: Any,
        data_cache: pathlib.Path | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Makes the environment; `variables` are weights to start from."""
        self.config = config
        self.environment = self.make()
        self._given = variables
        self._keys = jnp.arange(config.seed, config.seed + config.seeds)
        self._episodes = jit(self.over_seeds(self._evaluation))

    def make(self) -> Environment:
        """The environment of the configuration."""
        options = {"max_steps": self.config.max_steps} if self.config.max_steps else {}
        return environments.make(self.config.environment, **options)

    def world(self, frozen: Any) -> Environment:
        """The environment, with what is frozen of the state of a run."""
        return self.environment

    def divided(self, function: Callable[..., Any], whole: Any, *rows: Any, **axes: Any) -> Any:
        """What environments do, over the mesh in use, unless it is the host that steps them: see
        `hrm_jax.rl.rollout.divided`."""
        if self.environment.on_host:
            return function(whole, *rows)
        return divided(function, whole, *rows, **axes)

    @property
    def identity(self) -> Identity:
        counts = {"environments": self.config.batch_size, "seeds": self.config.seeds}
        return Identity(self.config.environment, "1", None, counts, {})

    def batches(self) -> grain.DatasetIterator:
        return empty_batches()

    def over_seeds(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`(number of a seed, *trees) for all seeds: the trees have a leading axis for
        them, where there are several."""
        if self.config.seeds == 1:
            return lambda *trees: function(jnp.int32(self.config.seed), *trees)
        return lambda *trees: jax.vmap(function)(self._keys, *trees)

    def start_from(self, fresh: Mapping[str, Any]) -> Mapping[str, Any]:
        """Fresh weights, or those that were given, which must have the same shapes."""
        if self._given is None:
            return fresh
        given = {name: self._given.get(name, fresh[name]) for name in fresh}
        shapes = jax.tree.map(jnp.shape, (dict(fresh), given))
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"config.init_from: {self.config.init_from}: its networks have other sizes, other "
                "observations or another number of seeds"
            )
        return jax.tree.map(jnp.asarray, given)

    def derived(self, step: int, figures: Figures) -> Figures:
        each = self.steps_per_environment * self.config.batch_size * self.config.seeds
        speed = figures["train/steps_per_second"] * each
        return {"train/env_steps": step * each, "train/env_steps_per_second": speed}

    def step(self, state: State, batch: Any) -> tuple[State, Metrics]:
        def one(seed: Array, params: Any, opt_state: Any, ema: Any, carry: Any) -> Any:
            key = jax.random.key(seed)
            of_seed = State(state.step, params, opt_state, key, ema, None, carry)
            first = state.step * self.config.iterations
            numbers = first + jnp.arange(self.config.iterations)

            def iteration(now: State, number: Array) -> tuple[State, Metrics]:
                now, metrics = self.iteration(now.replace(frozen=state.frozen), number)
                return now.replace(frozen={}), metrics

            return jax.lax.scan(iteration, of_seed, numbers)

        new, metrics = self.over_seeds(one)(state.params, state.opt_state, state.ema, state.carry)
        parts = ("params", "opt_state", "ema", "carry")
        state = state.replace(**{name: getattr(new, name) for name in parts})
        axes = (0,) if self.config.seeds == 1 else (0, 1)
        return state, jax.tree.map(lambda x: x.sum(axes), metrics)

    @abc.abstractmethod
    def iteration(self, state: State, number: Array) -> tuple[State, Metrics]:
        """What is done and learnt in one of the run's iterations, by one seed, whose key and arrays
        the state has."""

    @abc.abstractmethod
    def act(self, weights: Any, observations: Array, key: PRNGKeyArray | None = None) -> Array:
        """Actions for observations [N, …], as the environment takes them: the likeliest ones, or
        with a key drawn ones."""

    @abc.abstractmethod
    def value(self, weights: Any, observations: Array) -> Array:
        """What is to come after observations [N, …]: [N], or of each action [N, A]."""

    def play(self, weights: Any, key: PRNGKeyArray, number: int, max_steps: int) -> Episodes:
        """So many episodes with the likeliest actions."""

        def play(weights: Any, keys: Array) -> Episodes:
            act = functools.partial(self.act, weights)
            return episodes(self.environment, act, keys, max_steps or _LONGEST)

        return self.divided(play, weights, environment_keys(key, number))

    def _evaluation(self, seed: Array, weights: Any) -> Episodes:
        config = self.config
        key = Streams.of(seed).evaluation
        return self.play(weights, key, config.eval_episodes, config.eval_max_steps)

    @classmethod
    def model(cls, config: Any, weights: Mapping[str, Any], name: str) -> Policy:
        return Policy(cls(config), weights)

    def evaluate(self, state: State) -> Figures:
        found = jax.device_get(self._episodes(self.weights(state)))
        figures = episode_figures(found)
        if self.config.seeds > 1:
            by_seed = np.asarray(found.total, np.float64).mean(1)
            low, high = bootstrap(by_seed)
            figures |= {
                "eval/return_by_seed": by_seed.tolist(),
                "eval/return_iqm": interquartile_mean(by_seed),
                "eval/return_iqm_low": low,
                "eval/return_iqm_high": high,
            }
        return figures

    def score(
        self, weights: Any, number: int | None, seed: int | None, max_steps: int | None
    ) -> Figures:
        """Figures of so many episodes; by default those of the evaluations of training."""
        config = self.config
        key = Streams.of(jnp.int32(config.seed)).evaluation
        key = key if seed is None else jax.random.key(seed)
        number, most = number or config.eval_episodes, max_steps or config.eval_max_steps
        play = jit(self.play, static_argnums=(2, 3))
        return episode_figures(jax.device_get(play(weights, key, number, most)))

    def report(self, state: State, figures: Figures, folder: pathlib.Path) -> str:
        weights = jax.tree.map(np.asarray, self.weights(state))
        return policy_report(Policy(self, weights), figures, folder)


def episode_figures(found: Episodes) -> dict[str, Any]:
    """Figures of whole episodes."""
    totals = np.asarray(found.total, np.float64)
    return {
        "eval/return": float(totals.mean()),
        "eval/return_std": float(totals.std()),
        "eval/length": float(np.mean(found.length)),
        "eval/unfinished": float(1 - np.mean(found.ended)),
    }


def interquartile_mean(scores: np.ndarray) -> float:
    """The mean of the middle half (Agarwal et al. 2021, arXiv:2108.13264)."""
    return float(_iqm(np.asarray(scores)[None])[0])


def _iqm(rows: np.ndarray) -> np.ndarray:
    cut = rows.shape[1] // 4
    return np.sort(rows, 1)[:, cut : rows.shape[1] - cut].mean(1)


def bootstrap(scores: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """The interval that holds 95% of the interquartile means of scores drawn again."""
    picks = np.random.default_rng(0).integers(len(scores), size=(draws, len(scores)))
    low, high = np.quantile(_iqm(np.asarray(scores)[picks]), [0.025, 0.975])
    return float(low), float(high)

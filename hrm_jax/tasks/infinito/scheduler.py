"""The agent that schedules a language model's training: PPO, in `LanguageTraining`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from hrm_jax.compilation import jit
from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError, require, require_fields
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.models.infinito import MemoryConfig, PhiConfig
from hrm_jax.optim.build import OptimizerConfig
from hrm_jax.rl.environments import Environment
from hrm_jax.rl.rollout import environment_keys
from hrm_jax.tasks.base import Figures, RunConfig, State
from hrm_jax.tasks.infinito import meter
from hrm_jax.tasks.infinito.comparison import compare
from hrm_jax.tasks.infinito.config import InfinitoConfig, MeterConfig, StreamData
from hrm_jax.tasks.infinito.environment import (
    MODES,
    REWARDS,
    LanguageTraining,
    Measured,
    RewardBands,
    RewardWeights,
    reward,
)
from hrm_jax.tasks.infinito.policies import DRAWN, FROZEN, LEARNT, POLICIES, Row, row_of
from hrm_jax.tasks.infinito.task import InfinitoTask
from hrm_jax.tasks.rl.policy import Policy
from hrm_jax.tasks.rl.ppo import PPOConfig, PPOTask

log = logging.getLogger("hrm_jax")


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """The language model that is trained in an episode, and how; see `InfinitoConfig`.

    Attributes:
        model: What is adapted: a folder of Hugging Face's, a workdir of a language model (also of
            INFINITO's), or the name of a model that comes with the package.
        seed: Of the adapters that each episode begins with.
        batch_size: Texts of an update.
        phi_low, phi_high: Band, in nats, outside of which Φ has a loss. It should lie above that of
            the reward: what trains Φ is then free to overshoot, and the schedule matters.
        optimizer: Begins anew with each episode.
    """

    model: str = "spanish-gpt2"
    seed: int = 0
    batch_size: int = 4
    data: StreamData = dataclasses.field(default_factory=lambda: StreamData(length=128))
    lora: LoraConfig = dataclasses.field(
        default_factory=lambda: LoraConfig(r=4, alpha=16.0, target_modules=("c_attn", "c_proj"))
    )
    memory: MemoryConfig = dataclasses.field(default_factory=lambda: MemoryConfig(slots=128))
    phi: PhiConfig = dataclasses.field(default_factory=PhiConfig)
    phi_low: float = 1.6
    phi_high: float = 1.6
    meter: MeterConfig = dataclasses.field(default_factory=MeterConfig)
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(
            name="adamw",
            learning_rate=2e-4,
            warmup_steps=0,
            b2=0.98,
            weight_decay=0.01,
            clip_norm=1.0,
        )
    )

    def __post_init__(self) -> None:
        require(
            self.data.kind == "text",
            f"config.language.data.kind: {self.data.kind!r}: most of its text does not count; "
            "expected 'text'",
        )
        require(
            not self.optimizer.ema,
            "config.language.optimizer.ema: an average is not kept within an episode; expected 0",
        )
        require_fields(self, "config.language", "0 or more", lambda x: x >= 0, "seed")
        try:
            self.infinito()
        except ConfigError as error:
            told = str(error).removeprefix("config.")
            raise ConfigError(f"config.language.{told}") from error

    def infinito(self) -> InfinitoConfig:
        """The configuration of a run that trains it."""
        fields = {x.name: getattr(self, x.name) for x in dataclasses.fields(self)}
        return InfinitoConfig(task="infinito", eval_samples=0, **fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SchedulerConfig(PPOConfig):
    """Configuration of a run of `SchedulerTask`.

    Attributes:
        language: What is trained in the environments.
        inner_steps: Updates of the language model in a step of an environment.
        max_steps: Steps of an episode.
        reward: The guide's weights of the reward, or "weights" for those that follow.
        weights: Of the reward.
        bands: Of the reward.
        eval_episodes: Unseen orders of the text that the policy is tried on.
        eval_seed: Of these orders.
        policies: Others that it is compared with at the end, in `scheduler.json`: see
            `hrm_jax.tasks.infinito.policies`.
    """

    free: ClassVar[tuple[str, ...]] = (
        *PPOConfig.free,
        *("eval_seed", "policies", "language.model", "language.meter"),
        *("language.data.eval_rows", "language.data.eval_segments"),
    )

    environment: str = "infinito"
    language: LearnerConfig = dataclasses.field(default_factory=LearnerConfig)
    inner_steps: int = 5
    max_steps: int = 50
    reward: Literal["balance", "text_first", "phi_first", "weights"] = "balance"
    weights: RewardWeights = dataclasses.field(default_factory=RewardWeights)
    bands: RewardBands = dataclasses.field(default_factory=RewardBands)
    eval_episodes: int = 20
    eval_seed: int = 1000
    policies: tuple[str, ...] = (*POLICIES, FROZEN)

    @property
    def base(self) -> str:
        """The model whose weights are read at each start of a run."""
        return self.language.model

    @property
    def rewards(self) -> RewardWeights:
        """The weights that count."""
        return REWARDS.get(self.reward, self.weights)

    def unused(self) -> dict[str, str]:
        found = super().unused() | {
            "environment": "it is a language model's training, see config.language",
            "eval_max_steps": "episodes have config.max_steps steps",
            "seeds": "schedulers are trained one by one",
            "squash": "actions are choices",
        }
        if self.reward != "weights":
            names = (x.name for x in dataclasses.fields(RewardWeights))
            why = f"reward is {self.reward!r}; expected 'weights'"
            found |= {f"weights.{name}": why for name in names}
        return found

    def refuses(self, other: RunConfig) -> str:
        if isinstance(other, SchedulerConfig):
            return ""
        where = getattr(other, "environment", "")
        return f"a run of {other.task!r}{where and f' in {where}'}, expected one of a scheduler"

    def __post_init__(self) -> None:
        super().__post_init__()
        check = functools.partial(require_fields, self, "config")
        check("at least 1", lambda x: x >= 1, "inner_steps", "max_steps")
        check("at least 2", lambda x: x >= 2, "eval_episodes")
        check("0 <= seed < 2**31", lambda x: 0 <= x < 2**31, "eval_seed")
        known = (*POLICIES, FROZEN)
        for name in self.policies:
            require(
                name in known, f"config.policies: {name!r}, expected some of {', '.join(known)}"
            )


class SchedulerTask(PPOTask):
    """Learns when to train for text, and when for Φ."""

    shown: ClassVar[Mapping[str, str]] = {
        **PPOTask.shown,
        "perplexity": "eval/perplexity",
        "meter": "eval/phi_meter",
    }

    def __init__(
        self,
        config: SchedulerConfig,
        data_cache: pathlib.Path | None = None,
        variables: Mapping[str, Any] | None = None,
        base: LanguageModel | None = None,
    ) -> None:
        """Reads the text; `base` is the model that `config.language.model` names."""
        self.language = InfinitoTask(config.language.infinito(), data_cache, base)
        super().__init__(config, data_cache, variables)
        self._traces = jit(self._trace, static_argnums=1)
        self._tested = jit(self._test)
        self._learnt: tuple[Row, Row] | None = None  # of the last evaluation

    def make(self) -> LanguageTraining:
        config: SchedulerConfig = self.config
        language, network = config.language, self.language.network
        params = self.language.base.variables["params"]
        stream = self.language.stream
        world = LanguageTraining(
            network=network,
            base=params,
            start=network.init(params, jax.random.key(language.seed)),
            tokens=stream.tokens.astype(np.int32),
            begins=stream.begins,
            optimizer=language.optimizer,
            weights=config.rewards,
            bands=config.bands,
            batch_size=language.batch_size,
            inner_steps=config.inner_steps,
            max_steps=config.max_steps,
            phi_low=language.phi_low,
            phi_high=language.phi_high,
        )
        return dataclasses.replace(world, first=world.measured_at_start())

    def frozen(self, place: Callable[[Any], Array]) -> Any:
        given = self.environment
        assert isinstance(given, LanguageTraining)
        base = jax.tree.map(place, given.base)
        return {"base": base, "tokens": place(given.tokens), "begins": place(given.begins)}

    def world(self, frozen: Any) -> Environment:
        return dataclasses.replace(self.environment, **frozen)  # type: ignore[type-var]

    @property
    def identity(self) -> Identity:
        found = self.language.identity
        counts = {**found.counts, "environments": self.config.batch_size}
        return dataclasses.replace(found, counts=counts)

    def keep(self) -> None:
        self.language.keep()

    # Evaluation

    def _trace(
        self, number: Array, learns: bool, weights: Any, keys: Array, frozen: Any
    ) -> tuple[Any, Array, Measured, Array]:
        """What a policy, by its number (the last are `LEARNT` and `DRAWN`), does in whole episodes,
        one of each key [E]: what it has trained; its actions [T, E]; what was measured [T + 1, E],
        before them and after each; and its observations [T, E, 6]."""

        def trace(whole: Any, keys: Array) -> Any:
            number, weights, frozen = whole
            given = self.world(frozen)
            assert isinstance(given, LanguageTraining)
            world = dataclasses.replace(given, learns=learns)
            bands = self.config.bands

            def act(seen: Array, tick: Array, keys: Array) -> Array:
                known = [functools.partial(x, seen, bands, tick, keys) for x in POLICIES.values()]

                def drawn() -> Array:
                    return jax.vmap(lambda x, key: self.act(weights, x[None], key)[0])(seen, keys)

                return jax.lax.switch(number, [*known, lambda: self.act(weights, seen), drawn])

            def tick(carry: Any, tick: Array) -> Any:
                state, seen = carry
                of_step = jax.vmap(lambda k: jax.random.split(jax.random.fold_in(k, tick)))(keys)
                actions = act(seen, tick, of_step[:, 0])
                state, timestep = jax.vmap(world.step)(state, actions, of_step[:, 1])
                return (state, timestep.observation), (actions, state.measured, seen)

            resets = jax.vmap(jax.random.fold_in, (0, None))(keys, 2**31)
            state, seen = jax.vmap(world.reset)(resets)
            first = state.measured
            (state, _), (actions, measured, shown) = jax.lax.scan(
                tick, (state, seen), jnp.arange(self.config.max_steps)
            )
            measured = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, measured)
            return state.trained, actions, measured, shown

        return self.divided(trace, (number, weights, frozen), keys, axes=(0, 1, 1, 1))

    def _test(self, trained: Any, frozen: Any, batch: Any) -> Any:
        """Sums over the held-out text, of each language model [E]."""

        def test(whole: Any, trained: Any) -> Any:
            base, batch = whole

            def one(trained: Any) -> Any:
                variables = self.language.network.variables(base, trained)
                return self.language.read_on(variables, batch, ("",))

            return jax.lax.map(one, trained)

        return self.divided(test, (frozen["base"], batch), trained)

    @functools.cached_property
    def _nothing(self) -> Any:
        """Weights of a policy that is not asked."""
        shapes = jax.eval_shape(lambda key: self.weights(self.init(key)), jax.random.key(0))
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def row(
        self,
        name: str,
        frozen: Any,
        weights: Any = None,
        number: int | None = None,
        seed: int | None = None,
    ) -> Row:
        """What a policy comes to in so many orders of the text, by default those of the
        configuration; `weights` are of the learnt one."""
        config: SchedulerConfig = self.config
        weights = self._nothing if weights is None else weights
        key = jax.random.key(config.eval_seed if seed is None else seed)
        keys = environment_keys(key, number or config.eval_episodes)
        place = np.int32([*POLICIES, LEARNT, DRAWN].index(name) if name != FROZEN else 0)
        learns = name != FROZEN
        trained, actions, measured, seen = self._traces(place, learns, weights, keys, frozen)
        batch, _ = self.language.held_out()
        tested = jax.device_get(self._tested(trained, frozen, dict(batch)))
        sums = tested["meter"][""]
        figures = [
            meter.figures(config.language.meter, {"": tuple(x[i] for x in sums)})
            for i in range(len(keys))
        ]
        perplexities = np.exp(tested["nats"][""] / np.maximum(tested["count"], 1))
        return row_of(
            name,
            np.asarray(actions),
            jax.tree.map(np.asarray, measured),
            np.asarray(seen),
            perplexities,
            figures,
        )

    def returns(self, found: Row, weights: RewardWeights | None = None) -> Float[np.ndarray, " E"]:
        """Of each episode of a row, with the weights of the configuration or others."""
        weights = self.config.rewards if weights is None else weights
        given = jax.tree.map(jnp.asarray, found.measured)
        before, now = jax.tree.map(lambda x: x[:-1], given), jax.tree.map(lambda x: x[1:], given)
        return np.asarray(reward(weights, self.config.bands, before, now).sum(axis=0), np.float64)

    def evaluate(self, state: State) -> Figures:
        """Figures of the policy on unseen orders, likeliest actions: `eval/return`, of each order
        `eval/returns`; and of what it has trained, means over the orders: `eval/perplexity`,
        `eval/phi_objective` (0 to 10), `eval/phi_meter`, `eval/o_information`, `eval/memory_use`;
        the shares of its actions in all steps, `eval/text`, `eval/phi`, `eval/mixed`, and of each
        step, `eval/text_by_step`, … The same with `_drawn` behind: actions drawn as in training.
        """
        self._learnt = likeliest, drawn = self._own(state, state.frozen)
        also = {f"{name}_drawn": x for name, x in self.figures(drawn).items()}
        return self.figures(likeliest) | also

    def _own(self, state: State, frozen: Any) -> tuple[Row, Row]:
        weights = self.weights(state)
        return self.row(LEARNT, frozen, weights), self.row(DRAWN, frozen, weights)

    def figures(self, found: Row) -> dict[str, Any]:
        """Those of `evaluate`, of a row."""
        returns = self.returns(found)
        figures = {
            "eval/return": float(returns.mean()),
            "eval/return_std": float(returns.std()),
            "eval/returns": returns.tolist(),
            **{f"eval/{name}": float(x.mean()) for name, x in found.finals.items()},
        }
        for number, mode in enumerate(MODES):
            chosen = np.mean(found.actions == number, axis=1)
            figures[f"eval/{mode.lower()}"] = float(chosen.mean())
            figures[f"eval/{mode.lower()}_by_step"] = chosen.tolist()
        return figures

    def score(
        self, weights: Any, number: int | None, seed: int | None, max_steps: int | None
    ) -> Figures:
        if max_steps is not None:
            raise DataError(f"max_steps: episodes have config.max_steps {self.config.max_steps}")
        return self.figures(self.row(LEARNT, self.frozen(jnp.asarray), weights, number, seed))

    # What becomes of it

    @classmethod
    def load(  # type: ignore[override]
        cls, config: Any, weights: Mapping[str, Any], folder: pathlib.Path, base: LanguageModel
    ) -> Policy:
        return Policy(cls(config, folder / "data", base=base), weights)

    def report(self, state: State, figures: Figures, folder: pathlib.Path) -> str:
        sharding = jax.tree.leaves(state.params)[0].sharding
        several = isinstance(sharding, NamedSharding) and jax.process_count() == 1
        with jax.set_mesh(sharding.mesh) if several else contextlib.nullcontext():
            own = self._learnt or self._own(state, state.frozen)
            return compare(self, own, state.frozen, folder)

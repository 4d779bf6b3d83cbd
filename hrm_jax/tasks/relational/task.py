"""The task of answering questions about a few objects."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import grain
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jaxtyping import Array, PRNGKeyArray

from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.pipeline import batch_iterator
from hrm_jax.data.questions.base import QuestionBatches, Worlds
from hrm_jax.fields import ConfigError, require, require_fields
from hrm_jax.models.relational import MLPConfig, RelationalConfig, init, network
from hrm_jax.optim.build import OptimizerConfig
from hrm_jax.tasks.base import Figures, Metrics, RunConfig, State, Task, pair
from hrm_jax.tasks.relational.data import FamilyData, SceneData, WorldData
from hrm_jax.tasks.relational.evaluation import shares
from hrm_jax.tasks.relational.model import RelationalModel, logits
from hrm_jax.tasks.relational.report import report
from hrm_jax.tasks.supervised import Carry, SupervisedTrainer


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionConfig(RunConfig):
    """Configuration of a run on questions.

    Attributes:
        data: Which worlds.
        model: The relational network or the MLP it is compared with (`model.name`), and its sizes;
            object_dim, question_dim and output_dim come from the data.
        optimizer: How parameters are updated.
        asked: Different questions that are asked about each world of a batch; 0 asks all.
    """

    data: WorldData
    model: RelationalConfig | MLPConfig = dataclasses.field(default_factory=RelationalConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    asked: int = 0
    best_metric: str = "eval/accuracy"

    def __post_init__(self) -> None:
        super().__post_init__()
        most = len(self.data.questions.texts)
        require_fields(self, "config", f"0 to {most}", lambda x: 0 <= x <= most, "asked")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SortOfClevrConfig(QuestionConfig):
    """Configuration of a run on Sort-of-CLEVR."""

    data: SceneData = dataclasses.field(default_factory=SceneData)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FamilyConfig(QuestionConfig):
    """Configuration of a run on families."""

    data: FamilyData = dataclasses.field(default_factory=FamilyData)


class QuestionTask(Task):
    """Trains a network to answer questions; its config has the sizes that come from the data."""

    config: Any
    unit = "worlds"
    shown: ClassVar[Mapping[str, str]] = {
        **Task.shown,
        "right": "train/accuracy",
        "held-out": "eval/accuracy",
    }

    def __init__(
        self,
        config: QuestionConfig,
        data_cache: pathlib.Path | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Draws the data, which need no `data_cache`; `variables` are weights to start from.
        Raises `ConfigError` where `config.model` does not go with `config.data`."""
        self.train, self.test = config.data.parts()
        self.questions = config.data.questions
        self._shape = config.data.shape
        pixels = len(self._shape) == 3
        require(
            pixels == bool(config.model.channels),
            f"model.channels: {config.model.channels}, but the data have "
            + ("images; expected some, or data.shown=states" if pixels else "objects; expected ()"),
        )
        sizes = {
            "question_dim": self.questions.codes.shape[1],
            "output_dim": len(self.questions.answers),
            **({} if pixels else {"object_dim": self._shape[-1]}),
        }
        for name, value in sizes.items():
            given = getattr(config.model, name)
            if given not in (getattr(type(config.model)(), name), value):
                raise ConfigError(f"model.{name} is {given}, but the data have {value}")
        self.config = dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
        self._variables = variables
        self._trainer = SupervisedTrainer(
            config.optimizer, config.steps, self._loss, config.microbatch_size
        )

    @functools.cached_property
    def identity(self) -> Identity:
        return self.config.data.identity(self.train, self.test)

    def init(self, key: PRNGKeyArray) -> State:
        weights_key, run_key = jax.random.split(key)
        given = self._variables
        params = given["params"] if given else init(self.config.model, weights_key, self._shape)
        return self._trainer.init(run_key, params)

    def batches(self) -> grain.DatasetIterator:
        config = self.config
        source = QuestionBatches(
            config.data.draw if self.train is None else self.train,
            config.data.inputs,
            config.asked,
            config.batch_size,
            config.seed,
            jax.process_index(),
            jax.process_count(),
        )
        return batch_iterator(source)

    def step(self, state: State, batch: Any) -> tuple[State, Metrics]:
        return self._trainer.step(state, batch)

    def _loss(
        self, variables: Mapping[str, Any], batch: Any, carry: Carry, key: PRNGKeyArray, step: Array
    ) -> tuple[Array, tuple[Carry, Metrics]]:
        """Cross entropy of the answers to the questions that have one."""
        asked = jnp.asarray(self.questions.codes)[batch["questions"]]
        params = {"params": variables["params"]}
        found: Any = network(self.config.model).apply(params, batch["inputs"], asked)
        answers, counted = batch["answers"], batch["answers"] >= 0
        nats = optax.softmax_cross_entropy_with_integer_labels(found, jnp.maximum(answers, 0))
        total, count = jnp.sum(jnp.where(counted, nats, 0)), jnp.sum(counted)
        right = jnp.sum(found.argmax(-1) == answers)
        return total, (carry, {"loss": pair(total, count), "accuracy": pair(right, count)})

    def evaluate(self, state: State) -> Figures:
        """Shares of right answers to all questions that have one, about held-out worlds.

        `eval/accuracy` of all, `eval/relational_accuracy` of those about several objects and
        `eval/non_relational_accuracy` of the others; `eval/K_accuracy` of each kind K; and how many
        `eval/questions` there were.
        """
        return self.score(self.weights(state)["params"], self.test)

    def held_out(self, source: str | None = None, limit: int = 0) -> tuple[Worlds]:
        """The first `limit` held-out worlds, 0 for all. There is no `source` to read others from:
        a `DataError` says so."""
        if source is not None:
            raise DataError(f"{source}: a run on questions draws its worlds, expected no files")
        return (self.test[: limit or None],)

    def score(self, params: Any, worlds: Worlds) -> Figures:
        """The figures of `evaluate` on some worlds."""
        return shares(self.answers(params, worlds), worlds.answers(), self.questions)

    def answers(self, params: Any, worlds: Worlds) -> npt.NDArray[np.int64]:
        """The network's answers to all questions about worlds, [W, K]."""
        inputs = self.config.data.inputs(worlds)
        found = logits(self.config.model, {"params": params}, inputs, self.questions.codes)
        return found.argmax(-1)

    @classmethod
    def model(cls, config: Any, weights: Mapping[str, Any], name: str) -> RelationalModel:
        return RelationalModel(config.model, weights, config.data)

    @classmethod
    def with_sizes(cls, config: Any, sizes: Any) -> Any:
        require(
            type(sizes) is type(config.model),
            f"config.init_from: {config.init_from}: not the weights of the network "
            f"{config.model.variant!r}",
        )
        # What no weight depends on may be chosen.
        kept = {name: getattr(config.model, name) for name in ("aggregate", "pairs", "dtype")}
        return dataclasses.replace(config, model=dataclasses.replace(sizes, **kept))

    def report(self, state: State, figures: Figures, folder: pathlib.Path) -> str:
        return report(self, state, figures, folder)

"""What all language tasks share: their configuration, training step and evaluation."""

from __future__ import annotations

import abc
import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from hrm_jax.compilation import jit
from hrm_jax.data.errors import DataError
from hrm_jax.data.text.tokenizer_files import copy_tokenizer
from hrm_jax.data.text.tokenizers import ByteTokenizer, Tokenizer, load_tokenizer
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError, require, require_fields
from hrm_jax.files import atomic_folder, atomic_path, opened
from hrm_jax.models import language
from hrm_jax.models.planner_executor import PlannerExecutorConfig, weave
from hrm_jax.models.transformer import TransformerConfig
from hrm_jax.optim.build import OptimizerConfig
from hrm_jax.tasks.base import Figures, Metrics, RunConfig, State, Task, pair
from hrm_jax.tasks.language.report import language_report
from hrm_jax.tasks.supervised import Carry, SupervisedTrainer

_TOKENIZER, _HELD_OUT = "tokenizer", "held_out.jsonl.gz"  # in the folder for a run's data

Rows = Mapping[str, Any]
"""`tokens` [B, S]; `split` [B], in front of which the plan is put and up to which it is made;
`counted` bool [B, S], the tokens whose prediction counts. Where plans are made of other text than
`tokens`, `planned` is that, [B, P], and its lengths [B]."""


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """How the planner is trained.

    Attributes:
        first_temperature, last_temperature: Of the Gumbel-softmax, falling exponentially.
        anneal: Share of the run in which it falls.
        usage_weight: Weight, in nats per token, of the mutual information between texts and codes:
            each text is to be sure of its code, all texts together are to use all codes.
        dropout: Share of training rows whose executor is not shown the plan, so that it knows what
            to do without.
    """

    first_temperature: float = 1.0
    last_temperature: float = 0.1
    anneal: float = 0.5
    usage_weight: float = 0.01
    dropout: float = 0.1

    def __post_init__(self) -> None:
        positive = ("first_temperature", "last_temperature", "anneal")
        require_fields(self, "config.plan", "more than 0", lambda x: x > 0, *positive)
        require(self.usage_weight >= 0, "config.plan.usage_weight: expected 0 or more")
        require(0 <= self.dropout < 1, "config.plan.dropout: expected 0 <= x < 1")

    def temperature(self, step: Array, total_steps: int) -> Array:
        progress = jnp.minimum(step / (self.anneal * total_steps), 1.0)
        return self.first_temperature * (self.last_temperature / self.first_temperature) ** progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageConfig(RunConfig):
    """Fields that the config of every language task has.

    Attributes:
        model: A plain Transformer or a planner–executor (`model.name`), and its sizes.
        init_from: Workdir of a language model to start from, whose sizes are taken too; or a folder
            with one of Hugging Face's, see `from_hugging_face`.
    """

    gone: ClassVar[tuple[str, ...]] = (
        *("optimizer.puzzle_emb_lr", "optimizer.puzzle_emb_weight_decay"),
    )

    data: Any = None
    model: PlannerExecutorConfig | TransformerConfig = dataclasses.field(
        default_factory=PlannerExecutorConfig
    )
    plan: PlanConfig = PlanConfig()
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)

    def unused(self) -> dict[str, str]:
        if not isinstance(self.model, PlannerExecutorConfig):
            return {"plan": "model.name is a plain decoder, without a planner"}
        codes = ("first_temperature", "last_temperature", "anneal", "usage_weight")
        why = "model.num_codes is 0: plans are continuous"
        return {} if self.model.num_codes else {f"plan.{name}": why for name in codes}


class LanguageTask(Task):
    """Trains a language model; a kind of text says where rows come from, and which are held out."""

    config: Any
    shown: ClassVar[Mapping[str, str]] = {**Task.shown, "held-out": "eval/bits_per_byte"}
    example: ClassVar[str]
    """A prompt to try."""

    def __init__(
        self,
        config: Any,
        data_cache: pathlib.Path | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Makes the task; data are read when they are first needed. `data_cache` is the folder in
        the run's where `keep` puts copies of what the run needs. `variables` are weights to start
        from. Raises `ConfigError` where `config.model` does not go with `config.data`, `DataError`
        for a bad tokenizer."""
        self.config = config
        self.cache = data_cache
        self.tokenizer: Tokenizer = _tokenizer(config, data_cache)[0]
        if config.model.vocab_size < self.tokenizer.vocab_size:
            raise ConfigError(
                f"model.vocab_size is {config.model.vocab_size}, but data.tokenizer has "
                f"{self.tokenizer.vocab_size} tokens"
            )
        plan_id = getattr(config.model, "plan_id", -1)
        ordinary = self.tokenizer.vocab_size - isinstance(self.tokenizer, ByteTokenizer)  # PLAN
        if 0 <= plan_id < ordinary:
            raise ConfigError(
                f"model.plan_id is {plan_id}, a token of data.tokenizer with another meaning; "
                f"expected {ordinary} or more, and a model.vocab_size above it"
            )
        self._variables = variables
        self._trainer = SupervisedTrainer(
            config.optimizer, config.steps, self._loss, config.microbatch_size
        )
        self._score = jit(self._scores)

    @property
    def planned(self) -> bool:
        return isinstance(self.config.model, PlannerExecutorConfig)

    @property
    def end_id(self) -> int:
        """What a text ends with."""
        assert self.tokenizer.eos_id is not None  # encoding the data would have failed
        return self.tokenizer.eos_id

    @property
    def pad_id(self) -> int:
        """What rows are filled up with: PAD, or EOS where there is no PAD."""
        return self.end_id if self.tokenizer.pad_id is None else self.tokenizer.pad_id

    @abc.abstractmethod
    def rows(self, batch: Mapping[str, Array], key: PRNGKeyArray | None) -> Rows:
        """Rows of a batch; `key` draws what is random in training, None is for evaluation."""

    @abc.abstractmethod
    def held_out(
        self, source: str | None = None, limit: int | None = None
    ) -> tuple[Mapping[str, npt.NDArray[Any]], float]:
        """A batch of all held-out rows [E, …], and how many bytes a token that counts stands for.
        `source` are files to take instead of the run's; `limit` is how many rows at most, 0 for
        all, None as many as the config says."""

    def keep(self) -> None:
        """Copies the tokenizer's files and, where data come from files, held-out text."""
        data = self.config.data
        if self.cache is None:
            return
        kept = self.cache / _TOKENIZER
        if data.tokenizer != "bytes" and not kept.exists() and not _of_before(self.cache):
            with atomic_folder(kept) as folder:
                copy_tokenizer(data.tokenizer, folder)
        if data.train or data.test:
            self.cache.mkdir(exist_ok=True)
            with atomic_path(self.cache / _HELD_OUT) as path, opened(path, "wt") as file:
                file.writelines(json.dumps(record) + "\n" for record in self.held_out_records())

    @property
    def kept(self) -> str | None:
        """The held-out text that `keep` has left, if any."""
        file = None if self.cache is None else self.cache / _HELD_OUT
        return str(file) if file is not None and file.exists() else None

    @abc.abstractmethod
    def held_out_records(self) -> Iterator[dict[str, str]]:
        """Held-out texts as records that the config's `data` reads from a `.jsonl`."""

    def apply(self, params: Any, *args: Any, train: bool = False, **kwargs: Any) -> Any:
        model = language.network(self.config.model, train)
        return model.apply({"params": params}, *args, **kwargs)

    def init(self, key: PRNGKeyArray) -> State:
        weights_key, run_key = jax.random.split(key)
        given = self._variables
        params = given["params"] if given else language.init(self.config.model, weights_key)
        return self._trainer.init(run_key, params)

    def step(self, state: State, batch: Any) -> tuple[State, Metrics]:
        return self._trainer.step(state, batch)

    def _loss(
        self, variables: Mapping[str, Any], batch: Any, carry: Carry, key: PRNGKeyArray, step: Array
    ) -> tuple[Array, tuple[Carry, Metrics]]:
        config, params = self.config, variables["params"]
        row_key, noise_key, shown_key, drop_key = jax.random.split(key, 4)
        rows = self.rows(batch, row_key)
        tokens, split = rows["tokens"], rows["split"]
        options: Any = {"train": True, "rngs": {"dropout": drop_key}}
        metrics = {}
        regulariser = jnp.float32(0)
        if self.planned:
            temperature = config.plan.temperature(step, config.steps)
            read = rows.get("planned", (tokens, split))
            plan = self.apply(params, *read, noise_key, temperature, method="plan", **options)
            shown = jax.random.bernoulli(shown_key, 1 - config.plan.dropout, split.shape)
            logits = self.apply(
                params, tokens, split, plan.vectors, shown, method="execute", **options
            )
            if plan.logits is not None:
                information = code_information(plan.logits)
                regulariser = -config.plan.usage_weight * information
                metrics["code_information"] = pair(information, 1)
        else:
            logits = self.apply(params, tokens, **options)
        nats, count = self._nats(logits, rows)
        total, count = jnp.sum(nats), jnp.sum(count)
        metrics["bits_per_token"] = pair(total / math.log(2), count)
        metrics["tokens"] = pair(count, 1)
        objective = total + regulariser * count
        metrics["loss"] = pair(objective, count)
        return objective, (carry, metrics)

    def _nats(
        self, logits: Float[Array, "B T V"], rows: Rows
    ) -> tuple[Float[Array, " B"], Int[Array, " B"]]:
        """Cross entropy of the tokens that count, summed, and how many they are."""
        tokens, counted = rows["tokens"], rows["counted"]
        if self.planned:
            plans = self.config.model.num_plans
            tokens = weave(tokens, rows["split"], plans, self.config.model.plan_id)
            counted = weave(counted, rows["split"], plans, False)
            # The token after the plan is predicted by the last PLAN, the one before predicts none.
        targets, counted = tokens[:, 1:], counted[:, 1:]
        logits = logits[:, :-1]
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        losses = jax.nn.logsumexp(logits, axis=-1) - chosen
        return jnp.sum(jnp.where(counted, losses, 0), axis=1), jnp.sum(counted, axis=1)

    def _scores(self, params: Any, batch: Any, real: Bool[Array, " B"]) -> dict[str, Any]:
        """Nats of rows with their plan, another row's and none, and codes."""
        rows = self.rows(batch, None)
        rows = {**rows, "counted": rows["counted"] & real[:, None]}
        tokens, split = rows["tokens"], rows["split"]
        if not self.planned:
            nats, count = self._nats(self.apply(params, tokens), rows)
            return {"right": jnp.sum(nats), "count": jnp.sum(count)}
        plan = self.apply(params, *rows.get("planned", (tokens, split)), method="plan")
        others = jnp.roll(plan.vectors, max(1, len(real) // 2), axis=0)
        nobody = jnp.zeros(real.shape, bool)
        out: dict[str, Any] = {}
        for name, vectors, shown in (
            ("right", plan.vectors, None),
            ("shuffled", others, None),
            ("no", plan.vectors, nobody),
        ):
            logits = self.apply(params, tokens, split, vectors, shown, method="execute")
            nats, count = self._nats(logits, rows)
            out[name] = jnp.sum(nats)
        out["count"] = jnp.sum(count)
        if plan.logits is not None:
            codes = jax.nn.one_hot(jnp.argmax(plan.logits, -1), plan.logits.shape[-1])
            out["codes"] = jnp.sum(jnp.where(real[:, None, None], codes, 0), axis=0)
        return out

    @classmethod
    def model(cls, config: Any, weights: Mapping[str, Any], name: str) -> LanguageModel:
        return LanguageModel(config.model, weights, *_tokenizer(config, None), name)

    @classmethod
    def load(cls, config: Any, weights: Mapping[str, Any], folder: pathlib.Path) -> LanguageModel:
        tokenizer = _tokenizer(config, folder / "data")
        return LanguageModel(config.model, weights, *tokenizer, folder.resolve().name)

    @classmethod
    def with_sizes(cls, config: Any, sizes: Any) -> Any:
        """The sizes of the weights it starts from, but for what is free to choose; `ConfigError`
        where they are not of a language model."""
        require(
            isinstance(sizes, PlannerExecutorConfig | TransformerConfig),
            f"config.init_from: {config.init_from}: not the weights of a language model",
        )
        free = ["dropout", "dtype", "remat"]
        lengths = ["max_length", "planner_length"]
        if sizes.positions != "learned":  # then no weight depends on them
            free += [
                x for x in lengths if getattr(config.model, x, 0) > getattr(sizes, x, math.inf)
            ]
        kept = {name: getattr(config.model, name) for name in free}
        return dataclasses.replace(config, model=dataclasses.replace(sizes, **kept))

    def report(self, state: State, figures: Figures, folder: pathlib.Path) -> str:
        model = LanguageModel(
            self.config.model, self.weights(state), self.tokenizer, self.config.data.tokenizer
        )
        return language_report(figures, self.samples(model), self.example, folder)

    @abc.abstractmethod
    def samples(self, model: LanguageModel) -> list[str]:
        """Lines that show what the model writes."""

    def evaluate(self, state: State) -> Figures:
        """Figures on held-out text.

        `eval/bits_per_byte`; of a planner–executor also the same with another row's plan and with
        bare PLAN tokens, and `eval/code_perplexity`, the perplexity of the codes taken.
        """
        batch, bytes_per_token = self.held_out()
        return self.score(state.averaged, batch, bytes_per_token)

    def score(
        self, params: Any, batch: Mapping[str, npt.NDArray[Any]], bytes_per_token: float
    ) -> dict[str, Any]:
        """The figures of `evaluate` on rows [E, …] like those of `held_out`."""
        totals: dict[str, Any] = {}
        for rows, real in self._parts(batch):
            found = jax.device_get(self._score(params, rows, real))
            totals = {k: v + totals.get(k, 0) for k, v in found.items()}
        size = max(float(totals["count"]) * bytes_per_token, 1.0)
        figures = {"eval/bits_per_byte": float(totals["right"]) / math.log(2) / size}
        for name in (x for x in ("shuffled", "no") if x in totals):
            figures[f"eval/bits_per_byte_{name}_plan"] = float(totals[name]) / math.log(2) / size
        if "codes" in totals:
            shares = totals["codes"] / totals["codes"].sum(axis=-1, keepdims=True)
            entropy = -np.sum(shares * np.log(np.maximum(shares, 1e-12)), axis=-1)
            figures["eval/code_perplexity"] = float(np.exp(entropy).mean())
        figures["eval/bytes"] = round(size)
        return figures

    def _parts(self, batch: Mapping[str, npt.NDArray[Any]]) -> Any:
        """Parts of `batch` of equal size, and which rows of each are not there to fill it up."""
        count, size = len(next(iter(batch.values()))), self.config.batch_size
        for first in range(0, count, size):
            index = np.arange(first, first + size)
            yield {k: v[index % count] for k, v in batch.items()}, index < count


def _of_before(cache: pathlib.Path) -> bool:
    """Whether the run was begun by a version that kept no tokenizer with it."""
    steps = (cache.parent / "checkpoints").glob("[0-9]*")
    return any(steps) and not (cache / _TOKENIZER).exists()


def _tokenizer(config: Any, cache: pathlib.Path | None) -> tuple[Tokenizer, str]:
    """The tokenizer that is kept with the run, or else that of its configuration, and its name.

    Runs that keep none put BOS in front of each text, whatever their tokenizer says.
    """
    if cache is not None and (cache / _TOKENIZER).exists():
        name = str(cache / _TOKENIZER)
        return load_tokenizer(name), name
    name = config.data.tokenizer
    before = cache is not None and _of_before(cache)
    if before and name != "bytes" and not pathlib.Path(name).exists():
        raise DataError(
            f"data.tokenizer: {name}: there is no such file, and the run has no copy of it, as it "
            "was begun by an earlier version; expected the folder that training was started in"
        )
    return load_tokenizer(name, always_begin=before), name


def code_information(logits: Float[Array, "B M K"]) -> Float[Array, ""]:
    """Mutual information between rows and codes in nats, the mean over plan vectors."""

    def entropy(p: Array) -> Array:
        return -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-9)), axis=-1)

    shares = jax.nn.softmax(logits, axis=-1)
    return jnp.mean(entropy(shares.mean(axis=0)) - entropy(shares).mean(axis=0))

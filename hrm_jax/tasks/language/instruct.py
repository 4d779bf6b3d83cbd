"""A language model learns to answer instructions, by adapters or with all its weights."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import grain
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from hrm_jax.compilation import jit
from hrm_jax.data.identity import Identity
from hrm_jax.data.pipeline import batch_iterator
from hrm_jax.data.text.instructions import Instruction, Instructions, Message
from hrm_jax.data.text.packing import (
    Encoded,
    InstructionBatches,
    encode_instructions,
    rows_of,
)
from hrm_jax.data.text.templates import Template, chat_template_of
from hrm_jax.data.text.tokenizers import end_ids, suppressed_tokens
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError, require
from hrm_jax.files import atomic_path, opened
from hrm_jax.layers import lora
from hrm_jax.layers.packed import quantize
from hrm_jax.models.decoding import greedy
from hrm_jax.models.transformer import Transformer, TransformerConfig
from hrm_jax.tasks.base import Figures, Metrics, State, Task, pair
from hrm_jax.tasks.language.adapted import AdaptedModel
from hrm_jax.tasks.language.instruct_config import InstructConfig
from hrm_jax.tasks.language.report import SAMPLES, instruct_report
from hrm_jax.tasks.supervised import Carry, SupervisedTrainer

_HELD_OUT = "held_out.jsonl.gz"  # in the folder for a run's data
_GENERATED = 8  # answers that are generated at a time


class InstructTask(Task):
    """Answers count, and the token that ends them; prompts do not."""

    unit = "rows"
    shown: ClassVar[Mapping[str, str]] = {
        **Task.shown,
        "counted": "train/counted",
        "held-out": "eval/loss",
        "stops": "eval/stops",
    }

    def __init__(
        self,
        config: InstructConfig,
        data_cache: pathlib.Path | None = None,
        base: LanguageModel | None = None,
    ) -> None:
        """Makes the task; data are read when they are first needed. `base` is the model that
        `config.model` names. `ConfigError` where it is no plain decoder or has too few positions,
        `DataError` where it cannot be asked by the template."""
        require(base is not None, f"config.model: {config.model}: expected a model that was read")
        assert base is not None
        sizes = base.config
        if not isinstance(sizes, TransformerConfig):
            raise ConfigError(f"config.model: {config.model}: not a plain decoder")
        for name, room in (
            ("data.length", config.data.length),
            ("config.eval_new_tokens", config.eval_new_tokens + 1),
        ):
            if room > sizes.max_length:
                raise ConfigError(
                    f"{name}: {room} tokens, but {config.model} has {sizes.max_length} positions"
                )
        self.given, self.cache, self.base = config, data_cache, base
        self.sizes = dataclasses.replace(sizes, dtype=config.dtype, remat=config.remat)
        self.tokenizer = base.tokenizer
        chat = chat_template_of(base.tokenizer_name) if config.data.template == "chat" else ""
        self.template = Template(config.data.template, self.tokenizer, chat)
        self._trainer = SupervisedTrainer(
            config.optimizer, config.steps, self._loss, config.microbatch_size
        )
        self._base_nats: float | None = None

    @property
    def program(self) -> Any:
        """Tasks that have the same one have the same step, for the same shapes."""
        given = self.given
        frozen = json.dumps(dataclasses.asdict(given.lora), sort_keys=True)
        learnt = (given.optimizer, given.microbatch_size, given.end_weight, self.tokenizer.eos_id)
        return (type(self), self.sizes, given.adapt, frozen, *learnt)

    # Data

    @functools.cached_property
    def config(self) -> InstructConfig:
        """The configuration, with the steps that its epochs make."""
        given = self.given
        if not given.epochs:
            return given
        steps = math.ceil(given.epochs * len(self._rows) / given.batch_size)
        return dataclasses.replace(given, steps=steps)

    @functools.cached_property
    def parts(self) -> tuple[Instructions, Instructions]:
        """Training and held-out records."""
        return self.given.data.parts()

    @functools.cached_property
    def encoded(self) -> tuple[Encoded, Encoded]:
        """Both as tokens."""
        train, test = (self._encoded(part) for part in self.parts)
        return train, test

    def _encoded(self, part: Instructions) -> Encoded:
        data = self.given.data
        return encode_instructions(part, self.template, data.length, data.too_long)

    @functools.cached_property
    def _rows(self) -> Any:
        data = self.given.data
        return rows_of(self.encoded[0].examples, data.length, self.pad_id, data.packing)

    @property
    def pad_id(self) -> int:
        """What rows are filled up with: PAD, or EOS where there is no PAD."""
        pad, end = self.tokenizer.pad_id, self.tokenizer.eos_id
        assert end is not None
        return end if pad is None else pad

    @functools.cached_property
    def identity(self) -> Identity:
        (train, test), encoded = self.parts, self.encoded
        files = (train,) if not self.given.data.test else (train, test)
        return Identity.of(
            builder="instructions",
            version="1",
            seed=None if self.given.data.test else self.given.data.split_seed,
            counts={
                "rows_of_files": sum(x.rows for x in files),
                "invalid_rows": sum(len(x.invalid) for x in files),
                "training_records": len(encoded[0].examples),
                "held_out_records": len(encoded[1].examples),
                "shortened": sum(x.truncated for x in encoded),
                "too_long": sum(x.left_out for x in encoded),
            },
            train=train,
            test=test,
        )

    def batches(self) -> grain.DatasetIterator:
        given = self.given
        draws = (given.batch_size, given.seed, jax.process_index(), jax.process_count())
        return batch_iterator(InstructionBatches(self._rows, self.config.steps, *draws))

    def keep(self) -> None:
        """Copies the held-out records."""
        if self.cache is None:
            return
        self.cache.mkdir(exist_ok=True)
        with atomic_path(self.cache / _HELD_OUT) as path, opened(path, "wt") as file:
            for record in self.parts[1].records:
                file.write(json.dumps(_record(record)) + "\n")

    # Training

    def frozen(self, place: Callable[[Any], Array]) -> Any:
        if self.given.adapt == "full":
            return {}
        params, kind = self.base.variables["params"], self.given.base_dtype
        if kind in ("int8", "nf4"):
            return jax.tree.map(place, quantize(params, kind, self.given.dtype))
        return jax.tree.map(lambda x: place(np.asarray(x).astype(jnp.dtype(kind))), params)

    def init(self, key: PRNGKeyArray) -> State:
        weights_key, run_key = jax.random.split(key)
        params = self.base.variables["params"]
        if self.given.adapt == "lora":
            params = lora.init(self.given.lora, params, weights_key)
        return self._trainer.init(run_key, params)

    def step(self, state: State, batch: Any) -> tuple[State, Metrics]:
        return self._trainer.step(state, batch, batch["steps"][0])

    def variables(self, params: Any, frozen: Any, train: bool = False) -> dict[str, Any]:
        """What `model.apply` takes, of what is trained and what is frozen."""
        if self.given.adapt == "full":
            return {"params": params}
        return lora.variables(self.given.lora, frozen, params, train)

    def _loss(
        self, variables: Mapping[str, Any], batch: Any, carry: Carry, key: PRNGKeyArray, step: Array
    ) -> tuple[Array, tuple[Carry, Metrics]]:
        drop, adapters = jax.random.split(key)
        logits: Any = Transformer(self.sizes, train=True).apply(
            self.variables(variables["params"], variables["frozen"], train=True),
            batch["tokens"],
            segments=batch["segments"],
            rngs={"dropout": drop, "lora": adapters},
        )
        total, count = nats(logits, batch)
        real = jnp.sum(batch["segments"] > 0)
        ends = {**batch, "counted": self.ends(batch)}
        objective = total + (self.given.end_weight - 1) * nats(logits, ends)[0]
        return objective, (
            carry,
            {
                "loss": pair(total, count),
                "tokens": pair(count, 1),
                "counted": pair(count, real),
            },
        )

    def ends(self, batch: Any) -> Bool[Array, "B S"]:
        """Which tokens of answers end them: the end token, and the one before it, without which
        no answer comes to its end."""
        end = batch["tokens"] == self.tokenizer.eos_id
        return batch["counted"] & (end | jnp.pad(end[:, 1:], ((0, 0), (0, 1))))

    # Evaluation

    def held_out(
        self, source: str | None = None, limit: int | None = None
    ) -> tuple[Mapping[str, Any], float]:
        """Held-out records as rows, and the prompts to be answered; `source` are files to take
        instead of the run's, `limit` is how many answers at most, 0 for all, None as many as the
        config says. The second value is there for other tasks' sake."""
        given = self.given
        kept = None if self.cache is None else self.cache / _HELD_OUT
        if source is None and "parts" not in vars(self) and kept is not None and kept.exists():
            source = str(kept)
        part = self.parts[1] if source is None else given.data.read(source)
        encoded = self.encoded[1] if source is None else self._encoded(part)
        rows = rows_of(encoded.examples, given.data.length, self.pad_id)
        limit = given.eval_answers if limit is None else limit
        room = min(given.data.length, self.sizes.max_length - given.eval_new_tokens)
        prompts = [self.template.shortened(x.prompt, room) for x in part.records[: limit or None]]
        prompts = [x for x in prompts if x]
        return {**rows.batch(np.arange(len(rows))), **_filled(prompts, room, self.pad_id)}, 1.0

    def evaluate(self, state: State) -> Figures:
        """`eval/loss`, nats per token of the held-out answers, and `eval/perplexity`; `eval/stops`,
        the share of held-out answers, the likeliest tokens, that end by themselves; and
        `eval/base_loss` and `eval/base_perplexity`, before any training."""
        batch, _ = self.held_out()
        variables = self.variables(state.averaged, state.frozen)
        figures = self.score(variables["params"], batch, adapters=variables.get("lora"))
        if self._base_nats is None:
            base = state.frozen or self.base.variables["params"]
            self._base_nats = self.mean_loss(base, None, batch)
        return {
            **figures,
            "eval/base_loss": self._base_nats,
            "eval/base_perplexity": math.exp(self._base_nats),
        }

    def score(
        self,
        params: Any,
        batch: Mapping[str, npt.NDArray[Any]],
        bytes_per_token: float = 1.0,
        adapters: Any = None,
    ) -> dict[str, Any]:
        """The figures of `evaluate`, but those of the base, on what `held_out` gives."""
        loss = self.mean_loss(params, adapters, batch)
        ended = []
        prompts, lengths = batch["prompts"], batch["prompt_lengths"]
        for first in range(0, len(prompts), _GENERATED):
            index = np.arange(first, first + _GENERATED)
            part = index % len(prompts)
            answers = _answers(
                self.sizes,
                self.given.eval_new_tokens,
                (self.tokenizer.eos_id, *end_ids(self.tokenizer)),
                suppressed_tokens(self.tokenizer),
            )(params, adapters, prompts[part], lengths[part])
            ended += np.asarray(answers)[index < len(prompts)].tolist()
        return {
            "eval/loss": loss,
            "eval/perplexity": math.exp(loss),
            "eval/stops": float(np.mean(ended)),
            "eval/answers": len(ended),
            "eval/tokens": int(batch["counted"].sum()),
        }

    def mean_loss(self, params: Any, adapters: Any, batch: Mapping[str, Any]) -> float:
        """Nats per token of the answers of what `held_out` gives; `adapters` may be None."""
        total = count = 0.0
        rows, size = len(batch["tokens"]), self.given.batch_size
        for first in range(0, rows, size):
            index = np.arange(first, first + size)
            part = {k: batch[k][index % rows] for k in ("tokens", "segments", "counted")}
            part["counted"] = part["counted"] & (index < rows)[:, None]
            found = jax.device_get(_scores(self.sizes)(params, adapters, part))
            total, count = total + float(found[0]), count + float(found[1])
        return total / max(count, 1.0)

    # What becomes of it

    def weights(self, state: State) -> dict[str, Any]:
        name = "params" if self.given.adapt == "full" else "adapters"
        return {name: state.averaged}

    @classmethod
    def load(  # type: ignore[override]
        cls, config: Any, weights: Mapping[str, Any], folder: pathlib.Path, base: LanguageModel
    ) -> AdaptedModel:
        """The model with its adapters merged into it, in float32."""
        return _adapted(config, weights, folder.resolve().name, base)

    def adapted(self, state: State, name: str) -> AdaptedModel:
        """What `load` gives, of a state."""
        return _adapted(self.given, self.weights(state), name, self.base)

    def report(self, state: State, figures: Figures, folder: pathlib.Path) -> str:
        model = self.adapted(state, folder.name)
        return instruct_report(figures, self.samples(model), folder)

    def samples(self, model: AdaptedModel) -> list[str]:
        """What held-out instructions are answered with."""
        room = min(self.given.data.length, self.sizes.max_length - self.given.eval_new_tokens)
        lines = []
        for record in self.parts[1].records[:SAMPLES]:
            tokens = self.template.shortened(record.prompt, room)
            limit = self.given.eval_new_tokens
            given = model.generate(tokens, temperature=0.0, max_new_tokens=limit)
            asked = record.prompt if isinstance(record.prompt, str) else record.prompt[-1].content
            lines += [f"  {asked}", f"  → {given.text}", f"  ≠ {record.answer}"]
        return lines


def nats(logits: Float[Array, "B S V"], batch: Any) -> tuple[Array, Array]:
    """Cross entropy of the tokens that count, summed, and how many they are."""
    targets, counted = batch["tokens"][:, 1:], batch["counted"][:, 1:]
    logits = logits[:, :-1]
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - chosen
    return jnp.sum(jnp.where(counted, losses, 0)), jnp.sum(counted)


@functools.lru_cache
def _scores(sizes: TransformerConfig) -> Any:
    """One program for all tasks of a model."""

    def scores(params: Any, adapters: Any, batch: Any) -> tuple[Array, Array]:
        variables = {"params": params} if adapters is None else {"params": params, "lora": adapters}
        logits: Any = Transformer(sizes).apply(
            variables, batch["tokens"], segments=batch["segments"]
        )
        return nats(logits, batch)

    return jit(scores)


@functools.lru_cache
def _answers(
    sizes: TransformerConfig, count: int, ends: tuple[int, ...], suppressed: tuple[int, ...]
) -> Any:
    """Whether answers end by themselves; one program for all tasks of a model."""

    def answers(params: Any, adapters: Any, prompts: Array, lengths: Array) -> Array:
        given = greedy(
            sizes, params, prompts, lengths, count, ends[0], suppressed=suppressed, lora=adapters
        )
        return jnp.isin(given, jnp.array(ends)).any(axis=1)

    return jit(answers)


def _adapted(
    config: InstructConfig, weights: Mapping[str, Any], name: str, base: LanguageModel
) -> AdaptedModel:
    kind, adapters = None, None
    if config.adapt == "full":
        params = weights["params"]
    else:
        kind, adapters = config.lora, {"params": {}, **weights["adapters"]}
        params = lora.merge(kind, base.variables["params"], adapters).params
    chat = chat_template_of(base.tokenizer_name) if config.data.template == "chat" else ""
    return AdaptedModel(
        base.config,
        {"params": params},
        base.tokenizer,
        base.tokenizer_name,
        name,
        template=config.data.template,
        chat_template=chat,
        base=base,
        lora=kind,
        trained=adapters,
    )


def _filled(prompts: list[list[int]], length: int, pad: int) -> dict[str, npt.NDArray[Any]]:
    tokens = np.full((len(prompts), length), pad, np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    return {"prompts": tokens, "prompt_lengths": np.array([len(x) for x in prompts], np.int32)}


def _record(record: Instruction) -> dict[str, Any]:
    """As `read_instructions` reads it."""
    if isinstance(record.prompt, str):
        return {"prompt": record.prompt, "completion": record.answer}
    first = record.prompt[0]
    if len(record.prompt) == 1:
        return {"instruction": first.content, "input": first.input, "output": record.answer}
    turns = [*record.prompt, Message("assistant", record.answer)]
    return {"messages": [{"role": x.role, "content": x.content} for x in turns]}

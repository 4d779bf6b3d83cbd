"""INFINITO's language model: a frozen base, adapters, a memory, and Φ within a band."""

from __future__ import annotations

import functools
import json
import logging
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import grain
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
import optax.contrib
from jaxtyping import Array, PRNGKeyArray

from hrm_jax.compilation import jit
from hrm_jax.data.identity import Identity
from hrm_jax.data.pipeline import batch_iterator
from hrm_jax.data.text.documents import Documents
from hrm_jax.data.text.streams import Introductions, Stream, TextStreams, held_out_segments
from hrm_jax.data.text.token_arrays import TokenDocuments
from hrm_jax.data.text.tokenizers import suppressed_tokens
from hrm_jax.engine.language import LanguageModel
from hrm_jax.engine.sampling import Choice, Sampling
from hrm_jax.fields import ConfigError, require
from hrm_jax.files import atomic_path, opened
from hrm_jax.models.infinito import Memory, beyond
from hrm_jax.models.transformer import TransformerConfig
from hrm_jax.tasks.base import Figures, Metrics, State, Task, pair
from hrm_jax.tasks.infinito import meter
from hrm_jax.tasks.infinito.config import InfinitoConfig
from hrm_jax.tasks.infinito.model import InfinitoModel
from hrm_jax.tasks.infinito.network import Network, nats, repetition
from hrm_jax.tasks.infinito.report import infinito_report
from hrm_jax.tasks.supervised import Carry, SupervisedTrainer

log = logging.getLogger("hrm_jax")

_HELD_OUT = "held_out.jsonl.gz"  # in the folder for a run's data
_SHUFFLE_SEED = 0  # of the segments that do not belong together
MEMORIES = ("", "_other_memory", "_no_memory")
"""What held-out text is read with: its own, another text's, and none."""


def network_of(config: Any, base: LanguageModel | None) -> Network:
    """INFINITO of a configuration with `model`, `lora`, `memory`, `phi` and `data.length`, on its
    base; `ConfigError` where they do not go together."""
    require(base is not None, f"config.model: {config.model}: expected a model that was read")
    assert base is not None
    sizes = base.config
    if not isinstance(sizes, TransformerConfig) or not sizes.causal:
        raise ConfigError(f"config.model: {config.model}: not a plain decoder")
    require(
        not sizes.scan_layers, f"config.model: {config.model}: layers are scanned, expected not"
    )
    require(
        config.data.length <= sizes.max_length,
        f"data.length: {config.data.length} tokens, but {config.model} has {sizes.max_length} "
        "positions",
    )
    require(
        config.memory.layer <= sizes.num_layers,
        f"config.memory.layer: {config.memory.layer}, but {config.model} has {sizes.num_layers}",
    )
    return Network(sizes, config.lora, config.memory, config.phi, config.data.length)


class InfinitoTask(Task):
    """Reads texts segment by segment, and carries a memory."""

    unit = "texts"
    shown: ClassVar[Mapping[str, str]] = {
        **Task.shown,
        "phi": "train/phi_objective",
        "held-out": "eval/bits_per_byte",
        "meter": "eval/phi_meter",
    }

    def __init__(
        self,
        config: InfinitoConfig,
        data_cache: pathlib.Path | None = None,
        base: LanguageModel | None = None,
    ) -> None:
        """Makes the task; data are read when they are first needed. `base` is the model that
        `config.model` names."""
        self.config, self.cache = config, data_cache
        self.network = network_of(config, base)
        assert base is not None
        self.base, self.tokenizer = base, base.tokenizer
        params = base.variables["params"]
        taken = self.network.taken(params)
        for part, field in (("recall", "memory.slots is 0"), ("phi", "phi.kind is not 'nets'")):
            if part in params and part not in taken:
                log.warning("%s: its %s is not taken over: %s.", config.model, part, field)
        self._trainer = SupervisedTrainer(
            config.optimizer, config.steps, self._loss, config.microbatch_size
        )
        plateau = config.plateau
        self._plateau = optax.identity()
        if plateau.factor < 1:
            self._plateau = optax.contrib.reduce_on_plateau(
                plateau.factor, plateau.patience, accumulation_size=plateau.window
            )
        self._scores = jit(self.read_on)

    # Data

    @functools.cached_property
    def documents(self) -> tuple[Documents | TokenDocuments, Documents | TokenDocuments]:
        """Training and held-out documents."""
        return self.config.data.documents(self.tokenizer)

    @functools.cached_property
    def identity(self) -> Identity:
        train, test = self.documents
        unit = "tokens" if isinstance(train, TokenDocuments) else "bytes"
        return Identity.of(
            builder=f"infinito {self.config.data.kind}",
            version="1",
            seed=None,
            counts={
                "training_documents": len(train),
                f"training_{unit}": len(train.tokens),
                "held_out_documents": len(test),
                f"held_out_{unit}": len(test.tokens),
            },
            train=train,
            test=test,
        )

    @functools.cached_property
    def stream(self) -> Stream:
        """The training documents as one sequence."""
        return Stream(self.documents[0], self.tokenizer)

    def batches(self) -> grain.DatasetIterator:
        given, data = self.config, self.config.data
        draws = (given.batch_size, given.seed, jax.process_index(), jax.process_count())
        if data.kind == "text":
            return batch_iterator(TextStreams(self.stream, data.length, *draws))
        introductions = (self.stream, self.tokenizer, data.length, data.segments)
        return batch_iterator(Introductions(*introductions, *draws))

    def held_out(
        self, source: str | None = None, limit: int | None = None
    ) -> tuple[Mapping[str, npt.NDArray[Any]], float]:
        """Held-out texts, [rows, segments, …], and bytes per token; `source` are files to take
        instead of the run's, `limit` is how many texts, None or 0 as many as the config says."""
        data = self.config.data
        kept = None if self.cache is None else self.cache / _HELD_OUT
        if source is None and "documents" not in vars(self) and kept is not None and kept.exists():
            source = str(kept)
        documents = self.documents[1] if source is None else data.read(source, self.tokenizer)
        rows = limit or data.eval_rows
        stream = Stream(documents, self.tokenizer)
        text = documents
        if isinstance(text, TokenDocuments):
            text = text.decoded(self.tokenizer)
        bytes_per_token = len(text.tokens) / len(stream.tokens)
        if data.kind == "text":
            found = held_out_segments(stream, data.length, rows, data.eval_segments)
            if (count := found["tokens"].shape[1]) < data.eval_segments:
                log.warning(
                    "Held-out text: %d segments for each of %d rows, not data.eval_segments %d.",
                    *(count, rows, data.eval_segments),
                )
            return found, bytes_per_token
        seed = self.config.seed + 1  # training draws from other text too
        asked = Introductions(stream, self.tokenizer, data.length, data.segments, rows, seed)
        return asked.texts(rows), bytes_per_token

    def keep(self) -> None:
        """Copies the held-out text."""
        if self.cache is None:
            return
        test = self.documents[1]
        if isinstance(test, TokenDocuments):
            test = test.decoded(self.tokenizer)
        self.cache.mkdir(exist_ok=True)
        field = self.config.data.json_field
        with atomic_path(self.cache / _HELD_OUT) as path, opened(path, "wt") as file:
            file.writelines(json.dumps({field: test.text(i)}) + "\n" for i in range(len(test)))

    # Training

    def frozen(self, place: Callable[[Any], Array]) -> Any:
        return jax.tree.map(place, self.base.variables["params"])

    def init(self, key: PRNGKeyArray) -> State:
        weights_key, run_key = jax.random.split(key)
        trained = self.network.init(self.base.variables["params"], weights_key)
        memory = self.network.empty(self.config.batch_size)
        shared = self.config.memory.shared
        rest: dict[str, Any] = {"plateau": self._plateau.init(trained)}
        if shared:
            rest["memory"] = memory
        return self._trainer.init(run_key, trained, rows=None if shared else memory, carry=rest)

    def step(self, state: State, batch: Any) -> tuple[State, Metrics]:
        if self.config.plateau.factor == 1:
            return self._trainer.step(state, batch)
        state, metrics = self._trainer.step(state, batch, scale=state.carry["plateau"].scale)
        total, count = metrics["loss"]
        _, plateau = self._plateau.update((), state.carry["plateau"], value=total / count)
        return state.replace(carry={**state.carry, "plateau": plateau}), metrics

    def _loss(
        self, variables: Mapping[str, Any], batch: Any, carry: Carry, key: PRNGKeyArray, step: Array
    ) -> tuple[Array, tuple[Carry, Metrics]]:
        config, network = self.config, self.network
        shared = config.memory.shared
        memory: Memory = carry.rest["memory"] if shared else carry.rows
        if not shared:
            memory = memory.cleared(config.memory, batch["fresh"])
        tokens, counted = batch["tokens"], batch["counted"]
        trained = variables["params"]
        found, losses = network.study(variables["frozen"], trained, tokens, memory, key)
        total, count = jnp.where(counted, losses, 0).sum(), counted.sum()
        objective = total
        if config.lambda_phi:
            # One weight of a mean over rows, beside a mean over tokens.
            penalty = beyond(found.phi, config.phi_low, config.phi_high).mean()
            objective = total + config.lambda_phi * count * penalty
        after = network.remember(memory, found)
        metrics = {
            "loss": pair(objective, count),
            "bits_per_token": pair(total / math.log(2), count),
            "phi_objective": pair(found.phi.sum(), len(tokens)),
            "tokens": pair(counted.size, 1),
        }
        if config.memory.slots:
            metrics["memory_use"] = pair(after.use.mean(), 1)
            metrics["memory_threshold"] = pair(after.threshold.mean(), 1)
        if shared:
            return objective, (Carry(None, {**carry.rest, "memory": after}), metrics)
        return objective, (Carry(after, carry.rest), metrics)

    # Evaluation

    def read_on(
        self, variables: Any, batch: Mapping[str, Array], memories: tuple[str, ...] = MEMORIES
    ) -> dict[str, Any]:
        """Sums over texts [E, N, …], read segment after segment, with some of `MEMORIES`."""
        config, network = self.config, self.network
        rows = len(batch["tokens"])
        names = [x for x in memories if not x or config.memory.slots]
        if config.memory.shared:
            names = [x for x in names if x != "_other_memory"]  # there is but one
        zeros = jax.eval_shape(
            lambda x: meter.sums(config.meter, x, jax.random.key(0)),
            jax.ShapeDtypeStruct((rows, config.data.length, network.sizes.hidden_size), "float32"),
        )
        totals = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), zeros)
        right = {name: jnp.ones(rows, bool) for name in names}

        def segment(carry: Any, part: Any) -> Any:
            memory, totals, right = carry
            number, part = part
            if not config.memory.shared:
                memory = memory.cleared(config.memory, part["fresh"])
            given = {"": memory, "_other_memory": memory.others(), "_no_memory": None}
            tokens, counted = part["tokens"], part["counted"]
            found, lost = None, {}
            for name in names:
                reading = network.read(variables, tokens[:, :-1], given[name])
                found = reading if found is None else found
                losses = jnp.where(counted, nats(reading.logits, tokens[:, 1:]), 0)
                lost[name] = losses.sum()
                likeliest = reading.logits.argmax(-1) == tokens[:, 1:]
                right = {**right, name: right[name] & jnp.all(likeliest | ~counted, axis=1)}
            assert found is not None
            key = jax.random.fold_in(jax.random.key(config.meter.seed), number)
            more = meter.sums(config.meter, found.hidden, key)
            totals = jax.tree.map(jnp.add, totals, more)
            memory = network.remember(memory, found)
            told = {"nats": lost, "phi": found.phi.mean(), "use": memory.use.mean()}
            return (memory, totals, right), {**told, "writes": memory.writes.sum()}

        parts = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), dict(batch))
        numbers = jnp.arange(parts["tokens"].shape[0])
        (_, totals, right), told = jax.lax.scan(
            segment, (network.empty(rows), totals, right), (numbers, parts)
        )
        return {
            "nats": jax.tree.map(jnp.sum, told["nats"]),
            "count": batch["counted"].sum(),
            "phi": told["phi"].mean(),
            "use": told["use"].mean() if config.memory.slots else jnp.float32(0),
            "writes": told["writes"][-1],
            "meter": totals,
            "right": jax.tree.map(jnp.mean, right),
        }

    def evaluate(self, state: State) -> Figures:
        """Figures on held-out text, each text read from its beginning with an empty memory.

        `eval/bits_per_byte` and `eval/perplexity` (of a token); the former too with another text's
        memory and without any, and (`eval/bits_per_byte_shuffled`, `…_shuffled_no_memory`) of the
        same segments in an order in which they do not belong together; of introductions
        `eval/recalled`, the share of names that are told right, with these memories.
        `eval/phi_objective` is the Φ that is trained, `eval/phi_meter` that which is not, with its
        controls; `eval/o_information`; `eval/memory_use`, `eval/memory_writes`; and
        `eval/repetition`, the share of groups of four tokens that a continuation has had before.
        """
        batch, bytes_per_token = self.held_out()
        variables = self.network.variables(state.frozen, state.averaged)
        return self.score(variables["params"], batch, bytes_per_token, variables["lora"])

    def score(
        self,
        params: Any,
        batch: Mapping[str, npt.NDArray[Any]],
        bytes_per_token: float = 1.0,
        adapters: Any = None,
    ) -> dict[str, Any]:
        """The figures of `evaluate`, on what `held_out` gives; `adapters` are not in `params`."""
        config = self.config
        variables = {"params": params, **({} if adapters is None else {"lora": adapters})}
        found = jax.device_get(self._scores(variables, dict(batch)))
        size = max(float(found["count"]), 1.0)

        def bits(nats: Any) -> float:
            return float(nats) / math.log(2) / size / bytes_per_token

        figures: dict[str, Any] = {
            f"eval/bits_per_byte{name}": bits(x) for name, x in found["nats"].items()
        }
        figures["eval/perplexity"] = math.exp(float(found["nats"][""]) / size)
        if config.data.kind == "introductions":
            figures |= {f"eval/recalled{name}": float(x) for name, x in found["right"].items()}
        elif config.memory.slots:
            mixed = jax.device_get(self._scores(variables, _shuffled(batch)))["nats"]
            figures["eval/bits_per_byte_shuffled"] = bits(mixed[""])
            figures["eval/bits_per_byte_shuffled_no_memory"] = bits(mixed["_no_memory"])
        figures["eval/phi_objective"] = float(found["phi"])
        figures |= meter.figures(config.meter, found["meter"])
        if config.memory.slots:
            figures["eval/memory_use"] = float(found["use"])
            figures["eval/memory_writes"] = int(found["writes"])
        if config.eval_samples:
            written = self._continued(variables, batch)
            figures["eval/repetition"] = repetition(written)
        figures["eval/bytes"] = round(size * bytes_per_token)
        return figures

    def _continued(self, variables: Any, batch: Any) -> npt.NDArray[np.int32]:
        """What held-out beginnings, half a segment, are continued by."""
        config = self.config
        rows = np.arange(config.eval_samples) % len(batch["tokens"])
        half = config.data.length // 2
        begun = np.asarray(batch["tokens"])[rows, 0, :half].astype(np.int32)
        seeds = [
            Choice.of(Sampling(temperature=0.8, top_k=40, top_p=0.9, seed=i))
            for i in range(len(rows))
        ]
        choice = jax.tree.map(lambda *x: np.stack(x), *seeds)
        tokens, _ = self.network.write(
            variables,
            begun,
            config.eval_new_tokens,
            choice,
            suppressed_tokens(self.tokenizer),
        )
        return tokens[:, half:]

    # What becomes of it

    def weights(self, state: State) -> dict[str, Any]:
        return {"params": state.averaged}

    @classmethod
    def load(  # type: ignore[override]
        cls, config: Any, weights: Mapping[str, Any], folder: pathlib.Path, base: LanguageModel
    ) -> InfinitoModel:
        return InfinitoModel.of(network_of(config, base), weights["params"], base, folder.name)

    def report(self, state: State, figures: Figures, folder: pathlib.Path) -> str:
        model = InfinitoModel.of(
            self.network, jax.tree.map(np.asarray, state.averaged), self.base, folder.name
        )
        batch = self.held_out()[0]
        return infinito_report(self.config, self._before(batch), figures, model, batch, folder)

    def _before(self, batch: Mapping[str, npt.NDArray[Any]]) -> Figures:
        """Φ, trained and measured, of the weights that the run began with."""
        base = self.base.variables["params"]
        variables = self.network.variables(base, self.init(jax.random.key(self.config.seed)).params)
        found = jax.device_get(self._scores(variables, dict(batch)))
        measured = meter.figures(self.config.meter, found["meter"])
        return {"eval/phi_objective": float(found["phi"]), **measured}


def _shuffled(batch: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The same segments, in an order in which they do not belong together."""
    rows, segments = batch["tokens"].shape[:2]
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(rows * segments)
    mixed = {k: v.reshape(-1, *v.shape[2:])[order].reshape(v.shape) for k, v in batch.items()}
    mixed["fresh"] = np.zeros_like(batch["fresh"])
    mixed["fresh"][:, 0] = True
    return mixed

"""INFINITO's language model, ready to write."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from hrm_jax.data.text.tokenizers import end_ids, prompt_tokens, suppressed_tokens
from hrm_jax.engine.decoder import Decoder
from hrm_jax.engine.engine import Completion, Event
from hrm_jax.engine.language import LanguageModel
from hrm_jax.engine.requests import checked_tokens
from hrm_jax.engine.sampling import Choice, Sampling
from hrm_jax.layers import lora
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.tasks.infinito.network import PARTS, Network, repetition


@dataclasses.dataclass(frozen=True, eq=False)
class InfinitoModel(LanguageModel):
    """A decoder with its adapters and memory. `variables` have the adapters in them, and those of
    `PARTS` that there are, of which no other program knows.

    Attributes:
        network: Parts and sizes.
        base: The model before.
        lora, trained: Its adapters, see `hrm_jax.layers.lora`.
        parts: Those of `PARTS`: what reads the memory, and nets of Φ.
    """

    network: Network | None = None
    base: LanguageModel | None = None
    lora: LoraConfig | None = None
    trained: Mapping[str, Any] | None = None
    parts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, network: Network, trained: Mapping[str, Any], base: LanguageModel, name: str
    ) -> InfinitoModel:
        """Of what a run has trained."""
        parts = {k: trained[k] for k in PARTS if k in trained}
        adapters = {"params": {}, **{k: v for k, v in trained.items() if k not in parts}}
        params = lora.merge(network.lora, base.variables["params"], adapters).params
        return cls(
            base.config,
            {"params": {**params, **parts}},
            base.tokenizer,
            base.tokenizer_name,
            name,
            network=network,
            base=base,
            lora=network.lora,
            trained=adapters,
            parts=parts,
        )

    def _decoder(self) -> Decoder:
        raise ValueError(
            f"{self.name}: has a memory, which the engine and its server do not have; expected "
            "generate.py, or the model exported (export.py), which then is without"
        )

    def written(
        self, prompt: str | Sequence[int], **sampling: Any
    ) -> tuple[Completion, dict[str, Any]]:
        """Continues a prompt with the memory, and tells of it: "seconds", "tokens", "repetition",
        and of each segment that is full "phi", "perplexity" and "memory_use"; "consciousness" is
        what the original calls Φ from 0 to 1. `sampling` are fields of `Sampling`; `ValueError`
        for those that only the engine has."""
        options = Sampling(**sampling)
        for field in ("stop", "logprobs"):
            if getattr(options, field):
                raise ValueError(f"{field}: not for a model with a memory")
        tokenizer, network = self.tokenizer, self.network
        assert network is not None
        given = prompt_tokens(tokenizer, prompt) if isinstance(prompt, str) else list(prompt)
        given = checked_tokens("prompt", given, network.sizes.vocab_size)
        if not given:
            raise ValueError("prompt: empty, and the tokenizer has no token to begin with")
        start = time.perf_counter()
        ends = (*(() if options.ignore_eos else end_ids(tokenizer)), *options.stop_tokens)
        choice = jax.tree.map(lambda x: np.asarray(x)[None], Choice.of(options))
        tokens, told = network.write(
            self.variables,
            np.array([given], np.int32),
            options.max_new_tokens,
            choice,
            suppressed_tokens(tokenizer),
            ends=ends,
        )
        made = tokens[0, len(given) :].tolist()
        end = next((i for i, x in enumerate(made) if x in ends), None)
        kept = made if end is None else made[: end + 1]
        text = tokenizer.decode(made[:end])
        phi = [x["phi"] for x in told]
        report = {
            "seconds": time.perf_counter() - start,
            "tokens": len(kept),
            "repetition": repetition(np.array([kept], np.int32)),
            "phi": phi,
            "consciousness": [1 - float(np.exp(-max(x, 0.0))) for x in phi],
            "perplexity": [x["perplexity"] for x in told],
            "memory_use": [x["memory_use"] for x in told],
        }
        reason: Any = "length" if end is None else "stop"
        return Completion(text, tuple(kept), (), (), reason, len(given)), report

    def generate(self, prompt: str | Sequence[int], **sampling: Any) -> Completion:
        """Continues a prompt with the memory, as `written`."""
        return self.written(prompt, **sampling)[0]

    def stream(self, prompt: str | Sequence[int], **sampling: Any) -> Iterator[Event]:
        """As `generate`, in one event, without probabilities."""
        found = self.generate(prompt, **sampling)
        yield Event(found.tokens[-1], found.text, math.nan, finish_reason=found.finish_reason)

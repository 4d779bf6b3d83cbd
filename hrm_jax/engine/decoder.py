"""What text can be generated from: a Transformer, its weights and its tokenizer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hrm_jax.data.text.tokenizers import Tokenizer, end_ids
from hrm_jax.engine.slots import Programs
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.models.transformer import TransformerConfig

Adapters = Mapping[str, tuple[LoraConfig, Mapping[str, Any]]]
"""Low-rank adapters by name, as of `hrm_jax.layers.lora`."""

Prepare = Callable[[list[int]], tuple[list[int], np.ndarray | None]]
"""From a prompt's tokens to those that the model is fed and what is added to their embeddings,
float32 [n, D], or None."""


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A model to generate from. Raises `ValueError` where an end token of the tokenizer is
    suppressed, or a suppressed token does not exist."""

    config: TransformerConfig
    params: Mapping[str, Any]
    tokenizer: Tokenizer
    suppressed: tuple[int, ...] = ()  # tokens that are never chosen
    prepare: Prepare | None = None  # None feeds the prompt as it is
    chat_template: str = ""  # Jinja, in Hugging Face's form; "" takes the server's
    name: str = ""  # shown as the model's id
    adapters: Adapters = dataclasses.field(default_factory=dict)  # that a request may name
    devices: int = 1  # that the model is divided over, see `hrm_jax.engine.division`

    def __post_init__(self) -> None:
        size = self.config.vocab_size
        for token in self.suppressed:
            if not 0 <= token < size:
                raise ValueError(f"suppressed: expected tokens in [0, {size}), got {token}")
            if token in end_ids(self.tokenizer):
                raise ValueError(f"suppressed: {token} is the tokenizer's end token")

    @functools.cached_property
    def programs(self) -> Programs:
        """Weights on the device and what was compiled for them, for all engines of this model."""
        adapters = list(self.adapters.values())
        return Programs(self.config, self.params, self.suppressed, adapters, self.devices)

    def prepared(self, ids: list[int]) -> tuple[list[int], np.ndarray | None]:
        return (ids, None) if self.prepare is None else self.prepare(ids)

"""A language model with adapters in it, which answers instructions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from hrm_jax.data.text.templates import SPANISH, Kind, Template, instruction
from hrm_jax.engine.decoder import Decoder
from hrm_jax.engine.engine import Completion
from hrm_jax.engine.language import LanguageModel
from hrm_jax.layers.lora import LoraConfig


@dataclasses.dataclass(frozen=True, eq=False)
class AdaptedModel(LanguageModel):
    """A model that has been taught to answer; `variables` have the adapters in them.

    Attributes:
        template: How it is asked.
        chat_template: The model's own, of which "chat" makes use.
        base: The model before; its name is that of the configuration's `model`.
        lora: What kind of adapters it has; None where all weights were trained.
        trained: These adapters, see `hrm_jax.layers.lora`.
    """

    template: Kind = "spanish"
    chat_template: str = ""
    base: LanguageModel | None = None
    lora: LoraConfig | None = None
    trained: Mapping[str, Any] | None = None

    @functools.cached_property
    def asking(self) -> Template:
        return Template(self.template, self.tokenizer, self.chat_template)

    @functools.cached_property
    def decoder(self) -> Decoder:
        """As chats are rendered: by the template of the training."""
        template = SPANISH if self.template == "spanish" else self.chat_template
        return dataclasses.replace(self._decoder(), chat_template=template)

    def answer(self, text: str, about: str = "", **sampling: Any) -> Completion:
        """Answers an instruction, and what it is about; `sampling` as for `generate`. By default
        it takes the likeliest tokens."""
        sampling = {"temperature": 0.0, **sampling}
        return self.generate(self.asking.prompt(instruction(text, about)), **sampling)

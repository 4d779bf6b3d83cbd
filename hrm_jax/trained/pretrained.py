"""Models that come with the package."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Literal

import hrm_jax.trained
from hrm_jax.data.text.tokenizers import load_tokenizer
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError
from hrm_jax.interop.hugging_face import from_hugging_face

PRETRAINED = {"spanish-gpt2": "bytes"}
"""Names of the models that come with the package, and of their tokenizers."""


def pretrained_folder(name: str) -> pathlib.Path:
    """The folder of a model that comes with the package, as Hugging Face's transformers has it;
    `ConfigError` for a name of none."""
    if name not in PRETRAINED:
        raise ConfigError(f"{name!r}: expected one of {', '.join(PRETRAINED)}")
    package = pathlib.Path(hrm_jax.trained.__path__[0]).parent
    return package / "pretrained" / name.replace("-", "_")


@functools.cache
def pretrained(name: str, dtype: Literal["float32", "bfloat16"] = "float32") -> LanguageModel:
    """A model that comes with the package; the card in its folder says what it was trained on.
    Weights are kept, and is computed, in `dtype`."""
    folder = pretrained_folder(name)
    config, params = from_hugging_face(folder, dtype=dtype)
    config = dataclasses.replace(config, dtype=dtype)
    tokenizer = PRETRAINED[name]  # its folder has it too, for transformers
    return LanguageModel(config, {"params": params}, load_tokenizer(tokenizer), tokenizer, name)

"""Language models in files, with their configuration beside the weights."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from hrm_jax.fields import ConfigError, from_mapping, naming, to_mapping
from hrm_jax.files import read_json, write_json
from hrm_jax.interop.files import FORMATS, read_state_dict, split_name, write_state_dict
from hrm_jax.interop.hugging_face import from_hugging_face, save_pretrained
from hrm_jax.interop.torch_names import from_torch_names, to_torch_names, unwrapped
from hrm_jax.models.language import init
from hrm_jax.models.planner_executor import PlannerExecutorConfig
from hrm_jax.models.transformer import TransformerConfig

LANGUAGE_FORMATS = (*FORMATS, "hugging_face")


Config = TransformerConfig | PlannerExecutorConfig


@dataclasses.dataclass(frozen=True)
class _Written:
    """What `<name>.config.json` holds."""

    model: Config


def export_language_model(
    config: Config,
    params: Mapping[str, Any],
    output: str | os.PathLike[str],
    format: str,
    tokenizer: str | os.PathLike[str] | None = None,
) -> list[pathlib.Path]:
    """Writes a language model; `import_language_model` reads it back bit for bit.

    With the format "hugging_face", `output` is a folder (see `save_pretrained`). With one of
    `files.FORMATS` it is a file for the weights, under the names of PyTorch modules (see
    `to_torch_names`), with a suffix of the format; `<name>.config.json` is written beside it,
    without a tokenizer.
    """
    if format not in LANGUAGE_FORMATS:
        raise ValueError(f"format: expected one of {', '.join(LANGUAGE_FORMATS)}, got {format!r}")
    if format == "hugging_face":
        if not isinstance(config, TransformerConfig):
            raise ConfigError("model.name: transformers has no planner–executor")
        return save_pretrained(output, config, params, tokenizer)
    weights = pathlib.Path(output)
    write_state_dict(weights, to_torch_names(params), format)
    beside = _beside(weights)
    write_json(beside, to_mapping(_Written(config)))
    return [weights, beside]


def import_language_model(path: str | os.PathLike[str]) -> tuple[Config, dict[str, Any]]:
    """Reads a language model: its configuration and its parameters, float32.

    It is in the weights that `export_language_model` wrote, with `<name>.config.json` beside them,
    or in a folder with a GPT-2 or Llama of transformers (see `from_hugging_face`). A `ConfigError`
    names what is wrong in the configuration, or does not fit it.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return from_hugging_face(path)
    tensors = read_state_dict(path)
    beside = _beside(path)
    written = read_json(beside)
    with naming(beside):
        config = from_mapping(_Written, written, os.fspath(beside), written).model
        shapes = parameter_shapes(config)
    with naming(path):
        anchor = "embed_tokens.weight"
        plain = isinstance(config, TransformerConfig)
        names = unwrapped(tensors, anchor if plain else f"executor.{anchor}")
        return config, from_torch_names({k: tensors[v] for k, v in names.items()}, shapes)


def parameter_shapes(config: Config) -> Any:
    """Nested parameters of a language model, `jax.ShapeDtypeStruct`s in the place of arrays."""
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


def _beside(weights: pathlib.Path) -> pathlib.Path:
    """The configuration's file."""
    return weights.with_name(f"{split_name(weights)[0]}.config.json")

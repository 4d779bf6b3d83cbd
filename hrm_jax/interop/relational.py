"""Relational networks, and their control, in files with their configuration beside the weights."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from hrm_jax.fields import from_mapping, to_mapping
from hrm_jax.files import read_json, write_json
from hrm_jax.interop.files import FORMATS, read_state_dict, split_name, write_state_dict
from hrm_jax.interop.torch_names import from_torch_names, to_torch_names
from hrm_jax.models.relational import MLPConfig, RelationalConfig, init
from hrm_jax.paths import path_of


@dataclasses.dataclass(frozen=True)
class _Written:
    """What `<name>.config.json` holds: `shape` is that of one world's inputs."""

    model: RelationalConfig | MLPConfig
    shape: tuple[int, ...]


def export_relational(
    config: RelationalConfig,
    params: Mapping[str, Any],
    shape: Sequence[int],
    output: str | os.PathLike[str],
    format: str,
) -> list[pathlib.Path]:
    """Writes a network for inputs of which each has this shape; `import_relational` reads it back
    bit for bit.

    The weights have names and layouts of PyTorch (see `to_torch_names`): g, f and what comes before
    them are lists of Linear layers, the first of g on [o_i, o_j, q] side by side. The configuration
    goes beside them, into `<name>.config.json`.
    """
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    weights = path_of(output)
    write_state_dict(weights, to_torch_names(params), format)
    beside = _beside(weights)
    write_json(beside, to_mapping(_Written(config, tuple(shape))))
    return [weights, beside]


def import_relational(path: str | os.PathLike[str]) -> tuple[RelationalConfig, dict[str, Any]]:
    """Reads what `export_relational` wrote: the configuration and the parameters, float32. A
    `ConfigError` names what is wrong in the configuration, or does not fit it."""
    path = path_of(path)
    tensors = read_state_dict(path)
    beside = _beside(path)
    stored = read_json(beside)
    written = from_mapping(_Written, stored, os.fspath(beside), stored)
    draw = functools.partial(init, written.model, shape=written.shape)
    return written.model, from_torch_names(tensors, jax.eval_shape(draw, jax.random.key(0)))


def _beside(weights: pathlib.Path) -> pathlib.Path:
    """The configuration's file."""
    return weights.with_name(f"{split_name(weights)[0]}.config.json")

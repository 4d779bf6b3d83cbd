"""HRM's configuration in the layout of the PyTorch reference's `all_config.yaml`, and back."""

from __future__ import annotations

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from hrm_jax.configs import ConfigError, from_mapping, require, unknown_field
from hrm_jax.files import read_json
from hrm_jax.interop.hrm_names import PUZZLE_TABLE, bare_names
from hrm_jax.models.hrm import HRMConfig

ARCH_NAME = "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1"
LOSS_NAME = "losses@ACTLossHead"
LOSS_TYPES = ("stablemax_cross_entropy", "softmax_cross_entropy")

# What the reference takes from the data set; we write it down beside the training settings.
_FROM_DATA = ("seq_len", "vocab_size", "num_puzzle_identifiers")
_FIELDS = tuple(field.name for field in dataclasses.fields(HRMConfig))
# Those without which the reference does not start. The others it does not write, or may not.
_REQUIRED = (
    *("hidden_size", "num_heads", "expansion", "H_layers", "L_layers", "H_cycles", "L_cycles"),
    *("pos_encodings", "halt_max_steps", "halt_exploration_prob"),
)
# Fields of TRM's fork of the reference: they stand for another network.
_OTHER_NETWORK = ("mlp_t", "no_ACT_continue", "puzzle_emb_len")


def to_reference_config(
    config: HRMConfig, *, loss_type: str = LOSS_TYPES[0], **extra: Any
) -> dict[str, Any]:
    """Writes a configuration as the reference does: the network under `arch`.

    Args:
        config: Sizes. `q_target` and `halt_threshold`, which the reference does not know, are only
            written where they are not what the reference does.
        loss_type: One of `LOSS_TYPES`.
        **extra: Further fields of the top level, such as `lr` or `epochs`; plain values.

    Returns:
        Nested dict of plain values, ready for YAML or JSON.

    Raises:
        ConfigError: `loss_type` is unknown, or a field in `extra` is written already.
    """
    require(
        loss_type in LOSS_TYPES,
        f"arch.loss.loss_type: expected one of {', '.join(LOSS_TYPES)}, got {loss_type!r}",
    )
    values = dataclasses.asdict(config)
    if config.q_target == "second_forward":
        del values["q_target"], values["halt_threshold"]
    top = {name: values.pop(name) for name in _FROM_DATA}
    arch = {"name": ARCH_NAME, "loss": {"name": LOSS_NAME, "loss_type": loss_type}, **values}
    for name in extra:
        require(name not in {"arch", *_FIELDS}, f"{name}: is written from the configuration")
    return {"arch": arch, **top, **extra}


def from_reference_config(
    source: Mapping[str, Any] | str | os.PathLike[str],
    state_dict: Mapping[str, Any] | None = None,
    *,
    seq_len: int | None = None,
) -> HRMConfig:
    """Reads a configuration with the reference's field names.

    Args:
        source: A mapping, or the path of a .yaml, .yml or .json file with one: either flat, or
            with the network's fields under `arch`. Fields of training and data are ignored.
        state_dict: Tensors by the reference's names. `vocab_size`, `num_puzzle_identifiers` and,
            with learned positions, `seq_len` are taken from their shapes where `source` has none.
        seq_len: Grid tokens; goes before what `source` says.

    Returns:
        The configuration. Fields that the reference does not write have its defaults.

    Raises:
        ConfigError: A field is missing, misspelt or has a value that HRM does not know; or the
            configuration is of another network.
        OSError: The file cannot be read.
    """
    values = dict(source) if isinstance(source, Mapping) else _read_mapping(source)
    arch = values.pop("arch", {})
    require(isinstance(arch, Mapping), f"arch: expected a group of fields, got {arch!r}")
    values |= arch
    name = values.get("name", ARCH_NAME) if arch else ARCH_NAME
    require(name == ARCH_NAME, f"arch.name: expected {ARCH_NAME}, got {name!r}")
    for name in values:
        require(name not in _OTHER_NETWORK, f"{name}: a field of TRM, not of HRM")
        if name not in _FIELDS and difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0.85):
            raise ConfigError(unknown_field(name, _FIELDS))
    known = {name: values[name] for name in _FIELDS if values.get(name) is not None}
    missing = [name for name in _REQUIRED if name not in known]
    require(not missing, f"{', '.join(missing)}: missing in the reference's configuration")
    if seq_len is not None:
        known["seq_len"] = seq_len
    prefix = from_mapping(
        HRMConfig, {"seq_len": 1, "vocab_size": 1} | known, "model"
    ).puzzle_emb_len
    known = _inferred(prefix, state_dict or {}) | known
    for name in ("seq_len", "vocab_size"):
        require(name in known, f"{name}: {_HELP[name]}")
    return from_mapping(HRMConfig, known, "model")


_HELP = {
    "seq_len": "not in the configuration, and the weights do not tell it; give seq_len=",
    "vocab_size": "not in the configuration, and there are no weights to tell it",
}


def _read_mapping(path: str | os.PathLike[str]) -> dict[str, Any]:
    path = pathlib.Path(path)
    if path.suffix == ".json":
        return read_json(path)
    require(path.suffix in (".yaml", ".yml"), f"{path}: expected a .yaml, .yml or .json file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    require(isinstance(values, dict), f"{path}: expected fields, got {type(values).__name__}")
    return values


def _inferred(prefix: int, state_dict: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that the tensors' shapes tell."""
    names = bare_names(state_dict)
    rows = {
        bare: np.shape(state_dict[names[bare]])[0]
        for bare in ("embed_tokens.embedding_weight", "embed_pos.embedding_weight", PUZZLE_TABLE)
        if bare in names and np.ndim(state_dict[names[bare]]) == 2
    }
    found = {}
    if "embed_tokens.embedding_weight" in rows:
        found["vocab_size"] = rows["embed_tokens.embedding_weight"]
    if PUZZLE_TABLE in rows:
        found["num_puzzle_identifiers"] = rows[PUZZLE_TABLE]
    if "embed_pos.embedding_weight" in rows:
        found["seq_len"] = rows["embed_pos.embedding_weight"] - prefix
    return found

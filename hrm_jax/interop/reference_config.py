"""Configurations in the layout of the PyTorch references' `all_config.yaml`, and back."""

from __future__ import annotations

import dataclasses
import difflib
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import yaml

from hrm_jax.data.errors import reading
from hrm_jax.fields import (
    ConfigError,
    from_mapping,
    naming,
    require,
    require_memory,
    shown,
    unknown_field,
)
from hrm_jax.files import read_json
from hrm_jax.interop.hrm_names import PUZZLE_TABLE, bare_names
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.recurrent import RecurrentConfig
from hrm_jax.models.trm import TRMConfig
from hrm_jax.tasks.puzzles.losses import LossName

# What the references take from the data set; we write it down beside the training settings.
_FROM_DATA = ("seq_len", "vocab_size", "num_puzzle_identifiers")
# Those without which neither reference starts. The others it does not write, or may not.
_REQUIRED = (
    *("hidden_size", "num_heads", "expansion", "H_layers", "L_layers", "H_cycles", "L_cycles"),
    *("pos_encodings", "halt_max_steps", "halt_exploration_prob"),
)
# Values of fields of TRM with which its repository builds the same HRM.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "mlp_t": (False, None),
    "no_ACT_continue": (False, None),
}
_PREFIX = "puzzle_emb_len"  # another, where it is what HRM has in any case
_ALIKE = "puzzle_emb_lr"  # a field of their training that looks like a misspelt one of TRM

# The references' names of their classes, and fields that they want and we do not have.
_REFERENCES: dict[type[RecurrentConfig], tuple[str, dict[str, Any]]] = {
    HRMConfig: ("hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1", {}),
    TRMConfig: (
        "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
        {"H_layers": 0, "no_ACT_continue": True},  # the former is ignored
    ),
}


# The fields of networks that no reference has, and what they are named by then.
_OF_UNITS = ("mixer", "unit_width", "units", "values", "restart_noise", "restart_after")


def _name(kind: type[RecurrentConfig], mixer: Any) -> str:
    """What the reference calls the network, or we do where it has none of this kind."""
    return f"hrm_jax@{kind.variant}_units" if mixer == "units" else _REFERENCES[kind][0]


def _known(kind: Any) -> list[str]:
    """What a network's fields are, ours and those that only its reference has."""
    return [*(field.name for field in dataclasses.fields(kind)), *_REFERENCES[kind][1]]


def to_reference_config(config: RecurrentConfig, loss: LossName = "stablemax") -> dict[str, Any]:
    """Writes a configuration as the reference does, in plain values: the network under `arch`, and
    the token loss of its training.

    `q_target`, `halt_threshold` and `width_multiple`, which the references do not know, are only
    written where they are not what the reference does. A network with `mixer` "units" has no
    reference, and says so by its name.
    """
    constant = _REFERENCES[type(config)][1]
    values = dataclasses.asdict(config)
    del values["attention"]  # how it is computed, not what
    if config.bootstraps:
        del values["q_target"], values["halt_threshold"]
    if isinstance(config, TRMConfig) and config.halt_threshold == 0:
        del values["halt_threshold"]
    if config.mixer != "units":
        values = {name: value for name, value in values.items() if name not in _OF_UNITS}
    if config.width_multiple == 256:
        del values["width_multiple"]
    top = {name: values.pop(name) for name in _FROM_DATA}
    name = _name(type(config), config.mixer)
    head = {"name": "losses@ACTLossHead", "loss_type": f"{loss}_cross_entropy"}
    return {"arch": {"name": name, "loss": head, **values, **constant}, **top}


def from_reference_config(
    source: Mapping[str, Any] | str | os.PathLike[str],
    state_dict: Mapping[str, Any] | None = None,
    *,
    seq_len: int | None = None,
    kind: type[RecurrentConfig] = HRMConfig,
) -> RecurrentConfig:
    """Reads a configuration with a reference's field names; a `ConfigError` names a wrong one.

    Args:
        source: A mapping, or the path of a .yaml, .yml or .json file with one: either flat, or
            with the network's fields under `arch`. Fields of training and data are ignored; those
            that are not written have the defaults of `kind`.
        state_dict: Tensors by the reference's names. `vocab_size`, `num_puzzle_identifiers` and,
            with learned positions or an MLP over them, `seq_len` are taken from their shapes
            where `source` has none.
        seq_len: Grid tokens; goes before what `source` says.

    The network's class, `arch.name`, is told by its last part: each repository has HRM in another
    module. Fields of the other network are taken where they change nothing (see `_NEUTRAL`).
    """
    if not isinstance(source, Mapping):
        with naming(source):
            return from_reference_config(
                _read_mapping(source), state_dict, seq_len=seq_len, kind=kind
            )
    values = dict(source)
    arch = values.pop("arch", {})
    require(isinstance(arch, Mapping), f"arch: expected a group of fields, got {shown(arch)}")
    values |= arch
    fields = [field.name for field in dataclasses.fields(kind)]
    wanted = _name(kind, values.get("mixer"))
    name = values.get("name", wanted)
    if arch or "@" in str(name):
        same = _class(name) == _class(wanted)
        require(same, f"arch.name: expected {wanted}, got {shown(name)}")
    others = {name: other for other in _REFERENCES for name in _known(other)}
    for name in values:
        if name in _known(kind) or name == _ALIKE:
            continue
        if name in others and name != _PREFIX and values[name] not in _NEUTRAL.get(name, ()):
            owner = others[name].variant.upper()
            raise ConfigError(f"{name}: a field of {owner}, not of {kind.variant.upper()}")
        if name not in others and difflib.get_close_matches(str(name), fields, n=1, cutoff=0.85):
            raise ConfigError(unknown_field(name, fields))
    require(
        "no_ACT_continue" not in _known(kind) or values.get("no_ACT_continue", True) is True,
        "no_ACT_continue: expected true; TRM is built without q_continue here",
    )
    known = {name: values[name] for name in fields if values.get(name) is not None}
    for name, value in known.items():
        require(
            not isinstance(value, str) or "${" not in value,
            f"{name}: {shown(value)} is a reference that Hydra has not resolved; give the "
            "all_config.yaml that training has written beside its checkpoints",
        )
    missing = [name for name in _REQUIRED if name in fields and name not in known]
    require(not missing, f"{', '.join(missing)}: missing in the reference's configuration")
    if seq_len is not None:
        known["seq_len"] = seq_len
    prefix = from_mapping(kind, {"seq_len": 1, "vocab_size": 1} | known, "model", known).prefix_len
    if _PREFIX not in fields:
        told = values.get(_PREFIX) or prefix
        same = told == prefix or not known.get("puzzle_emb_ndim")
        require(same, f"{_PREFIX}: {shown(told)}, but the puzzle_emb_ndim of HRM fills {prefix}")
    known = _inferred(prefix, state_dict or {}) | known
    untold = "not in the configuration, and the weights do not tell it"
    require("seq_len" in known, f"seq_len: {untold}; give seq_len=")
    require("vocab_size" in known, f"vocab_size: {untold}")
    made = from_mapping(kind, known, "model", known)
    require_memory(made.weight_bytes)
    return made


def reference_loss(source: Mapping[str, Any] | str | os.PathLike[str]) -> LossName:
    """The token loss that a configuration names at `arch.loss.loss_type`, "stablemax" where none
    is named; `source` is as for `from_reference_config`, `ConfigError` for another loss."""
    if not isinstance(source, Mapping):
        with naming(source):
            return reference_loss(_read_mapping(source))
    head = source.get("arch", source).get("loss") or {}
    told = head.get("loss_type") if isinstance(head, Mapping) else head
    names: dict[Any, LossName] = {None: "stablemax"}
    names |= {f"{name}_cross_entropy": name for name in get_args(LossName)}
    require(
        not isinstance(told, (dict, list)) and told in names,
        f"arch.loss.loss_type: expected one of {', '.join(list(names)[1:])}, got {shown(told)}",
    )
    return names[told]


def _class(path: Any) -> str:
    """The name of a class without its module."""
    return re.split(r"[@.]", str(path))[-1]


def _read_mapping(path: str | os.PathLike[str]) -> dict[str, Any]:
    path = pathlib.Path(path)
    if path.suffix == ".json":
        return read_json(path)
    require(path.suffix in (".yaml", ".yml"), f"{path}: expected a .yaml, .yml or .json file")
    with reading(path, "the fields of a configuration"):
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not valid YAML: {error}") from error
    require(isinstance(values, dict), f"{path}: expected fields, got {type(values).__name__}")
    return values


def _inferred(prefix: int, state_dict: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that the tensors' shapes tell."""
    names = bare_names(state_dict)

    def rows(bare: str) -> int | None:
        found = bare in names and np.ndim(state_dict[names[bare]]) == 2
        return np.shape(state_dict[names[bare]])[0] if found else None

    mlp_over_positions = rows("L_level.layers.0.mlp_t.down_proj.weight")
    positions = rows("embed_pos.embedding_weight") or mlp_over_positions
    found = {
        "vocab_size": rows("embed_tokens.embedding_weight"),
        "num_puzzle_identifiers": rows(PUZZLE_TABLE),
        "seq_len": positions and positions - prefix,
    }
    return {name: number for name, number in found.items() if number is not None}

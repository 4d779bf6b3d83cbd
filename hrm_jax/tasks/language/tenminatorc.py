"""TenMinaTorc's `config.json` as fields of a run on text."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Mapping
from typing import Any

from hrm_jax.fields import ConfigError, unknown_field
from hrm_jax.files import read_json

log = logging.getLogger("hrm_jax")

_FIELDS: Mapping[str, Mapping[str, str]] = {
    "model": {
        "vocab_size": "model.vocab_size",
        "d_model": "model.hidden_size",
        "num_heads": "model.num_heads",
        "num_layers": "model.num_layers",
        "d_ff": "model.ffn_size",
        "max_len": "model.max_length",
        "dropout": "model.dropout",
    },
    "training": {
        "batch_size": "batch_size",
        "learning_rate": "optimizer.learning_rate",
        "max_iterations": "control.max_iterations",
        "early_stop_patience": "early_stopping.patience",
        "max_tokens": "control.max_tokens",
        "token_limit_iterations": "control.token_limit_iterations",
    },
}
_ELSEWHERE = "checkpoint_dir"  # is where the workdir says


def with_json(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """A nested configuration with what the file `from_json` says, which is then "".

    The file has the groups "model" and "training" with TenMinaTorc's fields (manual, §
    Entrenamiento End-to-End). An iteration is an evaluation, as in `ControlConfig`. `usual` is the
    configuration without anything that the user has set. Raises `ConfigError` for an unknown
    field, and for one that the user has set to something else, too.
    """
    path = values["from_json"]
    given = read_json(path)
    result: dict[str, Any] = {**copy.deepcopy(dict(values)), "from_json": ""}
    for group, fields in given.items():
        if group not in _FIELDS or not isinstance(fields, Mapping):
            raise ConfigError(f"{path}: {unknown_field(group, _FIELDS)}")
        for name, value in fields.items():
            if (group, name) == ("training", _ELSEWHERE):
                log.info("%s: %s: checkpoints lie in the workdir (--workdir)", path, name)
                continue
            if name not in _FIELDS[group]:
                known = (*_FIELDS[group], _ELSEWHERE) if group == "training" else _FIELDS[group]
                raise ConfigError(f"{path}: {unknown_field(f'{group}.{name}', known)}")
            place = _FIELDS[group][name]
            now = _at(values, place)
            if now not in (_at(usual, place), value):
                raise ConfigError(
                    f"config.{place}: {now!r}, but {path} has {group}.{name}: {value!r}; expected "
                    "it in one of the two"
                )
            *groups, last = place.split(".")
            functools.reduce(dict.__getitem__, groups, result)[last] = value
    return result


def _at(values: Mapping[str, Any], place: str) -> Any:
    return functools.reduce(lambda group, name: group[name], place.split("."), values)

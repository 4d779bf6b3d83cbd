"""Agents in files: under our own names with their configuration, or Stable-Baselines3's."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hrm_jax.data.errors import DataError
from hrm_jax.fields import to_mapping
from hrm_jax.files import write_json
from hrm_jax.interop.files import FORMATS, read_state_dict, split_name, write_state_dict
from hrm_jax.interop.stable_baselines3 import from_state_dict, read_zip, to_state_dict
from hrm_jax.models.actor_critic import ActorCriticConfig, QNetworkConfig
from hrm_jax.rl.statistics import Statistics

Config = ActorCriticConfig | QNetworkConfig
POLICY_FORMATS = (*FORMATS, "stable_baselines3")


def export_policy(policy: Any, output: str | os.PathLike[str], format: str) -> list[pathlib.Path]:
    """Writes what `hrm_jax.load` returns of an agent.

    With one of `files.FORMATS` under the names of its tree (`params.policy_body.dense_0.kernel`,
    `statistics.mean`), and `<name>.config.json` beside it; `import_policy` reads it back bit for
    bit. With "stable_baselines3" a PyTorch state dict for `policy.load_state_dict` of its PPO or
    DQN with the same sizes; observations are normalised in the first layer then.
    """
    if format not in POLICY_FORMATS:
        raise ValueError(f"format: expected one of {', '.join(POLICY_FORMATS)}, got {format!r}")
    path = pathlib.Path(output)
    if format == "stable_baselines3":
        statistics = None
        if getattr(policy.run, "normalize_observations", False):
            statistics = Statistics(**policy.variables["statistics"])
        tensors = to_state_dict(policy.variables["params"], statistics)
        write_state_dict(path, tensors, "torch")
        return [path]
    flat = flatten_dict(policy.variables, sep=".")
    write_state_dict(path, {name: np.asarray(x) for name, x in flat.items()}, format)
    beside = path.with_name(f"{split_name(path)[0]}.config.json")
    write_json(beside, to_mapping(policy.run))
    return [path, beside]


def import_policy(path: pathlib.Path, config: Config) -> tuple[Config, Mapping[str, Any]]:
    """Reads the weights of an agent: of `export_policy`, or of Stable-Baselines3's `save` (`.zip`)
    or state dict. The configuration returned has the sizes that such a state dict tells, and the
    activation of `config`. Raises `DataError` where the file is none of them."""
    tensors = read_zip(path) if path.suffix == ".zip" else read_state_dict(path)
    if not any(name.startswith("params.") for name in tensors):
        found, params = from_state_dict(tensors, activation=config.activation)
        if type(found) is not type(config):
            raise DataError(f"{path}: another kind of network than the run's")
        return found, {"params": params}
    return config, unflatten_dict(tensors, sep=".")

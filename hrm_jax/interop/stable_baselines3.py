"""Policies with the names of Stable-Baselines3: its `ActorCriticPolicy` and `QNetwork`."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError, reading
from hrm_jax.interop.files import Path, Tensors, read_state_dict
from hrm_jax.models.actor_critic import ActorCriticConfig, QNetworkConfig
from hrm_jax.reading import Allowance

Params = Mapping[str, Any]


def to_state_dict(params: Params, statistics: Any = None) -> Tensors:
    """Weights of an `ActorCritic` or a `QNetwork` under the other's names.

    A body that is shared is written for both. Observations that are normalised by `statistics` (an
    object with `mean` and `variance`, of one axis) are so in the first layer; they are not clipped
    there.

    Raises:
        DataError: The other's networks have no such layers: convolutions, or a dueling head.
    """
    if "state_head" in params:
        raise DataError("model.dueling: Stable-Baselines3's QNetwork has one head")
    value_only = "policy_head" not in params
    if value_only:
        net = {**_body(params["body"], statistics), "head": params["value_head"]}
        layers = _sequence("q_net.q_net", net)
        return {**layers, **_sequence("q_net_target.q_net", net)}
    tensors: Tensors = {}
    if "log_std" in params:
        tensors["log_std"] = np.asarray(params["log_std"])
    for name in ("policy", "value"):
        body = params["body"] if "body" in params else params[f"{name}_body"]
        tensors |= _sequence(f"mlp_extractor.{name}_net", _body(body, statistics))
    tensors |= _layer("action_net", params["policy_head"])
    return {**tensors, **_layer("value_net", params["value_head"])}


def _body(body: Params, statistics: Any) -> dict[str, Any]:
    if any(name.startswith("conv") for name in body):
        raise DataError("model.filters: only networks of dense layers can be written so")
    layers: dict[str, Any] = {name: dict(body[name]) for name in sorted(body, key=_number)}
    if statistics is not None and layers:
        first = next(iter(layers.values()))
        mean, scale = np.asarray(statistics.mean), np.sqrt(np.asarray(statistics.variance) + 1e-8)
        kernel = np.asarray(first["kernel"]) / scale[:, None]
        first |= {"kernel": kernel, "bias": np.asarray(first["bias"]) - mean @ kernel}
    return layers


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def _sequence(prefix: str, layers: Mapping[str, Params]) -> Tensors:
    """Of a `Sequential` in which an activation follows each layer."""
    return {
        name: array
        for number, layer in enumerate(layers.values())
        for name, array in _layer(f"{prefix}.{2 * number}", layer).items()
    }


def _layer(name: str, layer: Params) -> Tensors:
    return {
        f"{name}.weight": np.ascontiguousarray(np.asarray(layer["kernel"]).T),
        f"{name}.bias": np.asarray(layer["bias"]),
    }


def from_state_dict(
    tensors: Mapping[str, npt.NDArray[Any]], **fields: Any
) -> tuple[ActorCriticConfig | QNetworkConfig, dict[str, Any]]:
    """The configuration and weights of a policy's state dict; the target network is left out.

    The names do not tell the activation: `fields` are those of the configuration, without which it
    has the other's defaults (tanh for an `ActorCriticPolicy`, ReLU for a `QNetwork`).

    Raises:
        DataError: A tensor is missing, or one is none of such a policy.
    """
    left = dict(tensors)

    def layer(name: str) -> Params:
        try:
            kernel, bias = left.pop(f"{name}.weight"), left.pop(f"{name}.bias")
        except KeyError as error:
            raise DataError(f"no policy of Stable-Baselines3: {error} is missing") from error
        return {"kernel": np.asarray(kernel).T, "bias": np.asarray(bias)}

    def body(prefix: str) -> dict[str, Params]:
        found = re.compile(re.escape(prefix) + r"\.(\d+)\.weight")
        numbers = sorted(int(match[1]) for match in map(found.fullmatch, left) if match)
        return {f"dense_{i}": layer(f"{prefix}.{n}") for i, n in enumerate(numbers)}

    config: Any = ActorCriticConfig
    params: dict[str, Any] = {}
    if any(name.startswith("q_net.") for name in tensors):
        left = {k: v for k, v in left.items() if not k.startswith("q_net_target.")}
        dense = body("q_net.q_net")
        if not dense:
            raise DataError("no policy of Stable-Baselines3: q_net.q_net has no layers")
        _, head = dense.popitem()
        bodies, config = {"body": dense}, QNetworkConfig
        params = {**bodies, "value_head": head}
    else:
        bodies = {f"{x}_body": body(f"mlp_extractor.{x}_net") for x in ("policy", "value")}
        params = {
            **bodies,
            "policy_head": layer("action_net"),
            "value_head": layer("value_net"),
        }
        if "log_std" in left:
            params["log_std"] = np.asarray(left.pop("log_std"))
    if left:
        raise DataError(f"tensors that no such policy has: {', '.join(sorted(left))}")
    sizes = {tuple(len(layer["bias"]) for layer in each.values()) for each in bodies.values()}
    if len(sizes) > 1:
        raise DataError(f"policy and value have other hidden layers: {sizes}; expected the same")
    return config(hidden=sizes.pop(), **fields), params


def read_zip(path: Path) -> Tensors:
    """The state dict of the policy in a file of `PPO.save` or `DQN.save`: of its `policy.pth`, and
    nothing else of it, which would be unpickled. Raises `DataError` where there is none."""
    with reading(path, "a zip of Stable-Baselines3"), tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(path) as archive:
            Allowance(path).take(archive.getinfo("policy.pth").file_size)
            extracted = archive.extract("policy.pth", folder)
        return read_state_dict(extracted)

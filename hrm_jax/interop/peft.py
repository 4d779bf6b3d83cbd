"""Adapters as Hugging Face's peft keeps them: adapter_config.json and named tensors.

The package peft is not needed, neither to write nor to read.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from hrm_jax.data.errors import DataError
from hrm_jax.fields import ConfigError, from_mapping, naming, require, shown
from hrm_jax.files import atomic_folder, atomic_path, read_json, write_json
from hrm_jax.interop.files import Tensors, read_state_dict
from hrm_jax.interop.torch_names import matching, with_torch_names
from hrm_jax.layers import lora
from hrm_jax.layers.lora import LoraConfig

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
_LEAVES = {"a": "lora_A.weight", "b": "lora_B.weight", "magnitude": "lora_magnitude_vector"}

# Our fields, and theirs.
_FIELDS = {
    **{"r": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "bias": "bias"},
    **{"target_modules": "target_modules", "modules_to_save": "modules_to_save"},
    **{"use_rslora": "use_rslora", "use_dora": "use_dora"},
    **{"rank_pattern": "rank_pattern", "alpha_pattern": "alpha_pattern"},
}
# What says nothing of what an adapter computes, or is in the tensors' names: with what is written.
_DESCRIBED: Mapping[str, Any] = {
    **{"auto_mapping": None, "base_model_name_or_path": None, "revision": None},
    **{"peft_version": "0.21.2", "inference_mode": True, "fan_in_fan_out": False},
    **{"exclude_modules": None, "layers_pattern": None, "layers_to_transform": None},
    **{"ensure_weight_tying": False, "megatron_core": "megatron.core", "qalora_group_size": 16},
}
# What must be as here; the first value is written.
_MUST: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),  # others change the base
    "loftq_config": ({}, None),
    **dict.fromkeys(("lora_bias", "use_qalora"), (False, None)),
    **dict.fromkeys(("use_bdlora", "trainable_token_indices"), (None, False)),
    **dict.fromkeys(("alora_invocation_tokens", "arrow_config", "corda_config"), (None,)),
    **dict.fromkeys(("eva_config", "kasa_config", "layer_replication"), (None,)),
    **dict.fromkeys(("lora_ga_config", "megatron_config", "monteclora_config"), (None,)),
    **dict.fromkeys(("target_parameters", "velora_config"), (None, [])),
}


def save_adapter(
    folder: str | os.PathLike[str],
    config: LoraConfig,
    params: Mapping[str, Any],
    adapters: Mapping[str, Any],
    base_model: str | None = None,
) -> list[pathlib.Path]:
    """Writes a folder that `PeftModel.from_pretrained` of peft reads onto the exported base.

    `params` are those of the base, or their shapes; `base_model` is written as its name. The
    folder appears when all is in it; one that was there before is replaced if there is nothing in
    it that this function does not write.
    """
    folder = pathlib.Path(folder)
    if folder.is_dir():
        other = sorted({path.name for path in folder.iterdir()} - {CONFIG, _WEIGHTS[0]})
        if other:
            raise FileExistsError(f"{folder}: holds {other[0]!r}; expected a new folder")
    gpt2, tied = lora.is_gpt2(params), "lm_head" not in params
    adapted = {names[1] for layer, *_ in lora.adapted(config, params) for names in layer.names}
    tensors = {
        _PREFIX + _based(name, adapted): np.asarray(x, np.float32, order="C")
        for name, x in _their_tensors(adapters, gpt2).items()
    }
    settings = {name: values[0] for name, values in _MUST.items()} | dict(_DESCRIBED)
    settings |= _settings(config, params) | {
        "base_model_name_or_path": base_model,
        "fan_in_fan_out": gpt2,
    }
    embedding = _PREFIX + lora.names_of(("embed_tokens",), None, gpt2)[1]
    if tied and f"{embedding}.weight" in tensors:  # peft would leave the head as it was
        tensors[f"{_PREFIX}lm_head.weight"] = tensors[f"{embedding}.weight"].copy()
        settings["modules_to_save"] = sorted({*settings["modules_to_save"], "lm_head"})
        settings["ensure_weight_tying"] = True
    with atomic_folder(folder) as temporary:
        with atomic_path(temporary / _WEIGHTS[0]) as path:
            safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
        write_json(temporary / CONFIG, dict(sorted(settings.items())))
    return sorted(folder.iterdir())


def load_adapter(
    folder: str | os.PathLike[str], params: Mapping[str, Any]
) -> tuple[LoraConfig, dict[str, Any]]:
    """Reads what peft or `save_adapter` has written, for a base with these parameters (or their
    shapes); layers may be scanned. Embeddings and head may have other sizes than the base's.

    Raises:
        DataError: A file is damaged, or not what its name says.
        ConfigError: A field of the configuration, which the message names, has a value that is not
            supported; or the adapter does not fit the base.
    """
    folder = pathlib.Path(folder)
    path = next((folder / name for name in _WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise FileNotFoundError(f"{folder}: expected {' or '.join(_WEIGHTS)}")
    given = read_json(folder / CONFIG)
    where = os.fspath(folder / CONFIG)
    tensors = _bare(read_state_dict(path), path)
    gpt2 = lora.is_gpt2(params)
    with naming(path):
        tensors = _without_tied_head(tensors, params, gpt2)
    with naming(where):
        config = _read_config(given, tensors, params, gpt2)
    with naming(path):
        sized = _resized(params, tensors, gpt2)
        fresh = functools.partial(lora.init, config)
        template = jax.eval_shape(fresh, sized, jax.random.key(0))

        def to_theirs(adapters: Mapping[str, Any]) -> dict[str, Any]:
            return _their_tensors(adapters, gpt2)

        expected = {name: x.shape for name, x in jax.eval_shape(to_theirs, template).items()}
        arrays = jax.tree.map(jnp.asarray, matching(tensors, expected))
        # Numbers only change their places, so that the transpose of the map is its inverse.
        [adapters] = jax.linear_transpose(to_theirs, template)(arrays)
        return config, adapters


def _their_tensors(adapters: Mapping[str, Any], gpt2: bool) -> dict[str, Any]:
    """Tensors under peft's names, without its prefix and "base_layer"."""
    found = {}
    for name, x in with_torch_names(adapters["lora"], leaves={}).items():
        module, _, leaf = name.rpartition(".")
        theirs = lora.names_of((module,), None, gpt2)[1]
        found[f"{theirs}.{_LEAVES[leaf]}"] = x if leaf == "magnitude" else x.T
    named = with_torch_names(adapters["params"])
    for name, x in named.items():
        module, _, leaf = name.rpartition(".")
        if gpt2 and re.search(r"\.[qkv]_proj$", module):
            if not module.endswith(".q_proj"):
                continue
            parts = [
                named[re.sub("q_proj$", f"{part}_proj", module) + f".{leaf}"] for part in "qkv"
            ]
            x = jnp.concatenate(parts)
        if gpt2 and leaf == "weight" and module.endswith("_proj"):  # Conv1D: [in, out]
            x = x.T
        found[f"{_their_module(module, gpt2)}.{leaf}"] = x
    return found


def _their_module(name: str, gpt2: bool) -> str:
    if gpt2:  # q, k and v are one
        name = re.sub(r"\.[qkv]_proj$", ".qkv_proj", name)
    return lora.names_of((name,), None, gpt2)[1]


def _based(name: str, adapted: set[str]) -> str:
    """With what peft puts between a layer that has an adapter and its own parameters."""
    module, _, leaf = name.rpartition(".")
    own = module in adapted and leaf not in _LEAVES.values()
    return f"{module}.base_layer.{leaf}" if own else name


def _bare(tensors: Tensors, path: pathlib.Path) -> Tensors:
    """Tensors under names without peft's prefixes, "base_layer" and an adapter's name."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        bare = re.sub(r"^(base_model\.model\.)+|\.base_layer(?=\.)", "", name)
        bare = re.sub(r"\.(lora_[AB])\.(?!weight$)\w+\.weight$", r".\1.weight", bare)
        bare = re.sub(r"\.(lora_magnitude_vector)(\.\w+){0,2}$", r".\1", bare)
        bare = re.sub(r"\.modules_to_save\.\w+(?=\.)", "", bare)
        if bare in found:
            raise DataError(f"{path}: {name}: another tensor is the same without an adapter's name")
        found[bare] = tensor
    return found


def _without_tied_head(tensors: Tensors, params: Mapping[str, Any], gpt2: bool) -> Tensors:
    """Where the head is the embedding over again, both must have been saved, and be the same."""
    if "lm_head" in params:
        return tensors
    head = tensors.get("lm_head.weight")
    name = lora.names_of(("embed_tokens",), None, gpt2)[1] + ".weight"
    embedding = tensors.get(name)
    if head is None and embedding is None:
        return tensors
    require(
        head is not None
        and embedding is not None
        and head.shape == embedding.shape
        and bool((head == embedding).all()),
        f"{name} and lm_head.weight: expected both, and the same, since the base ties its head to "
        "its embedding (in peft modules_to_save with both, and ensure_weight_tying)",
    )
    return {k: v for k, v in tensors.items() if k != "lm_head.weight"}


def _read_config(
    given: Mapping[str, Any], tensors: Tensors, params: Mapping[str, Any], gpt2: bool
) -> LoraConfig:
    for name, allowed in _MUST.items():
        value = given.get(name, allowed[0])
        if not any(value == x and type(value) is type(x) for x in allowed):
            expected = " or ".join(map(repr, allowed))
            raise ConfigError(f"{name}: {shown(value)} is not supported, expected {expected}")
    require("peft_type" in given, "peft_type: missing, expected 'LORA'")
    known = {*_FIELDS.values(), *_DESCRIBED, *_MUST}
    for name in given.keys() - known:
        value = given[name]
        harmless = value is None or value is False or value in ({}, [])
        require(harmless, f"{name}: {shown(value)} is not supported, expected it left out")
    values = {ours: given[theirs] for ours, theirs in _FIELDS.items() if theirs in given}
    values = {name: value for name, value in values.items() if value is not None}
    saved = values.get("modules_to_save") or []
    require(isinstance(saved, list), f"modules_to_save: expected a list, got {shown(saved)}")
    for path in (("embed_tokens",), ("lm_head",)):  # peft saves those of a resized vocabulary too
        ours, theirs = lora.names_of(path, None, gpt2)
        listed = [x for x in saved if isinstance(x, str) and theirs.endswith(x)]
        if f"{theirs}.weight" in tensors and not listed:
            saved = [*saved, ours]
        if path[0] not in params:
            saved = [x for x in saved if x not in listed]
    config = from_mapping(LoraConfig, values | {"modules_to_save": saved}, "lora", values)
    return _targeted(config, tensors, params)


def _targeted(config: LoraConfig, tensors: Tensors, params: Mapping[str, Any]) -> LoraConfig:
    """The configuration with the layers that there are adapters for.

    Where other fields of peft's choose among `target_modules`, it names them one by one.
    """
    end = ".lora_A.weight"
    found = {name.removesuffix(end) for name in tensors if name.endswith(end)}
    every = {names[1]: names[0] for layer in lora.layers(params) for names in layer.names}
    if other := found - every.keys():
        raise ConfigError(f"target_modules: the base has no layer {min(other)}")
    target = config.target_modules
    if target is not None and target != lora.ALL_LINEAR:
        fits = {x for x, ours in every.items() if lora.fits(target, (ours, x))}
        if fits == found:
            return config
    return dataclasses.replace(
        config, target_modules=tuple(every[name] for name in every if name in found)
    )


def _resized(params: Mapping[str, Any], tensors: Tensors, gpt2: bool) -> dict[str, Any]:
    """Shapes of the base, with as many tokens as the adapter's embedding and head have."""
    shapes: dict[str, Any] = jax.eval_shape(lambda x: x, params)
    for module, leaf, axis in (("embed_tokens", "embedding", 0), ("lm_head", "kernel", 1)):
        tensor = tensors.get(lora.names_of((module,), None, gpt2)[1] + ".weight")
        if tensor is not None and tensor.ndim == 2 and module in shapes:
            before = shapes[module][leaf]
            shape = list(before.shape)
            shape[axis] = len(tensor)
            changed = jax.ShapeDtypeStruct(tuple(shape), before.dtype)
            shapes[module] = {**shapes[module], leaf: changed}
    return shapes


def _settings(config: LoraConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Our fields as theirs, with transformers' names; patterns name layers one by one."""
    gpt2 = lora.is_gpt2(params)
    chosen: list[str] = []
    ranks, alphas = {}, {}
    for layer, rank, scales in lora.adapted(config, params):
        for (_, name), scale in zip(layer.names, scales.tolist(), strict=True):
            chosen.append(name)
            alpha = _number(round(scale * (rank**0.5 if config.use_rslora else rank), 6))
            if rank != config.r:
                ranks[name] = rank
            if alpha != config.alpha:
                alphas[name] = alpha
    every = [names[1] for layer in lora.layers(params) for names in layer.names]
    short = sorted({".".join(name.split(".")[-2 if gpt2 else -1 :]) for name in chosen})
    alike = [name for name in every if lora.fits(tuple(short), (name,))] == chosen
    kept = {".".join(path[:-1]) for path in lora.saved_paths(config, params)}
    saved = {_their_module(module, gpt2) for module in kept}
    fields = {ours: getattr(config, ours) for ours in _FIELDS}
    fields |= {
        "alpha": _number(config.alpha),
        "target_modules": short if alike else chosen,
        "modules_to_save": sorted(saved) or None,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
    }
    return {theirs: fields[ours] for ours, theirs in _FIELDS.items()}


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value

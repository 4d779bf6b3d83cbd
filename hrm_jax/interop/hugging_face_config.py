"""Configurations of GPT-2 and Llama as the config.json of Hugging Face's transformers, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from hrm_jax.fields import ConfigError, from_mapping, naming, require, require_memory, shown
from hrm_jax.models.transformer import TransformerConfig

Kind = Literal["gpt2", "llama"]

_ARCHITECTURES: Mapping[Kind, str] = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}
_TITLES: Mapping[Kind, str] = {"gpt2": "GPT-2", "llama": "Llama"}

# Our kinds of feed-forward layers, and the names of their activations; the first is written.
_ACTIVATIONS: Mapping[Kind, Mapping[str, tuple[str, ...]]] = {
    "gpt2": {"gelu": ("gelu_new", "gelu_pytorch_tanh"), "relu": ("relu",)},
    "llama": {"swiglu": ("silu", "swish"), "geglu": ("gelu",)},
}

# Our field, theirs, and what transformers takes where it is left out; sizes must be there.
_MUST = object()
_FIELDS: Mapping[Kind, tuple[tuple[str, str, Any], ...]] = {
    "gpt2": (
        ("vocab_size", "vocab_size", _MUST),
        ("max_length", "n_positions", _MUST),
        ("hidden_size", "n_embd", _MUST),
        ("num_layers", "n_layer", _MUST),
        ("num_heads", "n_head", _MUST),
        ("ffn_size", "n_inner", None),
        ("feed_forward", "activation_function", "gelu_new"),
        ("norm_eps", "layer_norm_epsilon", 1e-5),
        ("dropout", "resid_pdrop", 0.1),
        ("tie_head", "tie_word_embeddings", True),
        ("init_std", "initializer_range", 0.02),
    ),
    "llama": (
        ("vocab_size", "vocab_size", _MUST),
        ("max_length", "max_position_embeddings", _MUST),
        ("hidden_size", "hidden_size", _MUST),
        ("num_layers", "num_hidden_layers", _MUST),
        ("num_heads", "num_attention_heads", _MUST),
        ("key_heads", "num_key_value_heads", None),
        ("head_size", "head_dim", None),
        ("ffn_size", "intermediate_size", _MUST),
        ("feed_forward", "hidden_act", "silu"),
        ("norm_eps", "rms_norm_eps", 1e-6),
        ("bias", "attention_bias", False),
        ("rope_theta", "rope_theta", 10000.0),
        ("tie_head", "tie_word_embeddings", False),
        ("init_std", "initializer_range", 0.02),
    ),
}

# Fields of config.json that change what is computed, with the values that are understood.
_UNDERSTOOD: Mapping[Kind, Mapping[str, tuple[Any, ...]]] = {
    "gpt2": {
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "quantization_config": (None,),
    },
    "llama": {
        "sliding_window": (None,),
        "partial_rotary_factor": (None, 1),
        "quantization_config": (None,),
    },
}


def to_settings(config: TransformerConfig) -> dict[str, Any]:
    """The content of config.json, without special tokens, and without a Llama's dropout."""
    kind = kind_of(config)
    settings = {theirs: getattr(config, ours) for ours, theirs, _ in _FIELDS[kind]}
    activation = {"gpt2": "activation_function", "llama": "hidden_act"}[kind]
    settings[activation] = _ACTIVATIONS[kind][config.feed_forward][0]
    if kind == "gpt2":
        settings |= {"embd_pdrop": config.dropout, "attn_pdrop": 0.0}
    else:
        rope = {"rope_type": "default", "rope_theta": config.rope_theta}  # for transformers 5
        settings |= {"rope_parameters": rope, "mlp_bias": config.bias, "attention_dropout": 0.0}
    kinds = {"architectures": [_ARCHITECTURES[kind]], "model_type": kind, "dtype": "float32"}
    return {**kinds, **settings}


def from_settings(settings: Mapping[str, Any], where: str) -> tuple[Kind, TransformerConfig]:
    """What the content of config.json describes, which is called `where` in messages.

    Sizes must be there; what else is left out has the defaults of transformers. A `ConfigError`
    names the field by which the model is of another type, or that is not supported.
    """
    kind: Any = settings.get("model_type")
    known = " or ".join(map(repr, _ARCHITECTURES))
    if kind not in tuple(_ARCHITECTURES):
        raise ConfigError(f"{where}: model_type: expected {known}, got {shown(kind)}")
    for name, understood in _UNDERSTOOD[kind].items():
        value = settings.get(name, understood[0])
        if value not in understood:
            raise ConfigError(
                f"{where}: {name}: {shown(value)} is not supported, only {understood[0]}"
            )
    values: dict[str, Any] = {}
    for ours, theirs, default in _FIELDS[kind]:
        values[ours] = settings.get(theirs, default)
        require(values[ours] is not _MUST, f"{where}: {theirs}: missing")
    with naming(where):
        values |= _of_gpt2(values) if kind == "gpt2" else _of_llama(values, settings)
        config = _checked(kind, values)
        require_memory(config.weight_bytes)
    if config.key_heads == config.num_heads:
        config = dataclasses.replace(config, num_kv_heads=0)
    if config.head_size * config.num_heads == config.hidden_size:
        config = dataclasses.replace(config, head_dim=0)
    return kind, config


def _checked(kind: Kind, values: Mapping[str, Any]) -> TransformerConfig:
    """Our configuration; what is wrong with it is said in their names too."""
    try:
        return from_mapping(TransformerConfig, values, "model", values)
    except ConfigError as error:
        for ours, theirs, _ in _FIELDS[kind]:
            if str(error).startswith(f"model.{ours}: ") and ours != theirs:
                raise ConfigError(f"{theirs} ({error})") from error
        raise


def kind_of(config: TransformerConfig) -> Kind:
    """Which of transformers' models it is; a `ConfigError` names the field by which it is none."""
    kinds: dict[str, Kind] = {"learned": "gpt2", "rotary": "llama"}
    require(
        config.positions in kinds,
        f"model.positions: expected 'learned' (GPT-2) or 'rotary' (Llama), got "
        f"{config.positions!r}: transformers has no such model",
    )
    kind = kinds[config.positions]
    allowed: dict[str, tuple[Any, ...]] = {
        "feed_forward": tuple(_ACTIVATIONS[kind]),
        "causal": (True,),
        "norm": ("layer",) if kind == "gpt2" else ("rms",),
    }
    if kind == "gpt2":
        allowed["bias"] = (True,)
        allowed["num_kv_heads"] = (0, config.num_heads)
        allowed["head_dim"] = (0, config.hidden_size // config.num_heads)
    for name, values in allowed.items():
        value = getattr(config, name)
        if value not in values:
            expected = " or ".join(map(repr, values))
            raise ConfigError(f"model.{name}: {_TITLES[kind]} has {expected}, got {value!r}")
    require(
        config.hidden_size % config.num_heads == 0,
        f"model.num_heads: {config.num_heads} does not divide hidden_size {config.hidden_size}, "
        "as transformers wants",
    )
    return kind


def _of_gpt2(values: dict[str, Any]) -> dict[str, Any]:
    """What of a GPT-2 is not taken as it is written."""
    if values["ffn_size"] is None:
        size = values["hidden_size"]
        values["ffn_size"] = 4 * size if isinstance(size, int) else size
    kind = _feed_forward("gpt2", "activation_function", values["feed_forward"])
    return {"positions": "learned", "norm": "layer", "feed_forward": kind}


def _of_llama(values: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of a Llama is not taken as it is written."""
    return {
        "positions": "rotary",
        "norm": "rms",
        "feed_forward": _feed_forward("llama", "hidden_act", values["feed_forward"]),
        "num_kv_heads": values.pop("key_heads") or 0,
        "head_dim": values.pop("head_size") or 0,
        "bias": values["bias"] or settings.get("mlp_bias", False),
        "rope_theta": _rope_theta(settings),
        "dropout": 0.0,
    }


def _feed_forward(kind: Kind, field: str, activation: Any) -> str:
    for ours, theirs in _ACTIVATIONS[kind].items():
        if activation in theirs:
            return ours
    known = ", ".join(repr(name) for theirs in _ACTIVATIONS[kind].values() for name in theirs)
    raise ConfigError(f"{field}: not supported, expected one of {known}, got {shown(activation)}")


def _rope_theta(settings: Mapping[str, Any]) -> Any:
    """Base of the wavelengths, as transformers 4 and 5 write it."""
    theta = settings.get("rope_theta", 10000.0)
    for field in ("rope_scaling", "rope_parameters"):
        rope = settings.get(field)
        rope = {} if rope is None else rope
        given = shown(rope)
        is_group = isinstance(rope, Mapping)
        require(is_group, f"{field}: expected a group of fields or null, got {given}")
        kind = rope.get("rope_type", rope.get("type", "default"))
        plain = rope.keys() <= {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
        require(
            kind == "default" and plain and rope.get("partial_rotary_factor", 1) == 1,
            f"{field}: not supported, expected rope_type 'default' and rope_theta, got {given}",
        )
        theta = rope.get("rope_theta", theta)
    return theta

"""Configurations of GPT-2 and Llama as the config.json of Hugging Face's transformers, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from hrm_jax.fields import ConfigError, from_mapping, require
from hrm_jax.models.transformer import TransformerConfig

Kind = Literal["gpt2", "llama"]

_ARCHITECTURES: Mapping[Kind, str] = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}
_TITLES: Mapping[Kind, str] = {"gpt2": "GPT-2", "llama": "Llama"}

# Our kinds of feed-forward layers, and the names of their activations; the first is written.
_ACTIVATIONS: Mapping[Kind, Mapping[str, tuple[str, ...]]] = {
    "gpt2": {"gelu": ("gelu_new", "gelu_pytorch_tanh"), "relu": ("relu",)},
    "llama": {"swiglu": ("silu", "swish"), "geglu": ("gelu",)},
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
    """Writes a configuration as transformers does.

    Args:
        config: Of a GPT-2 or a Llama. A Llama's `dropout` is left out: transformers' has none.

    Returns:
        The content of config.json, without special tokens.

    Raises:
        ConfigError: The model is neither a GPT-2 nor a Llama; the message names the field.
    """
    kind = kind_of(config)
    return {
        "architectures": [_ARCHITECTURES[kind]],
        "model_type": kind,
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        **(_to_gpt2(config) if kind == "gpt2" else _to_llama(config)),
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tie_head,
    }


def from_settings(settings: Mapping[str, Any], where: str) -> tuple[Kind, TransformerConfig]:
    """Reads a configuration of transformers; `to_settings` inverted.

    Args:
        settings: The content of config.json. Sizes must be there; what else is left out has the
            defaults of transformers.
        where: What it is called in messages.

    Returns:
        What it is, and our configuration.

    Raises:
        ConfigError: The model is of another type, or has something that is not supported; the
            message names the field.
    """
    for kind in _ARCHITECTURES:
        if settings.get("model_type") == kind:
            break
    else:
        known = " or ".join(map(repr, _ARCHITECTURES))
        raise ConfigError(
            f"{where}: model_type: expected {known}, got {settings.get('model_type')!r}"
        )
    for name, understood in _UNDERSTOOD[kind].items():
        value = settings.get(name, understood[0])
        if value not in understood:
            raise ConfigError(f"{where}: {name}: {value!r} is not supported, only {understood[0]}")
    try:
        values = _from_gpt2(settings) if kind == "gpt2" else _from_llama(settings)
    except KeyError as error:
        raise ConfigError(f"{where}: {error.args[0]}: missing") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    config = from_mapping(TransformerConfig, values, where)
    if config.key_heads == config.num_heads:
        config = dataclasses.replace(config, num_kv_heads=0)
    if config.head_size * config.num_heads == config.hidden_size:
        config = dataclasses.replace(config, head_dim=0)
    return kind, config


def kind_of(config: TransformerConfig) -> Kind:
    """Which of transformers' models it is.

    Raises:
        ConfigError: The model is neither a GPT-2 nor a Llama; the message names the field.
    """
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


def _to_gpt2(config: TransformerConfig) -> dict[str, Any]:
    return {
        "n_positions": config.max_length,
        "n_embd": config.hidden_size,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.ffn_size,
        "activation_function": _ACTIVATIONS["gpt2"][config.feed_forward][0],
        "layer_norm_epsilon": config.norm_eps,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "attn_pdrop": 0.0,
    }


def _to_llama(config: TransformerConfig) -> dict[str, Any]:
    return {
        "max_position_embeddings": config.max_length,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.key_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.ffn_size,
        "hidden_act": _ACTIVATIONS["llama"][config.feed_forward][0],
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,  # for transformers 4
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "attention_dropout": 0.0,
    }


def _from_gpt2(settings: Mapping[str, Any]) -> dict[str, Any]:
    inner = settings.get("n_inner")
    return {
        "vocab_size": settings["vocab_size"],
        "max_length": settings["n_positions"],
        "hidden_size": settings["n_embd"],
        "num_layers": settings["n_layer"],
        "num_heads": settings["n_head"],
        "ffn_size": 4 * settings["n_embd"] if inner is None else inner,
        "positions": "learned",
        "norm": "layer",
        "norm_eps": settings.get("layer_norm_epsilon", 1e-5),
        "feed_forward": _feed_forward(
            "gpt2", "activation_function", settings.get("activation_function", "gelu_new")
        ),
        "bias": True,
        "tie_head": settings.get("tie_word_embeddings", True),
        "dropout": settings.get("resid_pdrop", 0.1),
        "init_std": settings.get("initializer_range", 0.02),
    }


def _from_llama(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "vocab_size": settings["vocab_size"],
        "max_length": settings["max_position_embeddings"],
        "hidden_size": settings["hidden_size"],
        "num_layers": settings["num_hidden_layers"],
        "num_heads": settings["num_attention_heads"],
        "num_kv_heads": settings.get("num_key_value_heads") or 0,
        "head_dim": settings.get("head_dim") or 0,
        "ffn_size": settings["intermediate_size"],
        "positions": "rotary",
        "rope_theta": _rope_theta(settings),
        "norm": "rms",
        "norm_eps": settings.get("rms_norm_eps", 1e-6),
        "feed_forward": _feed_forward("llama", "hidden_act", settings.get("hidden_act", "silu")),
        "bias": settings.get("attention_bias", False) or settings.get("mlp_bias", False),
        "tie_head": settings.get("tie_word_embeddings", False),
        "dropout": 0.0,
        "init_std": settings.get("initializer_range", 0.02),
    }


def _feed_forward(kind: Kind, field: str, activation: Any) -> str:
    for ours, theirs in _ACTIVATIONS[kind].items():
        if activation in theirs:
            return ours
    known = ", ".join(repr(name) for theirs in _ACTIVATIONS[kind].values() for name in theirs)
    raise ConfigError(f"{field}: not supported, expected one of {known}, got {activation!r}")


def _rope_theta(settings: Mapping[str, Any]) -> Any:
    """Base of the wavelengths, as transformers 4 and 5 write it."""
    theta = settings.get("rope_theta", 10000.0)
    for field in ("rope_scaling", "rope_parameters"):
        rope = settings.get(field) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        plain = rope.keys() <= {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
        require(
            kind == "default" and plain and rope.get("partial_rotary_factor", 1) == 1,
            f"{field}: not supported, expected rope_type 'default' and rope_theta, got {rope!r}",
        )
        theta = rope.get("rope_theta", theta)
    return theta

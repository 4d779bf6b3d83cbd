"""Configurations of language models as the config.json of Hugging Face's transformers, and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from hrm_jax.fields import ConfigError, from_mapping, naming, require, require_memory, shown
from hrm_jax.kernels.rotary import SCALINGS
from hrm_jax.models.transformer import TransformerConfig

Kind = Literal["gpt2", "llama", "mistral", "qwen2", "qwen3"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_TITLES: Mapping[Kind, str] = {
    **{"gpt2": "GPT-2", "llama": "Llama", "mistral": "Mistral"},
    **{"qwen2": "Qwen2", "qwen3": "Qwen3"},
}
_CLASSES: Mapping[Kind, str] = {
    kind: f"{_TITLES[kind].replace('-', '')}{'LMHeadModel' if kind == 'gpt2' else 'ForCausalLM'}"
    for kind in KINDS
}

# Our kinds of feed-forward layers, and the names of their activations; the first is written.
_OF_GPT2 = {"gelu": ("gelu_new", "gelu_pytorch_tanh"), "relu": ("relu",)}
_OF_OTHERS = {"swiglu": ("silu", "swish"), "geglu": ("gelu",)}

# Our field, theirs, and what transformers takes where it is left out; sizes must be there.
_MUST = object()
_Fields = tuple[tuple[str, str, Any], ...]
_FIELDS: dict[Kind, _Fields] = {
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
}


def _of_llamas(key_heads: int | None, head_size: int | None) -> _Fields:
    return (
        ("vocab_size", "vocab_size", _MUST),
        ("max_length", "max_position_embeddings", _MUST),
        ("hidden_size", "hidden_size", _MUST),
        ("num_layers", "num_hidden_layers", _MUST),
        ("num_heads", "num_attention_heads", _MUST),
        ("key_heads", "num_key_value_heads", key_heads),
        ("head_size", "head_dim", head_size),
        ("ffn_size", "intermediate_size", _MUST),
        ("feed_forward", "hidden_act", "silu"),
        ("norm_eps", "rms_norm_eps", 1e-6),
        ("rope_theta", "rope_theta", 10000.0),
        ("tie_head", "tie_word_embeddings", False),
        ("init_std", "initializer_range", 0.02),
    )


_FIELDS |= {
    "llama": _of_llamas(None, None),
    "mistral": _of_llamas(8, None),
    "qwen2": _of_llamas(32, None),
    "qwen3": _of_llamas(32, 128),
}

# Fields of config.json that change what is computed, with the values that are understood.
_ALL: dict[str, tuple[Any, ...]] = {"quantization_config": (None,)}
_ROTARY = {
    **_ALL,
    "partial_rotary_factor": (None, 1),
    "rope_interleaved": (None, False),
}
_UNDERSTOOD: Mapping[Kind, Mapping[str, tuple[Any, ...]]] = {
    "gpt2": {
        **_ALL,
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    "llama": {**_ROTARY, "sliding_window": (None,), "layer_types": (None,)},
    "mistral": {
        **_ROTARY,
        **{"layer_types": (None,), "attention_bias": (None, False), "mlp_bias": (None, False)},
    },
    "qwen2": {**_ROTARY, "attention_bias": (None, True), "mlp_bias": (None, False)},
    "qwen3": {**_ROTARY, "mlp_bias": (None, False)},
}

# Our fields of `RopeScaling`, and theirs.
_ROPE = {
    **{"factor": "factor", "original_length": "original_max_position_embeddings"},
    **{"low_freq_factor": "low_freq_factor", "high_freq_factor": "high_freq_factor"},
    **{"beta_fast": "beta_fast", "beta_slow": "beta_slow", "truncate": "truncate"},
    "attention_factor": "attention_factor",
}


def to_settings(config: TransformerConfig, kind: Kind | None = None) -> dict[str, Any]:
    """The content of config.json, without special tokens, and without dropout but for GPT-2's;
    `kind` as for `kind_of`."""
    kind = kind_of(config, kind)
    settings = {theirs: getattr(config, ours) for ours, theirs, _ in _FIELDS[kind]}
    if kind == "gpt2":
        settings["activation_function"] = _OF_GPT2[config.feed_forward][0]
        settings |= {"embd_pdrop": config.dropout, "attn_pdrop": 0.0}
    else:
        rope = _rope_settings(config)
        settings["hidden_act"] = _OF_OTHERS[config.feed_forward][0]
        settings |= {"rope_parameters": rope, "attention_dropout": 0.0}  # transformers 5
        if rope["rope_type"] != "default":  # transformers 4
            settings["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
        settings |= _of_kind(kind, config)
    kinds = {"architectures": [_CLASSES[kind]], "model_type": kind, "dtype": "float32"}
    return {**kinds, **settings}


def _of_kind(kind: Kind, config: TransformerConfig) -> dict[str, Any]:
    """Settings that not all descendants of Llama have."""
    window = config.sliding_window or None
    if kind == "llama":
        return {"attention_bias": config.biased is True, "mlp_bias": config.bias}
    if kind == "mistral":
        return {"sliding_window": window}
    count, full = config.num_layers, config.full_layers if window else config.num_layers
    settings = {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "max_window_layers": full,
        "layer_types": ["full_attention"] * full + ["sliding_attention"] * (count - full),
    }
    return settings if kind == "qwen2" else {**settings, "attention_bias": config.biased is True}


def _rope_settings(config: TransformerConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    kind = "default" if scaling.kind == "none" else scaling.kind
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": config.rope_theta}
    for ours, theirs in _ROPE.items():
        # of "dynamic" it is the model's own length, of which transformers asks there alone
        left_out = ours not in SCALINGS[scaling.kind] or (kind, ours) == (
            "dynamic",
            "original_length",
        )
        if not left_out and (ours != "attention_factor" or scaling.attention_factor):
            rope[theirs] = getattr(scaling, ours)
    return rope


def from_settings(
    settings: Mapping[str, Any], where: str, weight_bytes: int = 4
) -> tuple[Kind, TransformerConfig]:
    """What the content of config.json describes, which is called `where` in messages.

    Sizes must be there; what else is left out has the defaults of transformers. A `ConfigError`
    names the field by which the model is of another type, or that is not supported, or says that
    weights of so many bytes each fit into no memory.
    """
    kind: Any = settings.get("model_type")
    known = ", ".join(map(repr, KINDS[:-1])) + f" or {KINDS[-1]!r}"
    if kind not in KINDS:
        raise ConfigError(f"{where}: model_type: expected {known}, got {shown(kind)}")
    for name, understood in _UNDERSTOOD[kind].items():
        value = settings.get(name, understood[0])
        if value not in understood:
            raise ConfigError(
                f"{where}: {name}: {shown(value)} is not supported, only {understood[-1]}"
            )
    values: dict[str, Any] = {}
    for ours, theirs, default in _FIELDS[kind]:
        values[ours] = settings.get(theirs, default)
        require(values[ours] is not _MUST, f"{where}: {theirs}: missing")
    with naming(where):
        values |= _gpt2(values) if kind == "gpt2" else _llamas(kind, values, settings)
        config = _checked(kind, values)
        require_memory(config.weight_bytes // 4 * weight_bytes)
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
        names = [(ours, theirs) for ours, theirs, _ in _FIELDS[kind]]
        names += [("full_layers", "max_window_layers")]
        names += [(f"rope_scaling.{ours}", theirs) for ours, theirs in _ROPE.items()]
        for ours, theirs in names:
            if str(error).startswith(f"model.{ours}: ") and ours != theirs:
                raise ConfigError(f"{theirs} ({error})") from error
        raise


def kind_of(config: TransformerConfig, kind: Kind | None = None) -> Kind:
    """Which of transformers' models it is; a `ConfigError` names the field by which it is none, or
    not of the `kind` that is asked for.

    None takes the only one that has what it has: norms of queries and keys make a Qwen3, biases of
    queries, keys and values alone a Qwen2, a sliding window in all layers a Mistral (which without
    one is a Llama); in some layers, a Qwen2 or Qwen3.
    """
    require(
        config.positions != "sinusoidal",
        f"model.positions: expected 'learned' (GPT-2) or 'rotary' (Llama), got "
        f"{config.positions!r}: transformers has no such model",
    )
    if kind is None:
        kind = _likeliest(config)
    gpt2, llama = kind == "gpt2", kind == "llama"
    windows = {"mistral": (0,), "qwen2": range(4096), "qwen3": range(4096)}
    allowed: dict[str, Any] = {
        "positions": ("learned",) if gpt2 else ("rotary",),
        "feed_forward": tuple(_OF_GPT2 if gpt2 else _OF_OTHERS),
        "causal": (True,),
        "norm": ("layer",) if gpt2 else ("rms",),
        "qk_norm": (kind == "qwen3",),
        "bias": (True,) if gpt2 else (False, True) if llama else (False,),
        "full_layers": windows.get(kind, (0,)),
    }
    if kind not in windows:
        allowed["sliding_window"] = (0,)
    if gpt2:
        allowed["num_kv_heads"] = (0, config.num_heads)
    if kind in ("gpt2", "qwen2"):
        allowed["head_dim"] = (0, config.hidden_size // config.num_heads)
    for name, values in allowed.items():
        value = getattr(config, name)
        if value not in values:
            expected = " or ".join(map(repr, values))
            raise ConfigError(f"model.{name}: {_TITLES[kind]} has {expected}, got {value!r}")
    biased = {"gpt2": (True,), "mistral": (False,), "qwen2": ("qkv",)}.get(kind, (False, True))
    if config.biased not in biased:
        names = {False: "none", True: "all", "qkv": "qkv"}
        expected = " or ".join(repr(names[x]) for x in biased)
        got = names[config.biased]
        raise ConfigError(f"model.attention_bias: {_TITLES[kind]} has {expected}, got {got!r}")
    require(
        config.hidden_size % config.num_heads == 0 or kind in ("mistral", "qwen3"),
        f"model.num_heads: {config.num_heads} does not divide hidden_size {config.hidden_size}, "
        "as transformers wants",
    )
    return kind


def _likeliest(config: TransformerConfig) -> Kind:
    if config.positions == "learned":
        return "gpt2"
    if config.qk_norm:
        return "qwen3"
    if config.biased == "qkv":
        return "qwen2"
    return "mistral" if config.sliding_window else "llama"


def _gpt2(values: dict[str, Any]) -> dict[str, Any]:
    """What of a GPT-2 is not taken as it is written."""
    if values["ffn_size"] is None:
        size = values["hidden_size"]
        values["ffn_size"] = 4 * size if isinstance(size, int) else size
    kind = _feed_forward(_OF_GPT2, "activation_function", values["feed_forward"])
    return {"positions": "learned", "norm": "layer", "feed_forward": kind}


def _llamas(kind: Kind, values: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of a Llama or one of its descendants is not taken as it is written."""
    theta, scaling = _rope(settings, values["max_length"])
    bias = _flag(settings, "mlp_bias") if kind == "llama" else False
    attention = "qkv"
    if kind != "qwen2":
        biased = _flag(settings, "attention_bias")
        attention = "as_bias" if biased == bias else "all" if biased else "none"
    window, full = (0, 0) if kind == "llama" else _window(kind, settings, values["num_layers"])
    return {
        "positions": "rotary",
        "norm": "rms",
        "feed_forward": _feed_forward(_OF_OTHERS, "hidden_act", values["feed_forward"]),
        "num_kv_heads": values.pop("key_heads") or 0,
        "head_dim": values.pop("head_size") or 0,
        "bias": bias,
        "attention_bias": attention,
        "rope_theta": theta,
        "rope_scaling": scaling,
        "sliding_window": window,
        "full_layers": full,
        "qk_norm": kind == "qwen3",
        "dropout": 0.0,
    }


def _flag(settings: Mapping[str, Any], name: str) -> bool:
    value = settings.get(name)
    require(
        value is None or isinstance(value, bool),
        f"{name}: expected true or false, got {shown(value)}",
    )
    return bool(value)


def _window(kind: Kind, settings: Mapping[str, Any], layers: Any) -> tuple[Any, Any]:
    """The sliding window, 0 for none, and how many layers in front do not have it."""
    window = settings.get("sliding_window", 4096)
    if kind == "mistral":
        return window or 0, 0
    used = _flag(settings, "use_sliding_window") and window is not None
    full = settings.get("max_window_layers", 28)
    types = settings.get("layer_types")
    if types is not None:
        known = ("full_attention", "sliding_attention")
        fits = isinstance(types, list) and len(types) == layers and all(x in known for x in types)
        require(
            fits, f"layer_types: expected {layers} of {' and '.join(known)}, got {shown(types)}"
        )
        full = types.count("full_attention")
        plain = types == [known[0]] * full + [known[1]] * (len(types) - full)
        require(plain, "layer_types: not supported, expected those with full_attention in front")
        require(
            used or full == layers,
            "layer_types: sliding_attention, but use_sliding_window or sliding_window says none",
        )
    whole = isinstance(full, int) and isinstance(layers, int)
    return (window, full) if used and not (whole and full >= layers) else (0, 0)


def _feed_forward(known: Mapping[str, tuple[str, ...]], field: str, activation: Any) -> str:
    for ours, theirs in known.items():
        if activation in theirs:
            return ours
    names = ", ".join(repr(name) for theirs in known.values() for name in theirs)
    raise ConfigError(f"{field}: not supported, expected one of {names}, got {shown(activation)}")


def _rope(settings: Mapping[str, Any], length: Any) -> tuple[Any, dict[str, Any]]:
    """Base of the wavelengths and what stretches them, as transformers 4 and 5 write it."""
    theta, found = settings.get("rope_theta", 10000.0), {"kind": "none"}
    for field in ("rope_parameters", "rope_scaling"):
        rope = settings.get(field)
        if rope is None or rope == {}:
            continue
        given = shown(rope)
        require(
            isinstance(rope, Mapping),
            f"{field}: expected a group of fields or null, got {given}",
        )
        theta = rope.get("rope_theta", theta)
        with naming(field):
            found = _scaling(rope, settings, length)
    return theta, found


def _scaling(rope: Mapping[str, Any], settings: Mapping[str, Any], length: Any) -> dict[str, Any]:
    kind: Any = rope.get("rope_type", rope.get("type", "default"))
    kind = "none" if kind == "default" else kind
    if kind not in tuple(SCALINGS):
        names = ", ".join(repr("default" if x == "none" else x) for x in SCALINGS)
        raise ConfigError(f"rope_type: {shown(kind)} is not supported, expected one of {names}")
    ours = {name: _ROPE[name] for name in SCALINGS[kind]}
    also = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    also |= {"mscale", "mscale_all_dim"} if kind == "yarn" else set()
    if others := rope.keys() - also - set(ours.values()):
        raise ConfigError(f"{min(others)}: not supported with rope_type {shown(kind)}")
    partial = rope.get("partial_rotary_factor", 1)
    require(partial == 1, f"partial_rotary_factor: {shown(partial)} is not supported, only 1")
    found = {name: rope[theirs] for name, theirs in ours.items() if rope.get(theirs) is not None}
    original = found.setdefault("original_length", length) if "original_length" in ours else None
    if kind == "dynamic":
        require(
            original == length,
            f"original_max_position_embeddings: {shown(original)}, but of rope_type 'dynamic' it "
            "is max_position_embeddings",
        )
    elif original is not None:
        found["original_length"] = settings.get("original_max_position_embeddings") or original
    if kind == "yarn":
        found |= _of_yarn(found, rope, length)
    for name in ("factor", "low_freq_factor", "high_freq_factor"):
        require(name not in ours or name in found, f"{_ROPE[name]}: missing")
    return {"kind": kind, **found}


def _of_yarn(found: Mapping[str, Any], rope: Mapping[str, Any], length: Any) -> dict[str, Any]:
    """What transformers computes where it is null or left out."""
    factor: Any = found.get("factor")
    original, more = found["original_length"], {}
    if factor is None and "factor" in rope and _positive(length, original):
        more["factor"] = factor = length / original
    parts: list[Any] = [rope.get(name) for name in ("mscale", "mscale_all_dim")]
    if "attention_factor" not in found and _positive(factor, *parts) and factor > 1:
        top, bottom = (0.1 * x * math.log(factor) + 1.0 for x in parts)
        more["attention_factor"] = top / bottom
    return more


def _positive(*values: Any) -> bool:
    return all(isinstance(x, int | float) and 0 < x < 2**63 for x in values)

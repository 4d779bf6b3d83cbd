"""GPT-2 and Llama as Hugging Face's transformers keep them: config.json and named tensors.

The package transformers is not needed, neither to write nor to read.
"""

from __future__ import annotations

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
from hrm_jax.data.text.tokenizers import load_tokenizer
from hrm_jax.fields import ConfigError, naming, require
from hrm_jax.files import atomic_folder, atomic_path, read_json, write_json
from hrm_jax.interop.files import Tensors, only_state_dict, read_state_dict
from hrm_jax.interop.hugging_face_config import Kind, from_settings, kind_of, to_settings
from hrm_jax.interop.hugging_face_tokenizers import TOKENIZER_FILES, write_tokenizer
from hrm_jax.interop.torch_names import matching, unwrapped, with_torch_names
from hrm_jax.models.language import init
from hrm_jax.models.transformer import TransformerConfig

_Path = str | os.PathLike[str]

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_WRITTEN = ("config.json", _WEIGHTS[0], *TOKENIZER_FILES)

# Parts of PyTorch names, ours and theirs, replaced one after the other.
_RENAMED: Mapping[Kind, tuple[tuple[str, str], ...]] = {
    "gpt2": (
        ("layers.", "transformer.h."),
        (".attention_norm.", ".ln_1."),
        (".ffn_norm.", ".ln_2."),
        (".attention.o_proj.", ".attn.c_proj."),
        (".attention.q_proj.", ".attn.c_attn."),
        (".attention.k_proj.", ".attn.c_attn."),
        (".attention.v_proj.", ".attn.c_attn."),
        (".ffn.up_proj.", ".mlp.c_fc."),
        (".ffn.down_proj.", ".mlp.c_proj."),
        ("embed_tokens.", "transformer.wte."),
        ("embed_positions.", "transformer.wpe."),
        ("final_norm.", "transformer.ln_f."),
    ),
    "llama": (
        ("layers.", "model.layers."),
        (".attention_norm.", ".input_layernorm."),
        (".ffn_norm.", ".post_attention_layernorm."),
        (".attention.", ".self_attn."),
        (".ffn.", ".mlp."),
        ("embed_tokens.", "model.embed_tokens."),
        ("final_norm.", "model.norm."),
    ),
}
_PREFIXES: Mapping[Kind, str] = {"gpt2": "transformer.", "llama": "model."}
_ANCHORS: Mapping[Kind, str] = {"gpt2": "wte.weight", "llama": "embed_tokens.weight"}
_HEAD = "lm_head.weight"

# Masks and wavelengths that older versions saved too.
_NOT_LEARNT = re.compile(
    r"\.attn\.(bias|masked_bias)$|\.rotary_emb\.inv_freq$|^(\w+\.)?n_averaged$"
)


def to_hugging_face(
    config: TransformerConfig,
    params: Mapping[str, Any],
    *,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
) -> tuple[Tensors, dict[str, Any]]:
    """A GPT-2 or Llama, with scanned layers or without, as transformers keeps it.

    Returns float32 arrays under the names of `GPT2LMHeadModel` or `LlamaForCausalLM`, and the
    content of config.json; a `ConfigError` names the field by which the model is neither.
    """
    tensors = _their_tensors(kind_of(config), with_torch_names(params))
    settings = to_settings(config) | {
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
    }
    return {k: np.asarray(v, np.float32, order="C") for k, v in tensors.items()}, settings


def from_hugging_face(
    folder_or_state_dict: _Path | Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> tuple[TransformerConfig, dict[str, Any]]:
    """Reads a GPT-2 or Llama of transformers: configuration and parameters, layers not scanned.

    Where either attention or feed-forward layers have biases, the biases of the others are zeros.
    Dropout is that of GPT-2's residual stream; dropout of attention weights is not known here.

    Args:
        folder_or_state_dict: A folder with config.json and model.safetensors or pytorch_model.bin,
            in one piece or several; or torch tensors or arrays of any floating dtype by name, with
            or without the prefix of the language model's inner model and what `unwrapped` and
            `only_state_dict` take off.
        config: The content of config.json; with a folder, None reads the one in it.

    Raises:
        ConfigError: The model is of another type, has something that is not supported (the message
            names the field), or the tensors do not fit the configuration (it lists all of them).
    """
    given, where = folder_or_state_dict, "config"
    if not isinstance(given, Mapping):
        where = os.fspath(pathlib.Path(given) / "config.json")
        config = read_json(where) if config is None else config
    if config is None:
        raise ConfigError("config: expected the content of config.json, got None")
    kind, ours = from_settings(config, where)
    if isinstance(given, Mapping):
        return ours, _parameters(kind, ours, only_state_dict(given), config, where)
    tensors = _read_weights(pathlib.Path(given))
    with naming(given):
        return ours, _parameters(kind, ours, tensors, config, where)


def _parameters(
    kind: Kind,
    ours: TransformerConfig,
    tensors: Mapping[str, Any],
    config: Mapping[str, Any],
    where: str,
) -> dict[str, Any]:
    tensors = _known_names(kind, tensors)
    template = jax.eval_shape(lambda: init(ours, jax.random.key(0)))

    def to_theirs(params: Mapping[str, Any]) -> dict[str, Any]:
        return _their_tensors(kind, with_torch_names(params))

    expected = {name: x.shape for name, x in jax.eval_shape(to_theirs, template).items()}
    absent = {name for name in expected if _has_no_bias(kind, name, config)}
    if ours.tie_head:
        tensors = _without_tied_head(kind, tensors, where)
    arrays = matching(tensors, {k: v for k, v in expected.items() if k not in absent})
    arrays.update({name: np.zeros(expected[name], np.float32) for name in absent})
    # Numbers only change their places, so that the transpose of the map is its inverse.
    [params] = jax.linear_transpose(to_theirs, template)(jax.tree.map(jnp.asarray, arrays))
    return params


def save_pretrained(
    folder: _Path,
    config: TransformerConfig,
    params: Mapping[str, Any],
    tokenizer: str | os.PathLike[str] | None = None,
) -> list[pathlib.Path]:
    """Writes a folder that `AutoModelForCausalLM.from_pretrained` of transformers reads.

    The folder appears when all is in it; one that was there before is replaced if there is nothing
    in it that this function does not write. A tokenizer, as `load_tokenizer` takes it, is put into
    it for `AutoTokenizer.from_pretrained`. A model that is neither a GPT-2 nor a Llama, or has
    fewer tokens than the tokenizer, is a `ConfigError`.
    """
    ids: dict[str, int | None] = {}
    if tokenizer is not None:
        known = load_tokenizer(os.fspath(tokenizer))
        require(
            known.vocab_size <= config.vocab_size,
            f"model.vocab_size: {config.vocab_size}, but the tokenizer has {known.vocab_size}",
        )
        ids = {f"{role}_token_id": getattr(known, f"{role}_id") for role in ("bos", "eos", "pad")}
    tensors, settings = to_hugging_face(config, params, **ids)
    folder = pathlib.Path(folder)
    if folder.is_dir():
        other = sorted({path.name for path in folder.iterdir()} - set(_WRITTEN))
        if other:
            raise FileExistsError(
                f"{folder}: holds {other[0]!r}, which an export would not replace; expected a new "
                "folder"
            )
    with atomic_folder(folder) as temporary:
        with atomic_path(temporary / _WEIGHTS[0]) as path:
            # transformers refuses files that do not say whose layouts they have
            safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
        if tokenizer is not None:
            write_tokenizer(temporary, os.fspath(tokenizer))
        write_json(temporary / "config.json", settings)
    return sorted(folder.iterdir())


def _has_no_bias(kind: Kind, name: str, settings: Mapping[str, Any]) -> bool:
    """Whether it is a bias that a Llama would have if its other layers' biases were its own."""
    if kind != "llama" or not name.endswith("_proj.bias"):
        return False
    return not settings.get("attention_bias" if ".self_attn." in name else "mlp_bias")


def _their_name(kind: Kind, name: str) -> str:
    for ours, theirs in _RENAMED[kind]:
        name = name.replace(ours, theirs)
    return name


def _their_tensors(kind: Kind, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """From PyTorch names to theirs. GPT-2's weights are [in, out], with q, k and v in one."""
    found = {}
    for name, tensor in tensors.items():
        if kind == "gpt2" and ".q_proj." in name:
            parts = [tensors[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            tensor = jnp.concatenate(parts)
        if kind == "gpt2" and name.endswith("_proj.weight"):
            tensor = tensor.T
        if kind != "gpt2" or not re.search(r"\.[kv]_proj\.", name):
            found[_their_name(kind, name)] = tensor
    return found


def _known_names(kind: Kind, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors with the prefix, and without those that hold nothing learnt."""
    prefix = _PREFIXES[kind]
    known: dict[str, Any] = {}
    for short, name in unwrapped(tensors, _ANCHORS[kind], prefix).items():
        bare, tensor = short.removeprefix(prefix), tensors[name]
        full = bare if bare.startswith("lm_head.") else prefix + bare
        if _NOT_LEARNT.search(full):
            continue
        require(full not in known, f"the state dict has {full!r} twice, with prefix and without")
        known[full] = tensor
    return known


def _without_tied_head(kind: Kind, tensors: dict[str, Any], where: str) -> dict[str, Any]:
    """Tensors without a head that is the embedding over again, as PyTorch's files have it."""
    name = _their_name(kind, "embed_tokens.weight")
    head, embedding = tensors.get(_HEAD), tensors.get(name)
    if head is None or embedding is None:
        return tensors
    require(
        head.shape == embedding.shape and bool((head == embedding).all()),
        f"{where}: tie_word_embeddings is true, but {_HEAD} is not {name}",
    )
    return {name: tensor for name, tensor in tensors.items() if name != _HEAD}


def _read_weights(folder: pathlib.Path) -> Tensors:
    for name in _WEIGHTS:
        if (folder / name).exists():
            return read_state_dict(folder / name)
        index = folder / f"{name}.index.json"
        if index.exists():
            return _read_pieces(index)
    raise FileNotFoundError(f"{folder}: expected {' or '.join(_WEIGHTS)}, whole or in pieces")


def _read_pieces(index: pathlib.Path) -> Tensors:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise DataError(f"{index}: weight_map: expected names of files by names of tensors")
    tensors: Tensors = {}
    for name in sorted(set(places.values())):
        if pathlib.PurePath(name).name != name or name in ("", "..") or "\0" in name:
            raise DataError(f"{index}: weight_map: expected files beside it, got {name!r}")
        piece = read_state_dict(index.with_name(name))
        if twice := piece.keys() & tensors.keys():
            raise DataError(f"{index}: {name} has {min(twice)!r}, as another piece has")
        tensors |= piece
    return tensors

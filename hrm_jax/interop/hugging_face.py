"""Language models as Hugging Face's transformers keeps them: config.json and named tensors.

The package transformers is not needed, neither to write nor to read.
"""

from __future__ import annotations

import functools
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util

from hrm_jax.data.text.tokenizers import load_tokenizer
from hrm_jax.fields import ConfigError, naming, require
from hrm_jax.files import atomic_folder, atomic_path, read_json, write_json
from hrm_jax.interop.files import Tensors, only_state_dict
from hrm_jax.interop.hugging_face_config import Kind, from_settings, kind_of, to_settings
from hrm_jax.interop.hugging_face_tokenizers import TOKENIZER_FILES, write_tokenizer
from hrm_jax.interop.stored_tensors import WEIGHTS, StoredTensor, in_memory, stored_tensors
from hrm_jax.interop.torch_names import require_matching, torch_name, unwrapped
from hrm_jax.models.language import network
from hrm_jax.models.transformer import TransformerConfig, unstack_layers

_Path = str | os.PathLike[str]
_Leaf = tuple[str, ...]

_WRITTEN = ("config.json", WEIGHTS[0], *TOKENIZER_FILES)

# Parts of PyTorch names, ours and theirs, replaced one after the other.
_RENAMED: dict[Kind, tuple[tuple[str, str], ...]] = {
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
_RENAMED |= dict.fromkeys(("mistral", "qwen2", "qwen3"), _RENAMED["llama"])
_HEAD = "lm_head.weight"

# Masks and wavelengths that older versions saved too, and a count of averaged weights.
_NOT_LEARNT = re.compile(
    r"transformer\.h\.\d+\.attn\.(bias|masked_bias)"
    r"|model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"
    r"|(\w+\.)?n_averaged"
)


def to_hugging_face(
    config: TransformerConfig,
    params: Mapping[str, Any],
    *,
    architecture: Kind | None = None,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
) -> tuple[Tensors, dict[str, Any]]:
    """A GPT-2, Llama, Mistral, Qwen2 or Qwen3, with scanned layers or without, as transformers
    keeps it.

    Returns float32 arrays under the names of its class (`LlamaForCausalLM`), and the content of
    config.json. The architecture is the only one that has all that the model has (see `kind_of`)
    if no other is asked for; a `ConfigError` names the field by which the model is not of it.
    """
    kind = kind_of(config, architecture)
    flat = traverse_util.flatten_dict(unstack_layers(params) if "layers" in params else params)
    tensors = {}
    for name, leaves in _leaves(kind, flat).items():
        array = np.concatenate([np.asarray(flat[leaf], np.float32) for leaf in leaves], axis=-1)
        tensors[name] = np.ascontiguousarray(array.T if _is_turned(kind, leaves) else array)
    settings = to_settings(config, kind) | {
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
    }
    return tensors, settings


def from_hugging_face(
    folder_or_state_dict: _Path | Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    place: Callable[[np.ndarray], jax.Array] = jnp.asarray,
) -> tuple[TransformerConfig, dict[str, Any]]:
    """Reads a GPT-2, Llama, Mistral, Qwen2 or Qwen3 of transformers: configuration and parameters,
    layers not scanned.

    Of a folder with safetensors files, one tensor at a time is in the main memory besides what was
    read. Dropout is that of GPT-2's residual stream; dropout of attention weights is not known
    here.

    Args:
        folder_or_state_dict: A folder with config.json and model.safetensors or pytorch_model.bin,
            in one piece or several; or torch tensors or arrays of any floating dtype by name, with
            or without the prefix of the language model's inner model and what `unwrapped` and
            `only_state_dict` take off.
        config: The content of config.json; with a folder, None reads the one in it.
        dtype: What parameters are kept in; `config.dtype`, in which is computed, stays float32.
        place: Puts a parameter on the devices, such as `functools.partial(place_frozen, mesh=…,
            smallest=…)` of `hrm_jax.training.sharding`.

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
    kind, ours = from_settings(config, where, jnp.dtype(dtype).itemsize)
    read = functools.partial(_parameters, kind, ours, where, jnp.dtype(dtype), place)
    if isinstance(given, Mapping):
        return ours, read(in_memory(only_state_dict(given)))
    with naming(given):
        return ours, read(stored_tensors(pathlib.Path(given)))


def _parameters(
    kind: Kind,
    config: TransformerConfig,
    where: str,
    dtype: Any,
    place: Callable[[np.ndarray], jax.Array],
    tensors: Mapping[str, StoredTensor],
) -> dict[str, Any]:
    tensors = _known_names(kind, tensors)
    if config.tie_head:
        tensors = _without_tied_head(kind, tensors, where)
    one = jnp.zeros((1, 1), jnp.int32)
    shapes = jax.eval_shape(network(config).init, jax.random.key(0), one)["params"]
    flat = {leaf: x.shape for leaf, x in traverse_util.flatten_dict(shapes).items()}
    names = _leaves(kind, flat)
    expected = {}
    for name, leaves in names.items():
        *others, _ = flat[leaves[0]]
        shape = (*others, sum(flat[leaf][-1] for leaf in leaves))
        expected[name] = shape[::-1] if _is_turned(kind, leaves) else shape
    require_matching(tensors, expected)
    found = {}
    for name, tensor in tensors.items():
        leaves, array = names[name], tensor.read()
        array = array.T if _is_turned(kind, leaves) else array
        for leaf, part in zip(leaves, np.split(array, len(leaves), axis=-1), strict=True):
            found[leaf] = place(np.ascontiguousarray(part, dtype))
    return traverse_util.unflatten_dict(found)


def save_pretrained(
    folder: _Path,
    config: TransformerConfig,
    params: Mapping[str, Any],
    tokenizer: str | os.PathLike[str] | None = None,
    architecture: Kind | None = None,
) -> list[pathlib.Path]:
    """Writes a folder that `AutoModelForCausalLM.from_pretrained` of transformers reads.

    The folder appears when all is in it; one that was there before is replaced if there is nothing
    in it that this function does not write. A tokenizer, as `load_tokenizer` takes it, is put into
    it for `AutoTokenizer.from_pretrained`. A model that is not of the architecture (see
    `to_hugging_face`), or has fewer tokens than the tokenizer, is a `ConfigError`.
    """
    ids: dict[str, int | None] = {}
    if tokenizer is not None:
        known = load_tokenizer(os.fspath(tokenizer))
        require(
            known.vocab_size <= config.vocab_size,
            f"model.vocab_size: {config.vocab_size}, but the tokenizer has {known.vocab_size}",
        )
        ids = {f"{role}_token_id": getattr(known, f"{role}_id") for role in ("bos", "eos", "pad")}
    tensors, settings = to_hugging_face(config, params, architecture=architecture, **ids)
    folder = pathlib.Path(folder)
    if folder.is_dir():
        other = sorted({path.name for path in folder.iterdir()} - set(_WRITTEN))
        if other:
            raise FileExistsError(
                f"{folder}: holds {other[0]!r}, which an export would not replace; expected a new "
                "folder"
            )
    with atomic_folder(folder) as temporary:
        with atomic_path(temporary / WEIGHTS[0]) as path:
            # transformers refuses files that do not say whose layouts they have
            safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
        if tokenizer is not None:
            write_tokenizer(temporary, os.fspath(tokenizer))
        write_json(temporary / "config.json", settings)
    return sorted(folder.iterdir())


def _leaves(kind: Kind, flat: Mapping[_Leaf, Any]) -> dict[str, list[_Leaf]]:
    """Which parameters each of their tensors holds, along its last axis: one, but for GPT-2's
    queries, keys and values."""
    found: dict[str, list[_Leaf]] = {}
    for leaf in sorted(flat, key=lambda leaf: (leaf[-2] == "v_proj", leaf[-2] == "k_proj")):
        name = torch_name(leaf)
        for ours, theirs in _RENAMED[kind]:
            name = name.replace(ours, theirs)
        found.setdefault(name, []).append(leaf)
    return found


def _is_turned(kind: Kind, leaves: Sequence[_Leaf]) -> bool:
    """Whether theirs is [out, in]: GPT-2's are not."""
    return leaves[0][-1] == "kernel" and (kind != "gpt2" or leaves[0][0] == "lm_head")


def _known_names(kind: Kind, tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Tensors with the prefix, and without those that hold nothing learnt."""
    embedding = _their_embedding(kind)
    prefix = embedding[: embedding.index(".") + 1]
    known: dict[str, StoredTensor] = {}
    for short, name in unwrapped(tensors, embedding.removeprefix(prefix), prefix).items():
        bare, tensor = short.removeprefix(prefix), tensors[name]
        full = bare if bare.startswith("lm_head.") else prefix + bare
        if _NOT_LEARNT.fullmatch(full):
            continue
        require(full not in known, f"the state dict has {full!r} twice, with prefix and without")
        known[full] = tensor
    return known


def _their_embedding(kind: Kind) -> str:
    [name] = _leaves(kind, {("embed_tokens", "embedding"): None})
    return name


def _without_tied_head(
    kind: Kind, tensors: dict[str, StoredTensor], where: str
) -> dict[str, StoredTensor]:
    """Tensors without a head that is the embedding over again, as PyTorch's files have it."""
    name = _their_embedding(kind)
    head, embedding = tensors.get(_HEAD), tensors.get(name)
    if head is None or embedding is None:
        return tensors
    require(
        head.shape == embedding.shape and np.array_equal(head.read(), embedding.read()),
        f"{where}: tie_word_embeddings is true, but {_HEAD} is not {name}",
    )
    return {name: tensor for name, tensor in tensors.items() if name != _HEAD}

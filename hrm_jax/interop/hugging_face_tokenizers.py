"""Tokenizers in the files that transformers reads."""

from __future__ import annotations

import pathlib
from typing import Any

from hrm_jax.data.text.tokenizer_files import TOKENIZER_FILES, copy_tokenizer
from hrm_jax.data.text.tokenizers import BOS, EOS, PAD, PLAN
from hrm_jax.files import write_json

__all__ = ["TOKENIZER_FILES", "write_tokenizer"]

_SPECIAL = {PAD: "<|pad|>", BOS: "<|bos|>", EOS: "<|eos|>", PLAN: "<|plan|>"}
_CLASS = {"tokenizer_class": "PreTrainedTokenizerFast"}


def write_tokenizer(folder: pathlib.Path, name_or_path: str) -> None:
    """Writes the tokenizer "bytes" into a folder, or copies the files beside a tokenizer.json."""
    if name_or_path == "bytes":
        write_json(folder / "tokenizer.json", _byte_tokenizer())
        settings = {
            **_CLASS,
            **{"pad_token": _SPECIAL[PAD], "bos_token": _SPECIAL[BOS], "eos_token": _SPECIAL[EOS]},
            "split_special_tokens": True,  # "<|eos|>" in a text is seven bytes
            "clean_up_tokenization_spaces": False,
        }
        write_json(folder / "tokenizer_config.json", settings)
        return
    copy_tokenizer(name_or_path, folder)
    if not (folder / "tokenizer_config.json").exists():
        write_json(folder / "tokenizer_config.json", _CLASS)


def _byte_tokenizer() -> dict[str, Any]:
    """`ByteTokenizer` as a byte-level BPE without merges."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    # The characters that stand for bytes in GPT-2's vocabulary: the others are moved up.
    vocab = {chr(byte): byte for byte in shown} | {
        chr(0x100 + place): byte for place, byte in enumerate(hidden)
    }
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token, "content": name, **flags, "special": True}
            for token, name in _SPECIAL.items()
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": _beginning(),
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [],
        },
    }


def _beginning() -> dict[str, Any]:
    """BOS in front of each text."""
    name = _SPECIAL[BOS]
    bos = {"SpecialToken": {"id": name, "type_id": 0}}
    text, second = ({"Sequence": {"id": x, "type_id": n}} for n, x in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [bos, text],
        "pair": [bos, text, second],
        "special_tokens": {name: {"id": name, "ids": [BOS], "tokens": [name]}},
    }

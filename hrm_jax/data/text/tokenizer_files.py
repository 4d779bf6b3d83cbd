"""The files that make up a tokenizer of Hugging Face: where they are, what they say, copies."""

from __future__ import annotations

import logging
import os
import pathlib
import shutil
from typing import Any

from hrm_jax import files
from hrm_jax.data.errors import DataError, reading

log = logging.getLogger("hrm_jax")

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("chat_template.jinja", "generation_config.json"),
)
_OTHER_FORMS = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model")
_ROLES = ("bos_token", "eos_token", "pad_token")


def tokenizer_file(path: str | os.PathLike[str]) -> pathlib.Path:
    """The `tokenizer.json` that a path to it, or to its folder, means; a `DataError` where there is
    none says how to make one of the files that are there."""
    file = pathlib.Path(path)
    if file.is_dir():
        file = file / "tokenizer.json"
    others = [name for name in _OTHER_FORMS if file.with_name(name).is_file()]
    if file.name in _OTHER_FORMS or (others and not file.is_file()):
        folder = file.parent
        make = f"AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')"
        if {"vocab.json", "merges.txt"} <= set(others):
            names = ", ".join(f"'{folder / name}'" for name in ("vocab.json", "merges.txt"))
            make = f"ByteLevelBPETokenizer({names}).save('{folder / 'tokenizer.json'}')"
        package = "tokenizers" if make.startswith("Byte") else "transformers"
        raise DataError(
            f"{file}: expected a tokenizer.json; it can be made of {' and '.join(others)} by "
            f'python -c "from {package} import {make.partition(".")[0].partition("(")[0]}; {make}"'
        )
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; expected a tokenizer.json")
    return file


def settings_of(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file; {} where there is no such file."""
    if not path.is_file():
        return {}
    with reading(path, "a JSON object of settings"):
        try:
            return files.read_json(path)
        except ValueError as error:
            raise DataError(str(error)) from error


def special_tokens(folder: pathlib.Path) -> dict[str, str]:
    """Names of special tokens by their role, as the files beside a `tokenizer.json` give them."""
    named: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        values = settings_of(folder / name)
        for role in _ROLES:
            value = values.get(role)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                named[role] = value
            elif value is not None:
                raise DataError(f"{folder / name}: {role} is {value!r}, expected a token's name")
    return named


def end_tokens(folder: pathlib.Path, vocab_size: int) -> list[int]:
    """The `eos_token_id`, one or a list, of `generation_config.json`, or else of `config.json`,
    beside a `tokenizer.json`; those that the tokenizer does not have are left out."""
    for path in (folder / "generation_config.json", folder / "config.json"):
        given = settings_of(path).get("eos_token_id")
        if given is None:
            continue
        ids = given if isinstance(given, list) else [given]
        if not all(type(x) is int for x in ids):
            raise DataError(f"{path}: eos_token_id is {given!r}, expected tokens, whole numbers")
        known = [x for x in ids if 0 <= x < vocab_size]
        if known != ids:
            log.warning(
                "%s: of eos_token_id %s the tokenizer has %s: it has %d tokens",
                path, given, known or "none", vocab_size,
            )  # fmt: skip
        return known
    return []


def copy_tokenizer(path: str | os.PathLike[str], folder: pathlib.Path) -> None:
    """Copies a tokenizer's files into a folder, where it is read as from its own."""
    file = tokenizer_file(path)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / "tokenizer.json")
    for name in TOKENIZER_FILES[1:]:
        if file.with_name(name).is_file():
            shutil.copyfile(file.with_name(name), folder / name)
    ends = settings_of(file.with_name("config.json")).get("eos_token_id")
    if ends is not None and not (folder / "generation_config.json").exists():
        files.write_json(folder / "generation_config.json", {"eos_token_id": ends})

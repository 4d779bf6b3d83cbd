"""Text to tokens and back: UTF-8 bytes, or a tokenizer of Hugging Face, behind one interface."""

from __future__ import annotations

import codecs
import importlib
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError

PAD, BOS, EOS, PLAN = 256, 257, 258, 259

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@runtime_checkable
class IncrementalDecoder(Protocol):
    """Turns tokens into text as they come, never half a character.

    All that `feed` and `finish` return, put together, is what `decode` makes of all the tokens.
    """

    def feed(self, ids: Iterable[int]) -> str:
        """Takes more tokens and returns the text that is certain now; it may be empty."""

    def finish(self) -> str:
        """Returns what was held back; half a character becomes U+FFFD."""


@runtime_checkable
class Tokenizer(Protocol):
    """What text becomes for a model: tokens in [0, vocab_size).

    PAD fills up short sequences, BOS begins a document, EOS ends it; None where there is none.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def pad_id(self) -> int | None: ...

    @property
    def bos_id(self) -> int | None: ...

    @property
    def eos_id(self) -> int | None: ...

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of `text` without special ones; lone surrogates become U+FFFD."""

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of tokens; special ones are left out, invalid bytes become U+FFFD."""

    def stream(self) -> IncrementalDecoder:
        """Returns a decoder for tokens that come one after the other."""


def utf8(text: str) -> bytes:
    """Returns `text` in UTF-8; lone surrogates, which UTF-8 has no bytes for, become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        whole = "".join(_REPLACEMENT if "\ud800" <= c <= "\udfff" else c for c in text)
        return whole.encode()


class ByteTokenizer:
    """The bytes of UTF-8 are the tokens 0 to 255; then come PAD, BOS, EOS and PLAN."""

    vocab_size = 260
    pad_id = PAD
    bos_id = BOS
    eos_id = EOS
    plan_id = PLAN

    def encode(self, text: str) -> list[int]:
        return list(utf8(text))

    def encode_bytes(self, data: bytes | npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        """Returns the tokens of bytes that are UTF-8 already, int32 [N]."""
        return np.frombuffer(data, np.uint8).astype(np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        return _only_bytes(ids).decode(errors="replace")

    def stream(self) -> IncrementalDecoder:
        return _ByteStream()


def _only_bytes(ids: Iterable[int]) -> bytes:
    return bytes(i for i in map(int, ids) if 0 <= i < 256)


class _ByteStream:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, ids: Iterable[int]) -> str:
        return self._decoder.decode(_only_bytes(ids))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class PretrainedTokenizer:
    """A tokenizer of Hugging Face's `tokenizers`, read from its `tokenizer.json`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        bos: str | None = None,
        eos: str | None = None,
        pad: str | None = None,
    ) -> None:
        """Reads the files; nothing is fetched from the network.

        Special tokens that are not named are those of `tokenizer_config.json` or
        `special_tokens_map.json` beside the `tokenizer.json`, and absent if these name none.

        Raises:
            DataError: A file is missing or broken, or a special token is not in the vocabulary.
            ImportError: The package `tokenizers` is not installed.
        """
        try:
            package = importlib.import_module("tokenizers")
        except ImportError as error:
            raise ImportError(
                f"{path}: reading it needs the package tokenizers: pip install 'hrm_jax[hf]'"
            ) from error
        file = pathlib.Path(path)
        if file.is_dir():
            file = file / "tokenizer.json"
        if not file.is_file():
            raise DataError(f"{file}: there is no such file; expected a tokenizer.json")
        try:
            self._inner: Any = package.Tokenizer.from_file(os.fspath(file))
        except Exception as error:  # the package raises plain Exception
            raise DataError(f"{file}: not a tokenizer: {error}") from error
        self._inner.no_truncation()
        self._inner.no_padding()
        self._inner.encode_special_tokens = True  # "</s>" in a text is four characters
        self.vocab_size: int = 1 + max(self._inner.get_vocab(with_added_tokens=True).values())
        named = _special_tokens(file.parent)
        self.bos_id = self._special(file, bos or named.get("bos_token"), "bos")
        self.eos_id = self._special(file, eos or named.get("eos_token"), "eos")
        self.pad_id = self._special(file, pad or named.get("pad_token"), "pad")

    def _special(self, file: pathlib.Path, name: str | None, role: str) -> int | None:
        if name is None:
            return None
        found: int | None = self._inner.token_to_id(name)
        if found is None:
            raise DataError(f"{file}: the {role} token {name!r} is not in the vocabulary")
        return found

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`, which may spell special tokens but never becomes them."""
        ids: list[int] = self._inner.encode(utf8(text).decode(), add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        text: str = self._inner.decode([int(i) for i in ids], skip_special_tokens=True)
        return text

    def stream(self) -> IncrementalDecoder:
        return _SuffixStream(self)


def _special_tokens(folder: pathlib.Path) -> dict[str, str]:
    """Names of special tokens as the files beside a `tokenizer.json` give them."""
    named: dict[str, str] = {}
    for path in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        if not path.is_file():
            continue
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path}: not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise DataError(f"{path}: expected a JSON object, found {type(values).__name__}")
        for role in ("bos_token", "eos_token", "pad_token"):
            value = values.get(role)
            if isinstance(value, dict):
                value = value.get("content")
            if isinstance(value, str):
                named[role] = value
    return named


class _SuffixStream:
    """Decodes a growing suffix of the tokens and returns by how much its text has grown.

    The suffix begins with tokens whose text is out already, because some decoders drop a space
    before the first token. Text that ends in U+FFFD may be the beginning of a character.
    """

    _PATIENCE = 32  # tokens; no character has as many, so bytes that never become one are let go

    def __init__(self, tokenizer: PretrainedTokenizer) -> None:
        self._tokenizer = tokenizer
        self._suffix: list[int] = []
        self._known = 0  # tokens at the suffix' beginning whose text is out

    def feed(self, ids: Iterable[int]) -> str:
        pieces = []
        for token in ids:
            self._suffix.append(int(token))
            text = self._fresh()
            held = len(self._suffix) - self._known
            if text and (held > self._PATIENCE or not text.endswith(_REPLACEMENT)):
                pieces.append(self._release(text))
        return "".join(pieces)

    def finish(self) -> str:
        return self._release(self._fresh())

    def _fresh(self) -> str:
        """Text of the tokens that are not known yet."""
        before = self._tokenizer.decode(self._suffix[: self._known])
        return self._tokenizer.decode(self._suffix)[len(before) :]

    def _release(self, text: str) -> str:
        del self._suffix[: self._known]
        self._known = len(self._suffix)
        return text


def load_tokenizer(name_or_path: str) -> Tokenizer:
    """The tokenizer named `bytes`, or that of a `tokenizer.json` or of a folder with one.

    Raises:
        DataError: There is no such file, or it is no tokenizer.
        ImportError: The package `tokenizers` is needed and not installed.
    """
    return ByteTokenizer() if name_or_path == "bytes" else PretrainedTokenizer(name_or_path)


def suppressed_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Special tokens that a model is never to give; the EOS is not among them."""
    special = {tokenizer.pad_id, tokenizer.bos_id} - {None, tokenizer.eos_id}
    if isinstance(tokenizer, ByteTokenizer):
        special |= {PLAN}
    return tuple(sorted(token for token in special if token is not None))

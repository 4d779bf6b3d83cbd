"""Text to tokens and back: UTF-8 bytes, or a tokenizer of Hugging Face, behind one interface."""

from __future__ import annotations

import codecs
import importlib
import os
import pathlib
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from hrm_jax import files
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

    vocab_size: int
    pad_id: int | None
    bos_id: int | None
    eos_id: int | None

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

    vocab_size: int = 260
    pad_id: int | None = PAD
    bos_id: int | None = BOS
    eos_id: int | None = EOS

    def encode(self, text: str) -> list[int]:
        return list(utf8(text))

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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Reads the file, or that in a folder; nothing is fetched from the network.

        Special tokens are those of `tokenizer_config.json` or `special_tokens_map.json` beside it,
        and absent if these name none. A `DataError` names a file that is missing or broken, and a
        special token that is not in the vocabulary.
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
        ids = {role: self._inner.token_to_id(name) for role, name in named.items()}
        for role, found in ids.items():
            if found is None:
                raise DataError(f"{file}: {role} {named[role]!r} is not in the vocabulary")
        self.bos_id: int | None = ids.get("bos_token")
        self.eos_id: int | None = ids.get("eos_token")
        self.pad_id: int | None = ids.get("pad_token")

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
            values = files.read_json(path)
        except ValueError as error:
            raise DataError(str(error)) from error
        for role in ("bos_token", "eos_token", "pad_token"):
            value = values.get(role)
            value = value.get("content") if isinstance(value, dict) else value
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
    """The tokenizer named `bytes`, or a `PretrainedTokenizer`."""
    return ByteTokenizer() if name_or_path == "bytes" else PretrainedTokenizer(name_or_path)


def suppressed_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Special tokens that a model is never to give; the EOS is not among them."""
    special = {tokenizer.pad_id, tokenizer.bos_id} - {None, tokenizer.eos_id}
    if isinstance(tokenizer, ByteTokenizer):
        special |= {PLAN}
    return tuple(sorted(token for token in special if token is not None))

"""Text to tokens and back: UTF-8 bytes, or a tokenizer of Hugging Face, behind one interface."""

from __future__ import annotations

import codecs
import contextlib
import functools
import importlib
import json
import operator
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from hrm_jax.data.errors import DataError, reading
from hrm_jax.data.text.tokenizer_files import (
    end_tokens,
    settings_of,
    special_tokens,
    tokenizer_file,
)

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
        """Returns the tokens of `text`, which may spell special tokens but never becomes them; lone
        surrogates become U+FFFD."""

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of tokens; special ones and those beyond the vocabulary are left out,
        invalid bytes become U+FFFD. `ValueError` for what is no token: -1, 1.5."""

    def stream(self) -> IncrementalDecoder:
        """Returns a decoder for tokens that come one after the other."""


def around(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Special tokens that a tokenizer puts in front of each text and behind it; BOS in front where
    it has no attribute `around` that says so."""
    bos = tokenizer.bos_id
    return getattr(tokenizer, "around", (() if bos is None else (bos,), ()))


def end_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """All tokens that end an answer: `eos_ids` where the tokenizer has that, else EOS, if any."""
    return getattr(tokenizer, "eos_ids", () if tokenizer.eos_id is None else (tokenizer.eos_id,))


def prompt_tokens(tokenizer: Tokenizer, text: str, *, special: bool = False) -> list[int]:
    """What a model is shown of a text: its tokens, with those the tokenizer puts around them. Where
    the text spells special tokens it becomes them if `special`, and stays text if not."""
    prefix, suffix = around(tokenizer)
    read: Any = {"special": True} if special and hasattr(tokenizer, "special") else {}
    return [*prefix, *tokenizer.encode(text, **read), *suffix]


def encode_in_range(tokenizer: Tokenizer, text: str, where: str) -> list[int]:
    """The tokens of a text; a `DataError` says where it is from if the tokenizer fails on it, or
    gives tokens beyond its own vocabulary, which would be taken for others."""
    with reading(where, "a text that the tokenizer can read"):
        ids = tokenizer.encode(text)
    wrong = next((i for i in ids if not 0 <= i < tokenizer.vocab_size), None)
    if wrong is not None:
        raise DataError(f"{where}: token {wrong}, expected tokens in [0, {tokenizer.vocab_size})")
    return ids


def checked(ids: Iterable[Any]) -> list[int]:
    """Tokens as whole numbers, 0 or more; `ValueError` names what is none."""
    found = []
    for token in ids:
        try:
            found.append(operator.index(token))
        except TypeError as error:
            raise ValueError(f"expected tokens, whole numbers, got {token!r}") from error
        if found[-1] < 0:
            raise ValueError(f"expected tokens, 0 or more, got {token}")
    return found


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
    return bytes(i for i in checked(ids) if i < 256)


class _ByteStream:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, ids: Iterable[int]) -> str:
        return self._decoder.decode(_only_bytes(ids))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class PretrainedTokenizer:
    """A tokenizer of Hugging Face's `tokenizers`, read from its `tokenizer.json`.

    Besides what every tokenizer has: `special`, its special tokens by what spells them; `eos_ids`,
    all tokens that end an answer; `around`, the special tokens in front of each text and behind it.
    What these are is said by the file's post-processor; where that adds nothing, by
    `add_bos_token` and `add_eos_token` of `tokenizer_config.json`, if they are true.
    """

    def __init__(self, path: str | os.PathLike[str], *, always_begin: bool = False) -> None:
        """Reads the file, or that in a folder; nothing is fetched from the network.

        Special tokens are those of `tokenizer_config.json` or `special_tokens_map.json` beside it,
        and absent if these name none; `generation_config.json` or `config.json` may name further
        end tokens. A `DataError` names a file that is missing or broken, and a special token that
        is not in the vocabulary.

        Args:
            path: The file or its folder.
            always_begin: Whether each text begins with BOS (EOS where there is no BOS), whatever
                the files say.
        """
        try:
            self._package: Any = importlib.import_module("tokenizers")
        except ImportError as error:
            raise ImportError(
                f"{path}: reading it needs the package tokenizers: pip install 'hrm_jax[hf]'"
            ) from error
        file = self._file = tokenizer_file(path)
        with _named(f"{file}: not a tokenizer"):
            self._inner: Any = self._package.Tokenizer.from_file(os.fspath(file))
            self._inner.no_truncation()
            self._inner.no_padding()
            self._inner.encode_special_tokens = True  # "</s>" in a text is four characters
            self.vocab_size: int = 1 + max(self._inner.get_vocab(with_added_tokens=True).values())
            around = self._around()
        named = special_tokens(file.parent)
        ids = {role: self._inner.token_to_id(name) for role, name in named.items()}
        for role, found in ids.items():
            if found is None:
                raise DataError(f"{file}: {role} {named[role]!r} is not in the vocabulary")
        self._inner.add_special_tokens(list(named.values()))  # where the file does not say so
        self.special: Mapping[str, int] = {
            x.content: i for i, x in self._inner.get_added_tokens_decoder().items() if x.special
        }
        self.bos_id: int | None = ids.get("bos_token")
        self.pad_id: int | None = ids.get("pad_token")
        ends = [ids["eos_token"]] if "eos_token" in ids else []
        ends += end_tokens(file.parent, self.vocab_size)
        self.eos_ids: tuple[int, ...] = tuple(dict.fromkeys(ends))
        self.eos_id: int | None = next(iter(ends), None)
        begin = self.eos_id if self.bos_id is None else self.bos_id
        if always_begin:
            around = () if begin is None else (begin,), ()
        elif around == ((), ()):
            settings = settings_of(file.with_name("tokenizer_config.json"))
            asked = (("add_bos_token", self.bos_id), ("add_eos_token", self.eos_id))
            around = tuple(  # type: ignore[assignment]
                (x,) if settings.get(name) is True and x is not None else () for name, x in asked
            )
        self.around = around

    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the post-processor puts in front of a text and behind it."""
        plain = self._inner.encode("a", add_special_tokens=False).ids
        whole = self._inner.encode("a").ids
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return tuple(whole[:start]), tuple(whole[start + len(plain) :])
        raise ValueError("its post-processor changes the text's own tokens")

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The tokens of `text`. Where it spells special tokens, such as the markers of chats, it
        becomes them if `special`, and stays text if not."""
        if not special:
            with _named(f"{self._file}: the tokenizer fails on a text"):
                ids: list[int] = self._inner.encode(
                    utf8(text).decode(), add_special_tokens=False
                ).ids
            if self._special_ids.isdisjoint(ids):
                return ids
            # The models of some tokenizers have special tokens among their ordinary pieces.
        return self.encode_parts([(text, special)])

    def encode_parts(self, parts: Iterable[tuple[str, bool]]) -> list[int]:
        """The tokens of a text that comes in parts, as one. Where a part spells special tokens it
        becomes them if it says True, and stays text if not."""
        with _named(f"{self._file}: the tokenizer fails on a text"):
            inner, spelled, back = self._respelled
            names = re.compile("|".join(map(re.escape, sorted(spelled, key=len, reverse=True))))
            text = ""
            for part, special in parts:
                part = utf8(part).decode()
                read = special and spelled
                text += names.sub(lambda match: spelled[match[0]], part) if read else part
            return [back.get(i, i) for i in inner.encode(text, add_special_tokens=False).ids]

    @functools.cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.special.values())

    @functools.cached_property
    def _respelled(self) -> tuple[Any, dict[str, str], dict[int, int]]:
        """The same tokenizer with spellings of special tokens that nobody can guess, these by the
        known ones, and from its tokens to ours."""
        spelled = {name: f"\ufdd0{secrets.token_hex(16)}\ufdd1" for name in self.special}
        content = json.loads(self._inner.to_str())
        for token in content["added_tokens"]:
            token["content"] = spelled.get(token["content"], token["content"])
        content["post_processor"] = None
        model = content["model"]
        if model.get("unk_token") in spelled:
            model["unk_token"] = spelled[model["unk_token"]]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {spelled.get(k, k): v for k, v in model["vocab"].items()}
        else:
            model["vocab"] = [[spelled.get(k, k), score] for k, score in model["vocab"]]
        inner = self._package.Tokenizer.from_str(json.dumps(content))
        back = {inner.token_to_id(spelled[name]): i for name, i in self.special.items()}
        return inner, spelled, back

    def decode(self, ids: Iterable[int]) -> str:
        known = [i for i in checked(ids) if i < self.vocab_size]
        with _named(f"{self._file}: the tokenizer fails on tokens"):
            return str(self._inner.decode(known, skip_special_tokens=True))

    def stream(self) -> IncrementalDecoder:
        return _SuffixStream(self)


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Makes a `DataError` of whatever the package raises: plain `Exception`s, and panics of its
    Rust code (a regular expression that takes too long, for one), which are not even these."""
    try:
        yield
    except DataError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{what}: {error}") from error


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
        for token in checked(ids):
            self._suffix.append(token)
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


def load_tokenizer(name_or_path: str, *, always_begin: bool = False) -> Tokenizer:
    """The tokenizer named `bytes`, or a `PretrainedTokenizer`."""
    if name_or_path == "bytes":
        return ByteTokenizer()
    return PretrainedTokenizer(name_or_path, always_begin=always_begin)


def suppressed_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Special tokens that a model is never to give; those that end an answer are not among them."""
    special = {tokenizer.pad_id, tokenizer.bos_id} - {None, *end_ids(tokenizer)}
    if isinstance(tokenizer, ByteTokenizer):
        special |= {PLAN}
    return tuple(sorted(token for token in special if token is not None))

"""Training batches and held-out parts of documents."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.data.pipeline import Batch, Draws, Indices
from hrm_jax.data.text.documents import Documents
from hrm_jax.data.text.token_arrays import TokenDocuments
from hrm_jax.data.text.tokenizers import ByteTokenizer, Tokenizer, around, encode_in_range

Tokens = npt.NDArray[np.int32]


AnyDocuments = TypeVar("AnyDocuments", Documents, TokenDocuments)


def split_documents(
    documents: AnyDocuments, held_out: float, seed: int
) -> tuple[AnyDocuments, AnyDocuments]:
    """Training and held-out documents, at least one each, in the order given.

    A share `held_out` of the (different) documents is kept aside, chosen by a hash of their
    contents and the seed: order and names do not matter, and equal ones stay on one side.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}, expected more than 0 and less than 1")
    salt = f"{seed}:".encode()
    hashes = [hashlib.sha256(salt + documents[i]).digest() for i in range(len(documents))]
    ranked = sorted(set(hashes))
    if len(ranked) == 1:
        raise DataError(
            f"{documents.names[0]}: one document cannot be divided into training and held-out "
            "text; give a held-out file, or let each line or paragraph be a document"
        )
    chosen = set(ranked[: min(max(1, round(held_out * len(ranked))), len(ranked) - 1)])
    test = [h in chosen for h in hashes]
    return (
        documents.select(i for i, out in enumerate(test) if not out),
        documents.select(i for i, out in enumerate(test) if out),
    )


class TextWindows(Draws):
    """Windows of running text: tokens, int32 [B, before + S], of which the last S are the window.

    The documents are one stream, BOS document EOS BOS document EOS …, with what the tokenizer puts
    in front of texts in the place of BOS, closed to a ring: each epoch cuts it, from a random place
    on, into windows one after the other and draws these in random order. Every token is in one
    window per epoch at most; less than one window's length is left out. A stream shorter than one
    window goes round in it.
    """

    def __init__(
        self,
        documents: Documents | TokenDocuments,
        tokenizer: Tokenizer,
        length: int,
        *draws: int,
        before: int = 0,
        **named: int,
    ) -> None:
        """Makes tokens of the documents; `length` is S, and what follows is that of `Draws`."""
        if length < 1:
            raise ValueError(f"length is {length}, expected 1 or more")
        self._stream, _ = joined(documents, tokenizer)
        self._length, self._before = length, before
        super().__init__(max(1, len(self._stream) // length), *draws, **named)

    def batch(self, index: int, items: Indices, epochs: Indices) -> Batch:
        numbers, inverse = np.unique(epochs, return_inverse=True)
        places = np.array([self._place(epoch) for epoch in numbers])
        first = places[inverse] + items * self._length
        at = first[:, None] + np.arange(-self._before, self._length)
        return {"tokens": self._stream[at % len(self._stream)].astype(np.int32)}

    def _place(self, epoch: int) -> int:
        """Where the stream is cut first in an epoch."""
        random = np.random.Generator(np.random.PCG64([self.seed, 1, epoch]))
        return int(random.integers(len(self._stream)))


def joined(
    documents: Documents | TokenDocuments, tokenizer: Tokenizer
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Documents one behind the other, with what the tokenizer puts around texts, and EOS behind
    each: tokens, uint16 where these suffice and else int32, and where each document begins."""
    (prefix, end), eos = around(tokenizer), tokenizer.eos_id
    if eos is not None and end[-1:] != (eos,):
        end = (*end, eos)
    parts: list[npt.ArrayLike] = []
    lengths = [0]
    for i in range(len(documents)):
        tokens = encode_document(documents, i, tokenizer)
        parts += [prefix, tokens, end]
        lengths.append(len(prefix) + len(tokens) + len(end))
    small = tokenizer.vocab_size <= np.iinfo(np.uint16).max + 1
    stream = np.concatenate(parts, dtype=np.uint16 if small else np.int32, casting="unsafe")
    return stream, np.cumsum(lengths)[:-1]


def encode_document(
    documents: Documents | TokenDocuments, index: int, tokenizer: Tokenizer
) -> Tokens:
    """Returns the tokens of a document without special ones, int32 [N]; a `DataError` where one is
    beyond the vocabulary."""
    if isinstance(documents, TokenDocuments):
        return documents.rows[index]
    if isinstance(tokenizer, ByteTokenizer):
        return np.frombuffer(documents[index], np.uint8).astype(np.int32)
    return np.array(encode_in_range(tokenizer, documents.text(index), documents.names[index]))


def eval_windows(
    documents: Documents | TokenDocuments,
    tokenizer: Tokenizer,
    length: int,
    stride: int,
    before: int = 0,
) -> tuple[Tokens, npt.NDArray[np.bool_]]:
    """Cuts documents into overlapping windows such that each of their tokens is scored once.

    Returns tokens, int32 [N, before + length], filled up with PAD; and which of them are scored,
    bool: in each window the last `stride`, or all but the first where it begins its document. In
    front of the windows stand the `before` tokens that precede them in their documents, filled up
    with EOS, which ends the document before.

    A document begins with what the tokenizer puts in front of a text, or else with EOS, which ends
    the one before, or else with BOS; these are not scored. No window reaches over the end of a
    document. Bits per byte of a model are thus the sum over the mask of
    -log2 p(token | tokens before it in the row), divided by `len(documents.tokens)`.
    """
    if not 1 <= stride < length:
        raise ValueError(f"stride is {stride}, expected 1 to length - 1 = {length - 1}")
    ends = (x for x in (tokenizer.eos_id, tokenizer.bos_id) if x is not None)
    start = around(tokenizer)[0] or tuple(ends)[:1]
    if not start:
        raise ValueError(
            "the tokenizer has neither a BOS nor an EOS token for documents to start with"
        )
    pad = start[0] if tokenizer.pad_id is None else tokenizer.pad_id
    front = pad if tokenizer.eos_id is None else tokenizer.eos_id
    tokens, masks = [], []
    column = np.arange(-before, length)
    for i in range(len(documents)):
        sequence = np.concatenate([start, encode_document(documents, i, tokenizer)])
        beyond = max(0, len(sequence) - length)
        first = stride * np.arange(1 + -(-beyond // stride))[:, None]
        at = first + column
        inside = (at >= 0) & (at < len(sequence))
        filled = np.where(inside, sequence[np.clip(at, 0, len(sequence) - 1)], pad)
        tokens.append(np.where(at < 0, front, filled))
        masks.append(inside & (column >= np.where(first == 0, len(start), length - stride)))
    return np.concatenate(tokens, dtype=np.int32), np.concatenate(masks)

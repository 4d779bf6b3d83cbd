"""Texts read on and on: what follows in a row's next batch is what follows in its text."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax.data.pipeline import own_rows
from hrm_jax.data.text.corpus import joined
from hrm_jax.data.text.documents import Documents
from hrm_jax.data.text.token_arrays import TokenDocuments
from hrm_jax.data.text.tokenizers import Tokenizer

NAMES = (
    *("Ana", "Beatriz", "Carlos", "Diego", "Elena", "Fernando", "Gloria", "Hugo", "Irene"),
    *("Julia", "Lucas", "Marta", "Nuria", "Pablo", "Raquel", "Sofía"),
)
"""Of whom it is told in `Introductions`; no two begin alike."""

_SAID, _ASKED = "Me llamo {}. ", " Me llamo"


class Stream:
    """Documents as one sequence of tokens, closed to a ring, and where each of them begins."""

    def __init__(self, documents: Documents | TokenDocuments, tokenizer: Tokenizer) -> None:
        self.tokens, starts = joined(documents, tokenizer)
        self.begins = np.zeros(len(self.tokens), bool)
        self.begins[starts] = True

    def segment(self, at: npt.NDArray[Any], length: int) -> dict[str, npt.NDArray[Any]]:
        """Tokens [B, length + 1] from these places [B] on, of which the first is only read and the
        last only predicted, and whether a document begins among those that are read."""
        index = (np.asarray(at)[:, None] + np.arange(length + 1)) % len(self.tokens)
        return {
            "tokens": self.tokens[index].astype(np.int32),
            "fresh": np.any(self.begins[index[:, :-1]], axis=1),
            "counted": np.ones((len(index), length), bool),
        }


class TextStreams:
    """Batches without end for each row of which the next batch has what follows, all of this
    process: `Stream.segment`. Rows begin at equal distances, from a random place on.
    """

    def __init__(
        self,
        stream: Stream,
        length: int,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        rows = own_rows(batch_size, process_index, process_count)
        first = int(np.random.default_rng(seed).integers(len(stream.tokens)))
        every = np.arange(batch_size) * (len(stream.tokens) // batch_size)
        self.stream, self.length, self.batch_size = stream, length, batch_size
        self.places = first + every[rows]

    def __len__(self) -> int:
        return sys.maxsize // self.batch_size

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[Any]]:
        return self.stream.segment(self.places + index * self.length, self.length)


def held_out_segments(
    stream: Stream, length: int, rows: int, segments: int
) -> dict[str, npt.NDArray[Any]]:
    """`Stream.segment` of so many segments one after the other, [rows, segments, …], of rows at
    equal distances; fewer segments where the text is shorter. `ValueError` where it has not one
    for each row."""
    every = len(stream.tokens) // rows
    segments = min(segments, (every - 1) // length)
    if segments < 1:
        raise ValueError(
            f"{len(stream.tokens):,} held-out tokens are too few for {rows} rows of {length}"
        )
    places = np.arange(rows)[:, None] * every + np.arange(segments) * length
    found = stream.segment(places.reshape(-1), length)
    found = {k: v.reshape(rows, segments, *v.shape[1:]) for k, v in found.items()}
    found["fresh"][:, 0] = True
    return found


class Introductions:
    """Texts of a few segments each, for which a memory is needed: the first begins with someone's
    name, which is told again in the last. Between is what the stream has, of which nothing counts.

    Item (row, number) is a pure function of the seed. Batches are like those of `TextStreams`.
    """

    def __init__(
        self,
        stream: Stream,
        tokenizer: Tokenizer,
        length: int,
        segments: int,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        self.stream, self.length, self.segments, self.seed = stream, length, segments, seed
        self.batch_size = batch_size
        self.rows = own_rows(batch_size, process_index, process_count)
        said = [tokenizer.encode(_SAID.format(name)) for name in NAMES]
        asked = [tokenizer.encode(f"{_ASKED} {name}.") for name in NAMES]
        self.known = min(_differ(asked[0], x) for x in asked[1:])  # where names begin
        self.longest = max(map(len, said + asked))
        if self.longest > length:
            raise ValueError(f"length: {length} tokens, but an introduction takes {self.longest}")
        self.said, self.asked = ([np.array(x, np.int32) for x in texts] for texts in (said, asked))

    def __len__(self) -> int:
        return sys.maxsize // self.batch_size

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[Any]]:
        parts = []
        for row in self.rows.tolist():  # they end in turn, so that something counts in each batch
            number, segment = divmod(index + row, self.segments)
            parts.append({k: x[segment] for k, x in self.text(row, number).items()})
        return {k: np.stack([x[k] for x in parts]) for k in parts[0]}

    def text(self, row: int, number: int) -> dict[str, npt.NDArray[Any]]:
        """A whole text: tokens [segments, length + 1], `fresh` and `counted`."""
        random = np.random.default_rng([self.seed, row, number])
        name = int(random.integers(len(NAMES)))
        size = self.segments * self.length + 1
        place = int(random.integers(len(self.stream.tokens)))
        tokens = self.stream.tokens[(place + np.arange(size)) % len(self.stream.tokens)].astype(
            np.int32
        )
        said, asked = self.said[name], self.asked[name]
        tokens[: len(said)] = said
        start = size - self.longest  # the same for all, which else told how long the name is
        tokens[start : start + len(asked)] = asked
        counted = np.zeros(size, bool)
        counted[start + self.known : start + len(asked)] = True
        index = np.arange(self.segments)[:, None] * self.length + np.arange(self.length + 1)
        return {
            "tokens": tokens[index],
            "fresh": np.arange(self.segments) == 0,
            "counted": counted[index[:, 1:]],
        }

    def texts(self, number: int) -> dict[str, npt.NDArray[Any]]:
        """So many whole texts [number, segments, …]."""
        found = [self.text(i, 0) for i in range(number)]
        return {k: np.stack([x[k] for x in found]) for k in found[0]}


def _differ(one: list[int], other: list[int]) -> int:
    """Where two sequences begin to differ."""
    return next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)

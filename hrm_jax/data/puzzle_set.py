"""Puzzle data sets in memory: examples that belong to puzzles that belong to groups."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError

Array = npt.NDArray[Any]

_PART = 1 << 22  # entries of large arrays that are looked at at a time


@dataclasses.dataclass(frozen=True)
class PuzzleMetadata:
    """What the reference's `dataset.json` says about one split; the same field names."""

    pad_id: int  # fills up short sequences
    ignore_label_id: int | None  # is not scored; None where every label is
    blank_identifier_id: int  # means "no puzzle"
    vocab_size: int  # tokens are in [0, vocab_size)
    seq_len: int
    num_puzzle_identifiers: int  # identifiers are in [0, num_puzzle_identifiers)
    total_groups: int  # in all sets of the split
    mean_puzzle_examples: float  # examples per puzzle, over the split
    sets: tuple[str, ...] = ("all",)  # that the split is stored in


@dataclasses.dataclass(frozen=True)
class PuzzleSet:
    """One split of a puzzle data set with E examples of S tokens, N puzzles and G groups.

    Attributes:
        inputs: Tokens [E, S], uint8 where the vocabulary fits.
        labels: Tokens or `metadata.ignore_label_id` [E, S], uint8 where they fit.
        puzzle_identifiers: Identifier of each puzzle, int32 [N].
        puzzle_indices: Puzzle i holds the examples [puzzle_indices[i], puzzle_indices[i + 1]),
            int32 [N + 1].
        group_indices: Group i holds the puzzles [group_indices[i], group_indices[i + 1]),
            int32 [G + 1].
        ratings: Difficulty of each example, float32 [E], or None where it is not known.
    """

    inputs: Array
    labels: Array
    puzzle_identifiers: Array
    puzzle_indices: Array
    group_indices: Array
    metadata: PuzzleMetadata
    ratings: Array | None = None

    def __len__(self) -> int:
        """Number of examples, E."""
        return len(self.inputs)

    @classmethod
    def build(
        cls,
        inputs: npt.ArrayLike,
        labels: npt.ArrayLike,
        *,
        vocab_size: int,
        ignore_label_id: int | None,
        puzzle_identifiers: npt.ArrayLike,
        puzzle_indices: npt.ArrayLike,
        group_indices: npt.ArrayLike,
        num_puzzle_identifiers: int,
        ratings: npt.ArrayLike | None = None,
        pad_id: int = 0,
        blank_identifier_id: int = 0,
        where: str = "puzzle set",
    ) -> PuzzleSet:
        """Makes a validated set of one stored set `all`, narrowing dtypes and counting.

        The arguments are integers in the shapes of the attributes; `where` names the data in the
        errors of `validate`, which come through.
        """
        inputs = narrow_tokens(np.asarray(inputs), f"{where}: inputs")
        labels = narrow_tokens(np.asarray(labels), f"{where}: labels")
        identifiers = _as_int32(puzzle_identifiers, f"{where}: puzzle_identifiers")
        puzzles = _as_int32(puzzle_indices, f"{where}: puzzle_indices")
        groups = _as_int32(group_indices, f"{where}: group_indices")
        metadata = PuzzleMetadata(
            pad_id=pad_id,
            ignore_label_id=ignore_label_id,
            blank_identifier_id=blank_identifier_id,
            vocab_size=vocab_size,
            seq_len=inputs.shape[-1] if inputs.ndim else 0,
            num_puzzle_identifiers=num_puzzle_identifiers,
            total_groups=groups.size - 1,
            mean_puzzle_examples=len(inputs) / max(1, identifiers.size) if inputs.ndim else 0.0,
        )
        if ratings is not None:
            ratings = np.asarray(ratings, np.float32)
        result = cls(inputs, labels, identifiers, puzzles, groups, metadata, ratings)
        result.validate(where)
        return result

    @classmethod
    def simple(
        cls,
        inputs: npt.ArrayLike,
        labels: npt.ArrayLike,
        vocab_size: int,
        ignore_label_id: int | None,
        ratings: npt.ArrayLike | None = None,
    ) -> PuzzleSet:
        """Makes a set in which every example is a puzzle and a group of its own, identifier 0."""
        inputs, labels = np.asarray(inputs)[:, None], np.asarray(labels)[:, None]
        return cls.grouped(inputs, labels, vocab_size, ignore_label_id, ratings)

    @classmethod
    def grouped(
        cls,
        inputs: Array,
        labels: Array,
        vocab_size: int,
        ignore_label_id: int | None,
        ratings: npt.ArrayLike | None = None,
    ) -> PuzzleSet:
        """Makes a set in which every example is a puzzle, K of them a group, all identifier 0.

        Args:
            inputs, labels: As of `build`, [G, K, S].
            ratings: Difficulty of each group [G], or None.
        """
        groups, each = inputs.shape[:2]
        count = groups * each
        return cls.build(
            inputs.reshape(count, *inputs.shape[2:]),
            labels.reshape(labels.shape[0] * labels.shape[1], *labels.shape[2:]),
            vocab_size=vocab_size,
            ignore_label_id=ignore_label_id,
            puzzle_identifiers=np.zeros(count, np.int32),
            puzzle_indices=np.arange(count + 1),
            group_indices=np.arange(0, count + 1, each),
            num_puzzle_identifiers=1,
            ratings=None if ratings is None else np.repeat(ratings, each),
        )

    def example_identifiers(self) -> Array:
        """The puzzle identifier of each example, int32 [E]."""
        return np.repeat(self.puzzle_identifiers, np.diff(self.puzzle_indices))

    def validate(self, where: str) -> None:
        """Checks every invariant of the format.

        Raises:
            DataError: Names the data (`where`), array and row, what was found and expected.
        """
        meta = self.metadata
        if self.inputs.ndim != 2 or self.inputs.shape[1] != meta.seq_len or not len(self.inputs):
            raise DataError(
                f"{where}: inputs has shape {self.inputs.shape}, "
                f"expected (examples, seq_len) = (1 or more, {meta.seq_len})"
            )
        shapes: dict[str, tuple[Array, tuple[int, ...]]] = {
            "labels": (self.labels, self.inputs.shape),
            "puzzle_indices": (self.puzzle_indices, (self.puzzle_identifiers.size + 1,)),
            "puzzle_identifiers": (self.puzzle_identifiers, (self.puzzle_identifiers.size,)),
            "group_indices": (self.group_indices, (meta.total_groups + 1,)),
        }
        if self.ratings is not None:
            shapes["ratings"] = (self.ratings, (len(self),))
        for name, (array, shape) in shapes.items():
            if array.shape != shape:
                raise DataError(f"{where}: {name} has shape {array.shape}, expected {shape}")
        if not 0 <= meta.pad_id < meta.vocab_size:
            raise DataError(f"{where}: pad_id {meta.pad_id} is outside [0, {meta.vocab_size})")
        if not 0 <= meta.blank_identifier_id < meta.num_puzzle_identifiers:
            raise DataError(
                f"{where}: blank_identifier_id {meta.blank_identifier_id} is outside "
                f"[0, {meta.num_puzzle_identifiers})"
            )
        for name, stop, also in (
            ("inputs", meta.vocab_size, None),
            ("labels", meta.vocab_size, meta.ignore_label_id),
            ("puzzle_identifiers", meta.num_puzzle_identifiers, None),
        ):
            _check_range(where, name, getattr(self, name), stop, also)
        puzzles = self.puzzle_identifiers.size
        _check_indices(where, "puzzle_indices", self.puzzle_indices, len(self), "examples")
        _check_indices(where, "group_indices", self.group_indices, puzzles, "puzzles")
        mean = len(self) / puzzles
        if not np.isclose(meta.mean_puzzle_examples, mean, rtol=1e-3):
            raise DataError(
                f"{where}: mean_puzzle_examples is {meta.mean_puzzle_examples}, "
                f"but {len(self)} examples in {puzzles} puzzles make {mean}"
            )
        if self.ratings is not None and not np.isfinite(self.ratings).all():
            row = int(np.argmin(np.isfinite(self.ratings)))
            raise DataError(f"{where}: ratings, row {row}: {self.ratings[row]} is not finite")

    def digest(self) -> str:
        """Returns the SHA-256 of contents and metadata; the dtypes in memory do not count."""
        metadata = {**dataclasses.asdict(self.metadata), "sets": list(self.metadata.sets)}
        # As stored by another program the mean may differ in its last bits; it follows from the
        # arrays anyway.
        del metadata["mean_puzzle_examples"]
        sha = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
        fixed = {
            "inputs": "<i4",
            "labels": "<i4",
            "puzzle_identifiers": "<i4",
            "puzzle_indices": "<i8",
            "group_indices": "<i8",
            "ratings": "<f4",
        }
        for name, dtype in fixed.items():
            array = getattr(self, name)
            if array is not None:
                sha.update(f"{name}{array.shape}".encode())
                for _, part in in_parts(array):
                    sha.update(np.ascontiguousarray(part, dtype=dtype).tobytes())
        return sha.hexdigest()


def in_parts(array: Array) -> Iterator[tuple[int, Array]]:
    """Yields parts of an array of a few MB each, with their first rows: it may be a mapped file."""
    rows = max(1, _PART // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def narrow_tokens(array: Array, where: str) -> Array:
    """Casts integer tokens to uint8 if they all fit, else to int32.

    Raises:
        DataError: Not an integer array, or a value that does not fit 32 bits.
    """
    if array.dtype.kind not in "iu":
        raise DataError(f"{where}: dtype is {array.dtype}, expected integers")
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low >= 0 and high <= 255:
        return array.astype(np.uint8, copy=False)
    return _as_int32(array, where)


def _as_int32(values: npt.ArrayLike, where: str) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise DataError(f"{where}: dtype is {array.dtype}, expected integers")
    bounds = np.iinfo(np.int32)
    if array.size and (int(array.min()) < bounds.min or int(array.max()) > bounds.max):
        raise DataError(f"{where}: values do not fit 32 bits")
    return array.astype(np.int32, copy=False)


def _check_range(where: str, name: str, array: Array, stop: int, also: int | None) -> None:
    """Refuses values outside [0, stop) other than `also`."""
    if not array.size or (array.min() >= 0 and array.max() < stop):
        return
    for start, part in in_parts(array):
        bad = (part < 0) | (part >= stop)
        if also is not None:
            bad &= part != also
        if bad.any():
            row = np.unravel_index(int(np.argmax(bad)), part.shape)
            place = f"row {start + row[0]}" + (f", position {row[1]}" if len(row) > 1 else "")
            ignored = "" if also is None else f" or {also}"
            raise DataError(
                f"{where}: {name}, {place}: {part[row]} is outside [0, {stop}){ignored}"
            )


def _check_indices(where: str, name: str, array: Array, stop: int, of: str) -> None:
    """Refuses boundaries that do not rise strictly from 0 to `stop`."""
    if array[0] != 0 or array[-1] != stop:
        raise DataError(
            f"{where}: {name} runs from {array[0]} to {array[-1]}, expected 0 to {stop} ({of})"
        )
    falls = np.diff(array) <= 0
    if falls.any():
        row = int(np.argmax(falls))
        raise DataError(
            f"{where}: {name}, row {row + 1}: {array[row + 1]} follows {array[row]}, "
            f"expected a larger one (no empty ranges)"
        )

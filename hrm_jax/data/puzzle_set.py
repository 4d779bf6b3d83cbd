"""Puzzle data sets in memory: examples that belong to puzzles that belong to groups."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax.data.puzzle_format import (
    ARRAYS,
    Array,
    Report,
    check_metadata,
    check_set,
    check_totals,
    in_parts,
)


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

    Puzzle i holds the examples from puzzle_indices[i] up to but without puzzle_indices[i + 1], a
    group likewise its puzzles.
    """

    inputs: Array  # tokens [E, S], uint8 where they fit, else int32
    labels: Array  # tokens or `metadata.ignore_label_id`, likewise
    puzzle_identifiers: Array  # int32 [N]
    puzzle_indices: Array  # int32 [N + 1]
    group_indices: Array  # int32 [G + 1]
    metadata: PuzzleMetadata
    ratings: Array | None = None  # difficulty, float32 [E]; None where it is not known

    def __len__(self) -> int:
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
        name: str = "all",
    ) -> PuzzleSet:
        """Makes a validated set, which is stored as `name`, narrowing dtypes and counting."""
        inputs, labels = (_narrowed(x, np.uint8, np.int32) for x in (inputs, labels))
        indices = (puzzle_identifiers, puzzle_indices, group_indices)
        identifiers, puzzles, groups = (_narrowed(x, np.int32) for x in indices)
        metadata = PuzzleMetadata(
            pad_id=pad_id,
            ignore_label_id=ignore_label_id,
            blank_identifier_id=blank_identifier_id,
            vocab_size=vocab_size,
            seq_len=inputs.shape[-1] if inputs.ndim else 0,
            num_puzzle_identifiers=num_puzzle_identifiers,
            total_groups=groups.size - 1,
            mean_puzzle_examples=len(inputs) / max(1, identifiers.size) if inputs.ndim else 0.0,
            sets=(name,),
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
        """Makes a set of [G, K, S]: each example is a puzzle, K are a group; ratings are [G]."""
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
        """Checks every rule of the format; a `DataError` names `where`, array and row."""
        report = Report(strict=where)
        metadata = check_metadata(dataclasses.asdict(self.metadata), report)
        names = (*ARRAYS, "ratings") if self.ratings is not None else ARRAYS
        arrays = {name: getattr(self, name) for name in names}
        check_totals(metadata, {"all": check_set("all", arrays, metadata, report)}, report)

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


def _narrowed(values: npt.ArrayLike, *dtypes: type[np.integer[Any]]) -> Array:
    """Integers in the first dtype that holds them; what fits none is left to `validate`."""
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        for dtype in dtypes:
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return array.astype(dtype, copy=False)
    return array

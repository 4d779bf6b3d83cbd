"""Puzzle data sets in memory: examples that belong to puzzles that belong to groups."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
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
        name: str = "all",
    ) -> PuzzleSet:
        """Makes a validated set of one stored set, narrowing dtypes and counting.

        The arguments are integers in the shapes of the attributes; `where` names the data in the
        errors of `validate`, which come through, `name` the stored set.
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
        """Checks every rule of the format; `where` names the data in the message.

        Raises:
            DataError: Names the array and row, what was found and what was expected.
        """
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

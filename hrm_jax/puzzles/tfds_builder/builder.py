"""TFDS builder of puzzle sets; works without TensorFlow and without a network."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from hrm_jax.data.npy_folder import PuzzleSet


class PuzzleBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Stores puzzle sets example by example, in their order.

    Features: `inputs` and `labels`, uint8 [cells]; `puzzle_identifier`, `puzzle_index` and
    `group_index`, int32; `rating`, float32 (0 where the set has none). What the arrays do not tell
    stands in `metadata.json`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}

    def __init__(self, *, splits: Mapping[str, PuzzleSet], **kwargs: Any) -> None:
        """Takes puzzle sets by split name, all with the same number of cells."""
        self._splits = dict(splits)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        (cells,) = {part.metadata.seq_len for part in self._splits.values()}
        tokens = tfds.features.Tensor(shape=(cells,), dtype=np.uint8)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Puzzles and their solutions as tokens.",
            features=tfds.features.FeaturesDict(
                {
                    "inputs": tokens,
                    "labels": tokens,
                    "puzzle_identifier": np.int32,
                    "puzzle_index": np.int32,
                    "group_index": np.int32,
                    "rating": np.float32,
                }
            ),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                {
                    split: {
                        **dataclasses.asdict(part.metadata),
                        "rated": part.ratings is not None,
                        "sha256": part.digest(),
                    }
                    for split, part in self._splits.items()
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(part) for split, part in self._splits.items()}

    def _generate_examples(self, part: PuzzleSet) -> Iterator[tuple[int, dict[str, Any]]]:
        puzzle = np.repeat(np.arange(len(part.puzzle_identifiers)), np.diff(part.puzzle_indices))
        group = np.repeat(np.arange(part.metadata.total_groups), np.diff(part.group_indices))
        ratings = np.zeros(len(part), np.float32) if part.ratings is None else part.ratings
        for row in range(len(part)):
            yield (
                row,
                {
                    "inputs": part.inputs[row],
                    "labels": part.labels[row],
                    "puzzle_identifier": part.puzzle_identifiers[puzzle[row]],
                    "puzzle_index": puzzle[row],
                    "group_index": group[puzzle[row]],
                    "rating": ratings[row],
                },
            )


@functools.cache  # TFDS knows a class by its name, and takes it once
def builder_of(puzzle: str) -> type[PuzzleBuilder]:
    """The builder of a kind of puzzle, whose name its folders have."""
    return type(puzzle.capitalize(), (PuzzleBuilder,), {"__module__": __name__})

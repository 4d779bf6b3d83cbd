"""Data sets in TensorFlow Datasets' format (array_record), without TensorFlow or a network."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from hrm_jax.data.errors import DataError
from hrm_jax.data.npy_folder import PuzzleSet

_INFO = "dataset_info.json"


class PuzzleBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Stores puzzle sets example by example, in their order; a rating is 0 where there are none.

    What the arrays do not tell stands in `metadata.json`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, puzzle: str, splits: Mapping[str, PuzzleSet], **kwargs: Any) -> None:
        self.name, self._splits = puzzle, splits
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        (cells,) = {part.metadata.seq_len for part in self._splits.values()}
        tokens = tfds.features.Tensor(shape=(cells,), dtype=np.uint8)
        numbers = dict.fromkeys(("puzzle_identifier", "puzzle_index", "group_index"), np.int32)
        columns = {"inputs": tokens, "labels": tokens, **numbers, "rating": np.float32}
        metadata = {
            split: {
                **dataclasses.asdict(part.metadata),
                "rated": part.ratings is not None,
                "sha256": part.digest(),
            }
            for split, part in self._splits.items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Puzzles and their solutions as tokens.",
            features=tfds.features.FeaturesDict(columns),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(metadata),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(part) for split, part in self._splits.items()}

    def _generate_examples(self, part: PuzzleSet) -> Iterator[tuple[int, dict[str, Any]]]:
        puzzle = np.repeat(np.arange(len(part.puzzle_identifiers)), np.diff(part.puzzle_indices))
        group = np.repeat(np.arange(part.metadata.total_groups), np.diff(part.group_indices))
        columns = {
            "inputs": part.inputs,
            "labels": part.labels,
            "puzzle_identifier": part.puzzle_identifiers[puzzle],
            "puzzle_index": puzzle,
            "group_index": group[puzzle],
            "rating": np.zeros(len(part), np.float32) if part.ratings is None else part.ratings,
        }
        for row in range(len(part)):
            yield row, {name: column[row] for name, column in columns.items()}


def write_tfds(
    folder: str | os.PathLike[str], puzzle: str, train: PuzzleSet, test: PuzzleSet
) -> None:
    """Writes both splits to `<folder>/<puzzle>/<version>`.

    TFDS writes into a temporary folder that gets its name when complete. DataError if tokens are
    not of 8 bits, the splits differ in size, or the folder holds such a data set already.
    """
    path = pathlib.Path(folder) / puzzle / str(PuzzleBuilder.VERSION)
    if path.exists():
        raise DataError(f"{path}: there is a data set already")
    for split, part in (("train", train), ("test", test)):
        part.validate(f"{path}, {split}")
        if part.inputs.dtype != np.uint8 or part.labels.dtype != np.uint8:
            raise DataError(f"{path}, {split}: tokens do not fit 8 bits")
        if part.metadata.seq_len != train.metadata.seq_len:
            raise DataError(
                f"{path}: train has {train.metadata.seq_len} cells, test {part.metadata.seq_len}"
            )
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints about a download there is not
        splits = {"train": train, "test": test}
        builder = PuzzleBuilder(puzzle=puzzle, splits=splits, data_dir=os.fspath(folder))
        offline = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(file_format="array_record", download_config=offline)


def read_tfds(folder: str | os.PathLike[str], split: str) -> PuzzleSet:
    """Reads one split of what `write_tfds` wrote, validated."""
    path = next((x.parent for x in sorted(pathlib.Path(folder).glob(f"*/*/{_INFO}"))), folder)
    try:
        builder = tfds.builder_from_directory(path)
        metadata = dict(builder.info.metadata or {}).get(split)
        if metadata is None or split not in builder.info.splits:
            raise DataError(f"{path}: there is no split {split!r}")
        rows = list(builder.as_data_source(split=split))
    except DataError:
        raise
    except Exception as error:  # TFDS and array_record raise many kinds for damaged files
        raise DataError(f"{path}: no readable TFDS data set: {error}") from error
    try:
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        puzzle = columns["puzzle_index"]
        first = np.flatnonzero(np.diff(puzzle, prepend=-1))
        group = columns["group_index"][first]
        result = PuzzleSet.build(
            columns["inputs"],
            columns["labels"],
            vocab_size=metadata["vocab_size"],
            ignore_label_id=metadata["ignore_label_id"],
            puzzle_identifiers=columns["puzzle_identifier"][first],
            puzzle_indices=np.append(first, len(rows)),
            group_indices=np.append(np.flatnonzero(np.diff(group, prepend=-1)), len(first)),
            num_puzzle_identifiers=metadata["num_puzzle_identifiers"],
            ratings=columns["rating"] if metadata["rated"] else None,
            pad_id=metadata["pad_id"],
            blank_identifier_id=metadata["blank_identifier_id"],
            where=f"{path}, {split}",
        )
    except DataError:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as error:
        # array_record gives empty records, no error, where a file was cut off
        raise DataError(f"{path}, {split}: damaged, or no puzzle set: {error!r}") from error
    if result.digest() != metadata["sha256"]:
        raise DataError(f"{path}, {split}: the examples are not those that were written")
    return result

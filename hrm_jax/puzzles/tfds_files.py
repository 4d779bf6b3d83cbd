"""Data sets in TensorFlow Datasets' format (array_record), without TensorFlow."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from hrm_jax.data.errors import DataError
from hrm_jax.data.npy_folder import PuzzleSet
from hrm_jax.puzzles.tfds_builder.builder import PuzzleBuilder, builder_of

_INFO = "dataset_info.json"


def write_tfds(
    folder: str | os.PathLike[str], puzzle: str, train: PuzzleSet, test: PuzzleSet
) -> None:
    """Writes both splits to `<folder>/<puzzle>/<version>`.

    TFDS writes into a temporary folder that gets its name when complete. Labels and inputs must
    be of 8 bits.

    Raises:
        DataError: The splits differ in size, or the folder holds such a data set already.
        OSError: The folder cannot be written.
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
        builder_of(puzzle)(
            data_dir=os.fspath(folder), splits={"train": train, "test": test}
        ).download_and_prepare(
            file_format="array_record",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )


def read_tfds(folder: str | os.PathLike[str], split: str) -> PuzzleSet:
    """Reads one split of what `write_tfds` wrote, validated.

    Raises:
        DataError: No such data set or split, or it is damaged.
    """
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

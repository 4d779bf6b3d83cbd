"""Puzzle data sets in memory (`PuzzleSet`) and in the PyTorch reference's folders of `.npy` files.

Layout: `identifiers.json`, `<split>/dataset.json` and
`<split>/<set>__{inputs,labels,puzzle_identifiers,puzzle_indices,group_indices}.npy`; ours may hold
`<set>__ratings.npy` besides. Source: `dataset/common.py` and the builders of
github.com/sapientinc/HRM.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from hrm_jax import files
from hrm_jax.data.errors import DataError, reading
from hrm_jax.data.puzzle_format import (
    ARRAYS,
    FACTS,
    Report,
    check_kinds,
    check_totals,
    load_arrays,
    read_metadata,
)
from hrm_jax.data.puzzle_set import Array, PuzzleMetadata, PuzzleSet

__all__ = ["PuzzleMetadata", "PuzzleSet", "read_identifiers", "read_npy", "write_npy"]


def write_npy(
    folder: str | os.PathLike[str],
    split: str,
    puzzle_set: PuzzleSet,
    identifiers: Sequence[str] = ("<blank>",),
) -> None:
    """Writes one split, `train` or `test`, of one stored set, in the reference's format.

    Every file is written atomically and `dataset.json` last, after the old one is removed, so that
    a folder whose writing was interrupted is refused by `read_npy`. The reference names `<blank>`
    alone where all puzzles share one identifier.
    """
    root = pathlib.Path(folder)
    path = root / split
    puzzle_set.validate(str(path))
    if len(puzzle_set.metadata.sets) != 1:
        raise DataError(f"{path}: can write one set, not {list(puzzle_set.metadata.sets)}")
    (name,) = puzzle_set.metadata.sets
    (path / "dataset.json").unlink(missing_ok=True)
    arrays = {field: getattr(puzzle_set, field) for field in ARRAYS}
    if puzzle_set.ratings is None:
        (path / f"{name}__ratings.npy").unlink(missing_ok=True)
    else:
        arrays["ratings"] = puzzle_set.ratings
    for field, array in arrays.items():
        with files.atomic_path(path / f"{name}__{field}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)
    files.write_text(root / "identifiers.json", json.dumps(list(identifiers)))
    files.write_json(path / "dataset.json", dataclasses.asdict(puzzle_set.metadata))


def read_npy(folder: str | os.PathLike[str], split: str) -> PuzzleSet:
    """Reads one split in the reference's format; arrays may be of any integer type.

    Large files are mapped into memory and not read as a whole; their arrays cannot be written to.
    Several sets become one named `all`. A `DataError` names the file that is missing, cut off, of
    another shape or holds illegal values.
    """
    path = pathlib.Path(folder) / split
    report = Report(strict=str(path))
    metadata = read_metadata(path / "dataset.json", report)
    sets = {
        name: check_kinds(name, load_arrays(path, name, report), report)
        for name in metadata["sets"]
    }
    check_totals(metadata, sets, report)
    facts = {name: metadata[name] for name in FACTS}
    parts = [
        PuzzleSet.build(**arrays, **facts, where=str(path), name=name)
        for name, arrays in sets.items()
    ]
    for part in parts:
        if part.metadata.seq_len != metadata["seq_len"]:
            shape = part.inputs.shape
            report.add("inputs", f"shape is {shape}, but seq_len is {metadata['seq_len']}")
    if len(parts) == 1:
        return parts[0]
    rated = [part.ratings for part in parts if part.ratings is not None]
    return PuzzleSet.build(
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.labels for part in parts]),
        puzzle_identifiers=np.concatenate([part.puzzle_identifiers for part in parts]),
        puzzle_indices=_chain([part.puzzle_indices for part in parts]),
        group_indices=_chain([part.group_indices for part in parts]),
        ratings=np.concatenate(rated) if len(rated) == len(parts) else None,
        **facts,
        where=str(path),
    )


def read_identifiers(folder: str | os.PathLike[str]) -> list[str]:
    """Reads the names of the puzzle identifiers from `identifiers.json`."""
    path = pathlib.Path(folder) / "identifiers.json"
    if not path.exists():
        raise DataError(f"{path}: cannot be read: there is no such file")
    with reading(path, "a list of names"):
        try:
            names = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: expected a list of names")
    return names


def _chain(boundaries: list[Array]) -> Array:
    """Joins boundaries [n_i + 1] of consecutive parts to boundaries [sum n_i + 1]."""
    sizes = np.concatenate([np.diff(part) for part in boundaries])
    return np.append(0, np.cumsum(sizes, dtype=np.int64))

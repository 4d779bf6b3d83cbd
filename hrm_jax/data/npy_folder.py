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
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np

from hrm_jax import files
from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_set import Array, PuzzleMetadata, PuzzleSet

__all__ = [
    *("ARRAYS", "PuzzleMetadata", "PuzzleSet", "load_array", "read_identifiers", "read_npy"),
    "write_npy",
]

_MAPPED = 1 << 26  # bytes above which a file is mapped
ARRAYS = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")


def write_npy(
    folder: str | os.PathLike[str],
    split: str,
    puzzle_set: PuzzleSet,
    identifiers: Sequence[str] = ("<blank>",),
) -> None:
    """Writes one split, `train` or `test`, in the reference's format.

    Every file is written atomically and `dataset.json` last, after the old one is removed, so that
    a folder whose writing was interrupted is refused by `read_npy`.

    Args:
        folder: Root of the data set; made if missing.
        split: `train` or `test`.
        puzzle_set: Of one stored set.
        identifiers: Names of the puzzle identifiers, for `identifiers.json`; the reference writes
            `<blank>` alone where all puzzles share one.

    Raises:
        DataError: The puzzle set breaks the format, or names several sets.
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


def read_npy(folder: str | os.PathLike[str], split: str, set_name: str | None = None) -> PuzzleSet:
    """Reads one split in the reference's format; arrays may be of any integer type.

    Large files are mapped into memory and not read as a whole; their arrays cannot be written to.

    Args:
        folder: Root of the data set.
        split: `train` or `test`.
        set_name: One of the split's sets. None reads all of them, one after the other; several
            then become one set named `all`.

    Returns:
        The validated split, tokens narrowed to uint8 where they fit, indices int32.

    Raises:
        DataError: A file is missing, cut off, of another shape or holds illegal values; the
            message names it.
    """
    path = pathlib.Path(folder) / split
    metadata = _read_metadata(path / "dataset.json")
    names = metadata.sets if set_name is None else (set_name,)
    if set_name is not None and set_name not in metadata.sets:
        raise DataError(f"{path}: there is no set {set_name!r}, only {list(metadata.sets)}")
    parts = [_read_set(path, name, metadata) for name in names]
    groups = sum(part.metadata.total_groups for part in parts)
    if set_name is None and metadata.total_groups != groups:
        raise DataError(
            f"{path / 'dataset.json'}: total_groups is {metadata.total_groups}, "
            f"but the sets hold {groups}"
        )
    if len(parts) == 1:
        return parts[0]
    rated = [part.ratings for part in parts if part.ratings is not None]
    return PuzzleSet.build(
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.labels for part in parts]),
        vocab_size=metadata.vocab_size,
        ignore_label_id=metadata.ignore_label_id,
        puzzle_identifiers=np.concatenate([part.puzzle_identifiers for part in parts]),
        puzzle_indices=_chain([part.puzzle_indices for part in parts]),
        group_indices=_chain([part.group_indices for part in parts]),
        num_puzzle_identifiers=metadata.num_puzzle_identifiers,
        ratings=np.concatenate(rated) if len(rated) == len(parts) else None,
        pad_id=metadata.pad_id,
        blank_identifier_id=metadata.blank_identifier_id,
        where=str(path),
    )


def read_identifiers(folder: str | os.PathLike[str]) -> list[str]:
    """Reads the names of the puzzle identifiers.

    Raises:
        DataError: `identifiers.json` is missing, or no list of names.
    """
    path = pathlib.Path(folder) / "identifiers.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: expected a list of names")
    return names


def _read_metadata(path: pathlib.Path) -> PuzzleMetadata:
    """Reads `dataset.json`; fields it does not know (other programs add some) are left out."""
    try:
        value = files.read_json(path)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: there is no such file: not a puzzle folder, or its writing did not finish"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(str(error)) from error
    types = typing.get_type_hints(PuzzleMetadata)
    wanted: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(types, (int,)),
        "ignore_label_id": (int, type(None)),
        "mean_puzzle_examples": (int, float),
        "sets": (list,),
    }
    fields: dict[str, Any] = {}
    for name, kinds in wanted.items():
        if name not in value:
            raise DataError(f"{path}: the field {name} is missing")
        if not isinstance(value[name], kinds) or isinstance(value[name], bool):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise DataError(f"{path}: {name} is {value[name]!r}, expected {expected}")
        fields[name] = value[name]
    names = fields["sets"]
    if not names or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise DataError(f"{path}: sets is {names!r}, expected one or more plain names")
    return PuzzleMetadata(**{**fields, "sets": tuple(names)})


def _read_set(path: pathlib.Path, name: str, metadata: PuzzleMetadata) -> PuzzleSet:
    arrays = {field: _load(path / f"{name}__{field}.npy") for field in ARRAYS}
    ratings = path / f"{name}__ratings.npy"
    for field, array in arrays.items():
        dimensions = 2 if field in ("inputs", "labels") else 1
        if array.ndim != dimensions or (dimensions == 2 and array.shape[1] != metadata.seq_len):
            raise DataError(
                f"{path / f'{name}__{field}.npy'}: shape is {array.shape}, expected "
                + ("(any number,)" if dimensions == 1 else f"(any number, {metadata.seq_len})")
            )
    result = PuzzleSet.build(
        **arrays,
        vocab_size=metadata.vocab_size,
        ignore_label_id=metadata.ignore_label_id,
        num_puzzle_identifiers=metadata.num_puzzle_identifiers,
        ratings=_load(ratings) if ratings.exists() else None,
        pad_id=metadata.pad_id,
        blank_identifier_id=metadata.blank_identifier_id,
        where=f"{path / name}__*.npy",
    )
    return dataclasses.replace(result, metadata=dataclasses.replace(result.metadata, sets=(name,)))


def load_array(path: pathlib.Path) -> Array:
    """Reads a `.npy` file; a large one is mapped, read-only.

    Raises:
        OSError, ValueError, EOFError: What numpy raises for missing and damaged files.
    """
    mode: Any = "r" if path.stat().st_size > _MAPPED else None
    return np.asarray(np.load(path, mmap_mode=mode, allow_pickle=False))


def _load(path: pathlib.Path) -> Array:
    try:
        return load_array(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as .npy, damaged or cut off: {error}") from error


def _chain(boundaries: list[Array]) -> Array:
    """Joins boundaries [n_i + 1] of consecutive parts to boundaries [sum n_i + 1]."""
    joined = [np.zeros(1, np.int64)]
    for part in boundaries:
        joined.append(part[1:].astype(np.int64) + joined[-1][-1])
    return np.concatenate(joined)

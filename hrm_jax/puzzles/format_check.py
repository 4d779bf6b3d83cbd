"""The rules of the data set format, checked as far as each can be: see `inspect`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from hrm_jax import files
from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import ARRAYS, load_array, read_identifiers, read_npy
from hrm_jax.data.puzzle_set import Array, in_parts


@dataclasses.dataclass(frozen=True)
class Violation:
    """One thing that is wrong.

    Attributes:
        array: Array or file that is concerned.
        row: Row of the array, counted from 0; None where the whole is concerned.
        what: What was found and what was expected.
    """

    array: str
    row: int | None
    what: str

    def __str__(self) -> str:
        """Formats it as one line."""
        return f"{self.array}{'' if self.row is None else f', row {self.row}'}: {self.what}"


class Report:
    """Collects violations up to a limit and counts the others."""

    def __init__(self, limit: int) -> None:
        self.violations: list[Violation] = []
        self.total = 0
        self._limit = limit

    def add(self, array: str, what: str, row: int | None = None) -> None:
        self.total += 1
        if len(self.violations) < self._limit:
            self.violations.append(Violation(array, row, what))

    def add_rows(
        self, array: str, bad: Array, what: str | Callable[[int], str], first: int = 0
    ) -> None:
        """Adds one for each True in `bad` [N], which begins at row `first` of the array."""
        rows = np.flatnonzero(bad)
        room = self._limit - len(self.violations)
        for row in rows[:room]:
            text = what if isinstance(what, str) else what(int(row))
            self.violations.append(Violation(array, first + int(row), text))
        self.total += len(rows)


def read_metadata(path: pathlib.Path, report: Report) -> dict[str, Any]:
    """The fields of `dataset.json` that can be used; reports the others."""
    try:
        value = files.read_json(path)
    except FileNotFoundError:
        report.add("dataset.json", "there is no such file; was its writing interrupted?")
        return {}
    except (OSError, ValueError) as error:
        report.add("dataset.json", str(error))
        return {}
    counts = ("vocab_size", "seq_len", "num_puzzle_identifiers", "total_groups")
    usable: dict[str, Any] = {}
    for name in (*counts, "pad_id", "blank_identifier_id", "ignore_label_id"):
        if name not in value:
            report.add("dataset.json", f"the field {name} is missing")
        elif value[name] is None and name == "ignore_label_id":
            usable[name] = None
        elif not isinstance(value[name], int) or isinstance(value[name], bool):
            report.add("dataset.json", f"{name} is {value[name]!r}, expected an integer")
        elif name in counts and value[name] < 1:
            report.add("dataset.json", f"{name} is {value[name]}, expected at least 1")
        else:
            usable[name] = value[name]
    for name, stop in (("pad_id", "vocab_size"), ("blank_identifier_id", "num_puzzle_identifiers")):
        if name in usable and stop in usable and not 0 <= usable[name] < usable[stop]:
            report.add("dataset.json", f"{name} {usable[name]} is outside [0, {usable[stop]})")
    mean = value.get("mean_puzzle_examples")
    if isinstance(mean, int | float) and not isinstance(mean, bool):
        usable["mean_puzzle_examples"] = mean
    else:
        report.add("dataset.json", f"mean_puzzle_examples is {mean!r}, expected a number")
    names = value.get("sets")
    plain = isinstance(names, list) and all(
        isinstance(name, str) and name.isidentifier() for name in names
    )
    if plain and names:
        usable["sets"] = names
    else:
        report.add("dataset.json", f"sets is {names!r}, expected one or more plain names")
    return usable


def load_arrays(path: pathlib.Path, name: str, report: Report) -> dict[str, Array]:
    """The arrays of one set that have the right kind and number of dimensions."""
    arrays: dict[str, Array] = {}
    prefix = "" if name == "all" else f"{name}__"
    for field in (*ARRAYS, "ratings"):
        file = path / f"{name}__{field}.npy"
        if field == "ratings" and not file.exists():
            continue
        try:
            array = load_array(file)
        except FileNotFoundError:
            report.add(prefix + field, f"there is no file {file.name}")
            continue
        except (OSError, ValueError, EOFError) as error:
            report.add(prefix + field, f"{file.name} is damaged or cut off: {error}")
            continue
        dimensions = 2 if field in ("inputs", "labels") else 1
        kinds = "iuf" if field == "ratings" else "iu"
        if array.dtype.kind not in kinds or array.ndim != dimensions:
            report.add(
                prefix + field,
                f"is {array.dtype} {array.shape}, expected "
                f"{'numbers' if field == 'ratings' else 'integers'} of {dimensions} dimension(s)",
            )
            continue
        arrays[field] = array
    return arrays


def read_tfds_set(
    root: pathlib.Path, split: str, info: pathlib.Path, report: Report
) -> tuple[dict[str, Any], dict[str, dict[str, Array]]]:
    """Metadata and arrays of a TFDS folder, as of `read_metadata` and `load_arrays`."""
    try:
        names = [part.get("name") for part in files.read_json(info).get("splits", [])]
    except (OSError, ValueError, AttributeError) as error:
        report.add(info.name, f"cannot be read: {error}")
        return {}, {}
    if split not in names:
        raise DataError(f"{root}: there is no split {split!r}, only {names}")
    from hrm_jax.puzzles.tfds_files import read_tfds  # slow import, and optional

    try:
        part = read_tfds(root, split)
    except DataError as error:
        report.add("TFDS files", str(error))
        return {}, {}
    arrays = {name: getattr(part, name) for name in (*ARRAYS, "ratings")}
    found = {name: array for name, array in arrays.items() if array is not None}
    return dataclasses.asdict(part.metadata), {"all": found}


def check_format(
    prefix: str,
    arrays: dict[str, Array],
    metadata: dict[str, Any],
    vocab: int | None,
    report: Report,
) -> None:
    """Checks the arrays of one set against each other and against `dataset.json`.

    Args:
        prefix: Put in front of the names of arrays.
        arrays: From `load_arrays`.
        metadata: From `read_metadata`.
        vocab: Size of the vocabulary, None if it is not known.
        report: Gets what is wrong.
    """
    inputs, labels = arrays.get("inputs"), arrays.get("labels")
    length = metadata.get("seq_len")
    if inputs is not None:
        if not len(inputs):
            report.add(f"{prefix}inputs", "there are no examples")
        if length is not None and inputs.shape[1] != length:
            report.add(f"{prefix}inputs", f"shape is {inputs.shape}, but seq_len is {length}")
    if inputs is not None and labels is not None and inputs.shape != labels.shape:
        report.add(f"{prefix}labels", f"shape is {labels.shape}, that of inputs {inputs.shape}")
    _check_range(f"{prefix}inputs", inputs, vocab, None, report)
    _check_range(f"{prefix}labels", labels, vocab, metadata.get("ignore_label_id"), report)
    identifiers = arrays.get("puzzle_identifiers")
    stop = metadata.get("num_puzzle_identifiers")
    _check_range(f"{prefix}puzzle_identifiers", identifiers, stop, None, report)
    for name, of, what in (
        ("puzzle_indices", inputs, "examples"),
        ("group_indices", identifiers, "puzzles"),
    ):
        if name in arrays:
            _check_boundaries(prefix + name, arrays[name], of, what, report)
    puzzles = arrays.get("puzzle_indices")
    if puzzles is not None and identifiers is not None and len(puzzles) != len(identifiers) + 1:
        report.add(
            f"{prefix}puzzle_indices",
            f"has {len(puzzles)} entries, expected one more than the {len(identifiers)} puzzles",
        )
    ratings = arrays.get("ratings")
    if ratings is not None:
        if inputs is not None and len(ratings) != len(inputs):
            report.add(f"{prefix}ratings", f"{len(ratings)} for {len(inputs)} examples")
        report.add_rows(
            f"{prefix}ratings", ~np.isfinite(ratings), lambda row: f"{ratings[row]} is not finite"
        )


def _check_range(
    name: str, array: Array | None, stop: int | None, also: int | None, report: Report
) -> None:
    """Values must be in [0, stop) or `also`; names the first bad one of each row."""
    if array is None or stop is None or not array.size:
        return
    for start, part in in_parts(array):
        grid = part.reshape(len(part), -1)
        bad = (grid < 0) | (grid >= stop)
        if also is not None:
            bad &= grid != also

        def what(row: int, grid: Array = grid, bad: Array = bad) -> str:
            place = int(np.argmax(bad[row]))
            where = f"position {place}: " if array.ndim > 1 else ""
            more = int(bad[row].sum()) - 1
            ignored = "" if also is None else f" or {also}"
            others = f" (and {more} more in this row)" if more else ""
            return f"{where}{grid[row, place]} is outside [0, {stop}){ignored}{others}"

        report.add_rows(name, np.asarray(bad.any(1)), what, start)


def _check_boundaries(name: str, array: Array, of: Array | None, what: str, report: Report) -> None:
    """Boundaries must rise strictly from 0 to the length of `of`."""
    if not len(array):
        report.add(name, "is empty, expected at least the boundary 0")
        return
    values = array.astype(np.int64)
    if values[0] != 0:
        report.add(name, f"begins with {values[0]}, expected 0", 0)
    if of is not None and values[-1] != len(of):
        report.add(name, f"ends with {values[-1]}, expected the {len(of)} {what}", len(values) - 1)
    falls = np.concatenate([[False], np.diff(values) <= 0])
    report.add_rows(
        name, falls, lambda row: f"{values[row]} follows {values[row - 1]}, expected a larger one"
    )


def check_totals(metadata: dict[str, Any], sizes: dict[str, int], report: Report) -> None:
    """Checks what `dataset.json` says of all sets together."""
    groups, mean = metadata.get("total_groups"), metadata.get("mean_puzzle_examples")
    if groups is not None and groups != sizes["groups"]:
        report.add("dataset.json", f"total_groups is {groups}, but there are {sizes['groups']}")
    if mean is not None and sizes["puzzles"]:
        true = sizes["examples"] / sizes["puzzles"]
        if not np.isclose(mean, true, rtol=1e-3):
            report.add(
                "dataset.json",
                f"mean_puzzle_examples is {mean}, but {sizes['examples']} examples in "
                f"{sizes['puzzles']} puzzles make {true:.6g}",
            )


def check_identity(
    root: pathlib.Path, split: str, identity: Identity | None, report: Report
) -> None:
    """Checks `identifiers.json`, and the digest if nothing else is wrong."""
    if (root / "identifiers.json").exists():
        try:
            read_identifiers(root)
        except DataError as error:
            report.add("identifiers.json", str(error))
    npy = (root / split / "dataset.json").exists()
    if report.total or not npy:  # TFDS files have their own digest, which `read_tfds` checks
        return
    try:
        digest = read_npy(root, split).digest()
    except DataError as error:
        report.add("dataset.json", str(error))
        return
    if identity and identity.sha256.get(split, digest) != digest:
        report.add(
            "identity.json",
            f"sha256.{split} is {str(identity.sha256[split])[:12]}…, but the examples have "
            f"{digest[:12]}…: they were changed after the build",
        )

"""The rules of the reference's data set format: what is read is refused at the first thing that is
wrong, what is inspected is checked as far as it can be."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hrm_jax import files
from hrm_jax.data.errors import DataError, reading

Array = npt.NDArray[Any]

ARRAYS = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
FACTS = ("vocab_size", "num_puzzle_identifiers", "pad_id", "blank_identifier_id", "ignore_label_id")
_MAPPED = 1 << 26  # bytes above which a file is mapped
_PART = 1 << 22  # entries of large arrays that are looked at at a time


def _is_whole(x: Any) -> bool:
    integer = isinstance(x, int | np.integer) and not isinstance(x, bool)
    return integer and -(2**31) <= x < 2**31


def _are_names(x: Any) -> bool:
    return isinstance(x, list | tuple) and all(isinstance(n, str) and n.isidentifier() for n in x)


_COUNT = ("an integer of at least 1", lambda x: _is_whole(x) and x >= 1)
_INTEGER = ("an integer", _is_whole)
_METADATA: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "vocab_size": _COUNT,
    "seq_len": _COUNT,
    "num_puzzle_identifiers": _COUNT,
    "total_groups": _COUNT,
    "pad_id": _INTEGER,
    "blank_identifier_id": _INTEGER,
    "ignore_label_id": ("an integer or null", lambda x: x is None or _is_whole(x)),
    "mean_puzzle_examples": ("a number", lambda x: _is_whole(x) or isinstance(x, float)),
    "sets": ("one or more plain names", lambda x: bool(x) and _are_names(x)),
}


class Violation(NamedTuple):
    """One thing that is wrong."""

    array: str  # or file
    row: int | None  # counted from 0; None where the whole is concerned
    what: str  # was found, and what was expected

    def __str__(self) -> str:
        return f"{self.array}{'' if self.row is None else f', row {self.row}'}: {self.what}"


class Report:
    """Collects the first violations and counts the others.

    A strict one, with the name of the data, raises the first as a `DataError`.
    """

    def __init__(self, limit: int = 1, strict: str = "") -> None:
        self.violations: list[Violation] = []
        self.total = 0
        self._limit = limit
        self._strict = strict

    def add(self, array: str, what: str, row: int | None = None) -> None:
        """Adds one."""
        violation = Violation(array, row, what)
        if self._strict:
            raise DataError(f"{self._strict}: {violation}")
        self.total += 1
        if len(self.violations) < self._limit:
            self.violations.append(violation)

    def add_rows(
        self, array: str, bad: Array, what: str | Callable[[int], str], first: int = 0
    ) -> None:
        """Adds one for each True in `bad` [N], which begins at row `first` of the array."""
        rows = np.flatnonzero(bad)
        for row in rows[: self._limit]:
            text = what if isinstance(what, str) else what(int(row))
            self.add(array, text, first + int(row))
        self.total += max(0, len(rows) - self._limit)


def in_parts(array: Array) -> Iterator[tuple[int, Array]]:
    """Yields parts of an array of a few MB each, with their first rows: it may be a mapped file."""
    rows = max(1, _PART // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def read_metadata(path: pathlib.Path, report: Report) -> dict[str, Any]:
    """The fields of `dataset.json` that can be used; reports others, but for unknown ones."""
    try:
        with reading(path, "a JSON object"):
            value = files.read_json(path)
    except FileNotFoundError:
        report.add("dataset.json", "there is no such file; was its writing interrupted?")
    except (OSError, ValueError) as error:
        report.add("dataset.json", str(error))
    else:
        return check_metadata(value, report)
    return {}


def check_metadata(value: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """The fields of a `dataset.json` or `PuzzleMetadata` that can be used; reports the others."""
    usable: dict[str, Any] = {}
    for name, (expected, fits) in _METADATA.items():
        if name not in value:
            report.add("dataset.json", f"the field {name} is missing")
        elif fits(value[name]):
            usable[name] = value[name]
        else:
            report.add("dataset.json", f"{name} is {value[name]!r}, expected {expected}")
    for name, stop in (("pad_id", "vocab_size"), ("blank_identifier_id", "num_puzzle_identifiers")):
        if name in usable and stop in usable and not 0 <= usable[name] < usable[stop]:
            report.add("dataset.json", f"{name} {usable[name]} is outside [0, {usable[stop]})")
    return usable


def load_arrays(path: pathlib.Path, name: str, report: Report) -> dict[str, Any]:
    """The arrays of one set of a split that can be read; large ones are mapped, read-only."""
    arrays: dict[str, Any] = {}
    for field in (*ARRAYS, "ratings"):
        file, array = path / f"{name}__{field}.npy", _prefix(name) + field
        try:
            with reading(file, "an .npy array"):
                # Mapped first: what a header claims is never allocated, only what is there.
                mapped = np.lib.format.open_memmap(file, mode="r")
                arrays[field] = (np.asarray if mapped.nbytes > _MAPPED else np.array)(mapped)
        except FileNotFoundError:
            if field != "ratings":
                report.add(array, f"there is no file {file.name}")
        except (OSError, ValueError) as error:
            report.add(array, f"{file.name} is damaged or cut off: {error.__cause__ or error}")
    return arrays


def _prefix(name: str) -> str:
    """What is put in front of the names of arrays."""
    return "" if name == "all" else f"{name}__"


def check_kinds(name: str, arrays: Mapping[str, Array], report: Report) -> dict[str, Any]:
    """The arrays of set `name` of the right kind and number of dimensions; reports the others."""
    usable = {}
    for field, array in arrays.items():
        dimensions = 2 if field in ("inputs", "labels") else 1
        kinds = "iuf" if field == "ratings" else "iu"
        if array.dtype.kind not in kinds or array.ndim != dimensions:
            wanted = "numbers" if field == "ratings" else "integers"
            what = f"{wanted} of {dimensions} dimension(s)"
            report.add(_prefix(name) + field, f"is {array.dtype} {array.shape}, expected {what}")
        elif field.endswith("indices") and not len(array):
            report.add(_prefix(name) + field, "is empty, expected at least the boundary 0")
        else:
            usable[field] = array
    return usable


def check_set(
    name: str,
    arrays: Mapping[str, Array],
    metadata: Mapping[str, Any],
    report: Report,
    vocab_size: int | None = None,
) -> dict[str, Array]:
    """Checks the arrays of set `name` against each other and against `dataset.json`.

    `vocab_size` is for metadata that lack it. Returns the arrays of the right kind and number of
    dimensions.
    """
    prefix, usable = _prefix(name), check_kinds(name, arrays, report)
    inputs, labels, identifiers, puzzles, _ = map(usable.get, ARRAYS)
    length, vocab = metadata.get("seq_len"), metadata.get("vocab_size", vocab_size)
    if inputs is not None:
        if not len(inputs):
            report.add(f"{prefix}inputs", "there are no examples")
        if length is not None and inputs.shape[1] != length:
            report.add(f"{prefix}inputs", f"shape is {inputs.shape}, but seq_len is {length}")
    if inputs is not None and labels is not None and inputs.shape != labels.shape:
        report.add(f"{prefix}labels", f"shape is {labels.shape}, that of inputs {inputs.shape}")
    for field, stop, also in (
        ("inputs", vocab, None),
        ("labels", vocab, metadata.get("ignore_label_id")),
        ("puzzle_identifiers", metadata.get("num_puzzle_identifiers"), None),
    ):
        if field in usable and stop is not None and usable[field].size:
            _check_range(prefix + field, usable[field], stop, also, report)
    for field, of, what in (
        ("puzzle_indices", inputs, "examples"),
        ("group_indices", identifiers, "puzzles"),
    ):
        if field in usable:
            _check_boundaries(prefix + field, usable[field], of, what, report)
    if puzzles is not None and identifiers is not None and len(puzzles) != len(identifiers) + 1:
        report.add(
            f"{prefix}puzzle_indices",
            f"has {len(puzzles)} entries, expected one more than the {len(identifiers)} puzzles",
        )
    ratings = usable.get("ratings")
    if ratings is not None:
        if inputs is not None and len(ratings) != len(inputs):
            report.add(f"{prefix}ratings", f"{len(ratings)} for {len(inputs)} examples")
        report.add_rows(
            f"{prefix}ratings", ~np.isfinite(ratings), lambda row: f"{ratings[row]} is not finite"
        )
    return usable


def _check_range(name: str, array: Array, stop: int, also: int | None, report: Report) -> None:
    """Values must be in [0, stop) or `also`; names the first bad one of each row."""
    for start, part in in_parts(array):
        grid = part.reshape(len(part), -1)
        if grid.min() >= 0 and grid.max() < stop:
            continue
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
    values = array.astype(np.int64)
    if values[0] != 0:
        report.add(name, f"begins with {values[0]}, expected 0", 0)
    if of is not None and values[-1] != len(of):
        report.add(name, f"ends with {values[-1]}, expected the {len(of)} {what}", len(values) - 1)
    falls = np.concatenate([[False], np.diff(values) <= 0])
    report.add_rows(
        name, falls, lambda row: f"{values[row]} follows {values[row - 1]}, expected a larger one"
    )


def check_totals(
    metadata: Mapping[str, Any], sets: Mapping[str, Mapping[str, Array]], report: Report
) -> dict[str, int]:
    """Checks `dataset.json` on all sets together; returns how many examples, puzzles, groups."""

    def total(name: str, more: int = 0) -> int:
        return sum(max(0, len(arrays[name]) + more) for arrays in sets.values() if name in arrays)

    examples, puzzles, groups = total("inputs"), total("puzzle_identifiers"), total(ARRAYS[-1], -1)
    said, mean = metadata.get("total_groups"), metadata.get("mean_puzzle_examples")
    if said is not None and said != groups:
        report.add("dataset.json", f"total_groups is {said}, but there are {groups}")
    if mean is not None and puzzles and not np.isclose(mean, examples / puzzles, rtol=1e-3):
        report.add(
            "dataset.json",
            f"mean_puzzle_examples is {mean}, but {examples} examples in {puzzles} puzzles make "
            f"{examples / puzzles:.6g}",
        )
    return {"examples": examples, "puzzles": puzzles, "groups": groups}

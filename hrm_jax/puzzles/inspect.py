"""What is in a puzzle data set folder, and everything that is wrong with it.

`read_npy` refuses a folder at the first thing that is wrong; `inspect` goes on as far as it can.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.puzzles.arc import check as arc
from hrm_jax.puzzles.arc.tokens import VOCAB_SIZE as ARC_VOCAB_SIZE
from hrm_jax.puzzles.checks import Array, Checks
from hrm_jax.puzzles.domino import check as domino
from hrm_jax.puzzles.domino.encoding import SEQ_LEN
from hrm_jax.puzzles.domino.encoding import VOCAB_SIZE as DOMINO_VOCAB_SIZE
from hrm_jax.puzzles.format_check import (
    Report,
    Violation,
    check_format,
    check_identity,
    check_totals,
    load_arrays,
    read_metadata,
    read_tfds_set,
)
from hrm_jax.puzzles.maze import check as maze
from hrm_jax.puzzles.maze.board import VOCAB_SIZE as MAZE_VOCAB_SIZE
from hrm_jax.puzzles.sudoku import check as sudoku

KINDS = ("sudoku", "maze", "arc", "domino")
_CHUNK = 1024  # examples that are checked at a time


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What `inspect` found in one split.

    Attributes:
        kind: One of `KINDS`, or None for puzzles that it does not know.
        metadata: What `dataset.json` says, as far as it can be read.
        sizes: Number of examples, puzzles and groups.
        examples: The first examples as text for people.
        violations: What is wrong, the first ones of them.
        total: Number of violations, those left out counted too. A row counts once for each rule.
    """

    kind: str | None
    metadata: dict[str, Any]
    sizes: dict[str, int]
    examples: list[str]
    violations: list[Violation]
    total: int


def inspect(
    folder: str | os.PathLike[str], split: str = "train", *, num: int = 3, max_reports: int = 20
) -> Inspection:
    """Checks every rule of the format and of the puzzle.

    The kind of puzzle is that of `identity.json`, or else is guessed from the sizes.

    Args:
        folder: Root of a data set, npy or TFDS.
        split: `train` or `test`.
        num: Examples to show.
        max_reports: Violations to describe; the others are counted.

    Raises:
        DataError: There is no such folder or split, or a number is out of range.
    """
    root = pathlib.Path(folder)
    if num < 0 or max_reports < 1:
        raise DataError(f"num is {num}, max_reports {max_reports}; expected from 0 and from 1")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    report = Report(max_reports)
    path = root / split
    tfds = sorted(root.glob("**/dataset_info.json"))
    if (path / "dataset.json").exists() or not tfds:
        if not any(path.glob("*.npy")) and not (path / "dataset.json").exists():
            raise DataError(f"{path}: no split of a data set: neither dataset.json nor .npy files")
        metadata = read_metadata(path / "dataset.json", report)
        names = metadata.get("sets") or sorted(
            file.name.removesuffix("__inputs.npy") for file in path.glob("*__inputs.npy")
        )
        sets = {name: load_arrays(path, name, report) for name in names}
    else:
        metadata, sets = read_tfds_set(root, split, tfds[0], report)
    kind, identity = _kind(root, metadata, sets, report)
    examples: list[str] = []
    for name, arrays in sets.items():
        prefix = "" if name == "all" else f"{name}__"
        check_format(prefix, arrays, metadata, _vocab_size(kind, arrays, metadata), report)
        _check_examples(prefix, kind, split, arrays, metadata, report)
        examples += _show(kind, arrays, num - len(examples))
    sizes = {
        "examples": _total(sets, "inputs", 0),
        "puzzles": _total(sets, "puzzle_identifiers", 0),
        "groups": _total(sets, "group_indices", -1),
    }
    check_totals(metadata, sizes, report)
    check_identity(root, split, identity, report)
    return Inspection(kind, metadata, sizes, examples, report.violations, report.total)


def _kind(
    root: pathlib.Path,
    metadata: dict[str, Any],
    sets: dict[str, dict[str, Array]],
    report: Report,
) -> tuple[str | None, Identity | None]:
    """The kind of puzzle, or None; and the identity, if there is one."""
    identity = None
    if (root / "identity.json").exists():
        try:
            identity = Identity.from_json((root / "identity.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            report.add("identity.json", str(error))
    inputs = next((arrays["inputs"] for arrays in sets.values() if "inputs" in arrays), None)
    if inputs is None:
        return None, identity
    length = inputs.shape[1]
    vocab = metadata.get("vocab_size")
    named = [kind for kind in KINDS if identity and kind in re.split("[^a-z]", identity.builder)]
    if len(named) == 1:
        kind = named[0]
        if not _fits(kind, length, vocab):
            report.add(
                "dataset.json",
                f"{length} tokens and the vocabulary {vocab} are not those of {kind}, which "
                f"identity.json says was built",
            )
        if _fits(kind, length, None):
            return kind, identity
    for kind in ("sudoku", "domino", "arc", "maze"):
        if _fits(kind, length, vocab) and (kind != "maze" or _is_square(length)):
            # Without a vocabulary the tokens decide between the puzzles on a square.
            if kind == "arc" and vocab is None and inputs.size and inputs.max() < MAZE_VOCAB_SIZE:
                continue
            return kind, identity
    return None, identity


def _fits(kind: str, length: int, vocab: int | None) -> bool:
    """Whether a puzzle of this kind can have `length` tokens, of that vocabulary if it is given."""
    if kind == "sudoku":
        possible = length in sudoku.VOCAB_SIZES
    elif kind == "domino":
        possible = length == SEQ_LEN
    else:
        possible = length > 0 if kind == "maze" else _is_square(length)
    return possible and vocab in (None, _vocab(kind, length))


def _is_square(length: int) -> bool:
    return round(length**0.5) ** 2 == length > 0


def _vocab(kind: str, length: int) -> int:
    """Size of the vocabulary of a kind of puzzle with `length` tokens."""
    if kind == "sudoku":
        return sudoku.VOCAB_SIZES[length]
    return {"domino": DOMINO_VOCAB_SIZE, "arc": ARC_VOCAB_SIZE, "maze": MAZE_VOCAB_SIZE}[kind]


def _vocab_size(kind: str | None, arrays: dict[str, Array], metadata: dict[str, Any]) -> int | None:
    """Size of the vocabulary as stored, or else as the kind of puzzle has it."""
    stored = metadata.get("vocab_size")
    if stored is not None or kind is None or "inputs" not in arrays:
        return stored
    length = arrays["inputs"].shape[1]
    return _vocab(kind, length) if _fits(kind, length, None) else None


def _total(sets: dict[str, dict[str, Array]], name: str, more: int) -> int:
    return sum(max(0, len(arrays[name]) + more) for arrays in sets.values() if name in arrays)


def _check_examples(
    prefix: str,
    kind: str | None,
    split: str,
    arrays: dict[str, Array],
    metadata: dict[str, Any],
    report: Report,
) -> None:
    """Checks the examples of one set against the rules of their puzzle."""
    if kind is None or "inputs" not in arrays or "labels" not in arrays:
        return
    inputs, labels = arrays["inputs"], arrays["labels"]
    if inputs.shape != labels.shape or not _fits(kind, inputs.shape[1], None):
        return
    check: Callable[[Array, Array], Checks]
    if kind == "maze":
        check = functools.partial(maze.check_examples, width=maze.find_width(inputs, labels))
    elif kind == "arc":
        check = functools.partial(arc.check_examples, in_corner=split == "test")
    else:
        check = {"sudoku": sudoku.check_examples, "domino": domino.check_examples}[kind]
    ignored = metadata.get("ignore_label_id")
    for start in range(0, len(inputs), _CHUNK):
        x = inputs[start : start + _CHUNK].astype(np.int64)
        y = labels[start : start + _CHUNK].astype(np.int64)
        if ignored is not None:
            y = np.where(y == ignored, 0, y)
        for name, bad, what in check(x, y):
            report.add_rows(prefix + name, bad, what, start)


def _show(kind: str | None, arrays: dict[str, Array], num: int) -> list[str]:
    """The first examples as text for people."""
    if "inputs" not in arrays or "labels" not in arrays:
        return []
    inputs, labels = arrays["inputs"], arrays["labels"]
    if inputs.shape[1:] != labels.shape[1:]:
        kind = None
    render: Callable[[Array, Array], str] = {
        "sudoku": sudoku.render,
        "arc": arc.render,
        "domino": domino.render,
    }.get(kind or "", _plain)
    if kind == "maze":
        width = round(inputs.shape[1] ** 0.5)
        if inputs.shape == labels.shape:
            width = maze.find_width(inputs, labels)
        render = functools.partial(maze.render, width=width)
    pairs = zip(inputs[: max(0, num)], labels, strict=False)
    return [render(x.astype(np.int64), y.astype(np.int64)) for x, y in pairs]


def _plain(inputs: Array, labels: Array) -> str:
    return f"inputs {inputs.tolist()}\nlabels {labels.tolist()}"

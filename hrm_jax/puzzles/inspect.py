"""What is in a puzzle data set folder, and everything that is wrong with it.

`read_npy` refuses a folder at the first thing that is wrong; `inspect` goes on as far as it can.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from hrm_jax import files
from hrm_jax.data.errors import DataError, reading
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import read_identifiers, read_npy
from hrm_jax.data.puzzle_format import (
    ARRAYS,
    Report,
    Violation,
    check_set,
    check_totals,
    load_arrays,
    read_metadata,
)
from hrm_jax.puzzles import guess, named
from hrm_jax.puzzles.base import Array, Puzzle

_CHUNK = 1024  # examples that are checked at a time


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What `inspect` found in one split."""

    kind: str | None  # name of the puzzle, or None where it is not known
    metadata: dict[str, Any]  # of `dataset.json`, as far as it can be read
    sizes: dict[str, int]  # number of examples, puzzles and groups
    examples: list[str]  # the first ones as text for people
    violations: list[Violation]  # what is wrong, the first of them
    total: int  # of all violations; a row counts once for each rule


def inspect(
    folder: str | os.PathLike[str], split: str = "train", *, num: int = 3, max_reports: int = 20
) -> Inspection:
    """Checks every rule of the format, npy or TFDS, and of the puzzle.

    The kind of puzzle is that of `identity.json`, or else is guessed from the sizes. `num` examples
    are shown, and `max_reports` violations described; the others are counted.

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
        metadata, sets = _read_tfds(root, split, tfds[0], report)
    puzzle, identity = _puzzle(root, metadata, sets, report)
    examples: list[str] = []
    for name, arrays in sets.items():
        length = arrays["inputs"].shape[-1] if "inputs" in arrays and arrays["inputs"].ndim else 0
        vocab = puzzle.vocab_size(length) if puzzle and puzzle.fits(length) else None
        usable = sets[name] = check_set(name, arrays, metadata, report, vocab)
        if not {"inputs", "labels"} <= set(usable):
            continue
        prefix = "" if name == "all" else f"{name}__"
        inputs, labels = usable["inputs"], usable["labels"]
        known = puzzle if inputs.shape == labels.shape else None
        columns = 0
        if known and known.fits(inputs.shape[1]):
            columns = known.columns(inputs, labels)
            ignored = metadata.get("ignore_label_id")
            for start in range(0, len(inputs), _CHUNK):
                x, y = (a[start : start + _CHUNK].astype(np.int64) for a in (inputs, labels))
                y = y if ignored is None else np.where(y == ignored, 0, y)
                for which, bad, what in known.check(x, y, columns, test=split == "test"):
                    report.add_rows(prefix + which, bad, what, start)
        for x, y in zip(inputs[: max(0, num - len(examples))], labels, strict=False):
            x, y = x.astype(np.int64), y.astype(np.int64)
            plain = f"inputs {x.tolist()}\nlabels {y.tolist()}"
            examples.append(_show(known, x, y, columns) if known and columns else plain)
    sizes = check_totals(metadata, sets, report)
    _check_identity(root, split, identity, metadata, report)
    kind = puzzle.name if puzzle else None
    return Inspection(kind, metadata, sizes, examples, report.violations, report.total)


def _puzzle(
    root: pathlib.Path,
    metadata: dict[str, Any],
    sets: dict[str, dict[str, Array]],
    report: Report,
) -> tuple[Puzzle | None, Identity | None]:
    """The puzzle, where it is known; and the identity, if there is one."""
    identity = None
    if (root / "identity.json").exists():
        try:
            with reading(root / "identity.json"):
                identity = Identity.from_json((root / "identity.json").read_text("utf-8"))
        except (OSError, DataError) as error:
            report.add("identity.json", str(error.__cause__ or error))
    inputs = next((arrays["inputs"] for arrays in sets.values() if "inputs" in arrays), None)
    if inputs is None or inputs.ndim != 2:
        return None, identity
    length, vocab = inputs.shape[1], metadata.get("vocab_size")
    puzzle = named(identity.builder) if identity else None
    if puzzle:
        if not puzzle.fits(length, vocab):
            report.add(
                "dataset.json",
                f"{length} tokens and the vocabulary {vocab} are not those of {puzzle.name}, which "
                f"identity.json says was built",
            )
        if puzzle.fits(length):
            return puzzle, identity
    tokens = int(inputs.max()) + 1 if inputs.size and vocab is None else 0
    return guess(length, vocab, tokens), identity


def _show(puzzle: Puzzle, question: Array, answer: Array, columns: int) -> str:
    """An example as lines for people."""
    if not puzzle.painter.panels:
        return puzzle.painter.text(question, answer)
    painter = dataclasses.replace(puzzle.painter, columns=columns)
    boards = (painter.text(question, board).split("\n") for board in (question, answer))
    return "\n".join(map("    ".join, zip(*boards, strict=True)))


def _read_tfds(
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


def _check_identity(
    root: pathlib.Path,
    split: str,
    identity: Identity | None,
    metadata: dict[str, Any],
    report: Report,
) -> None:
    """Checks `identifiers.json`, and the digest if nothing else is wrong."""
    if (root / "identifiers.json").exists():
        try:
            names = len(read_identifiers(root))
            known = metadata.get("num_puzzle_identifiers", names)
            if names not in (1, known):
                report.add("identifiers.json", f"has {names} names, expected {known}")
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

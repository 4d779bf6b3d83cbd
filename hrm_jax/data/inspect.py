"""What is in a puzzle data set folder, and everything that is wrong with it.

`read_npy` refuses a folder at the first thing that is wrong; `inspect` goes on as far as it can.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax import files
from hrm_jax.data.domino import check as domino
from hrm_jax.data.domino.encoding import SEQ_LEN, VOCAB_SIZE
from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.data.puzzles import read_npy
from hrm_jax.data.sudoku.board import SudokuShape, check_rules, is_solution

Array = npt.NDArray[Any]
Checks = list[tuple[str, Array, str]]  # array, bool [N] where a row is wrong, what is wrong

KINDS = ("sudoku", "maze", "arc", "domino")
_ARRAYS = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
_CHUNK = 1024  # examples that are checked at a time
_SUDOKU_VOCAB = {16: 6, 36: 8, 81: 11}  # by number of cells
_MAZE = "?# SGo"  # the character of each token
_ARC = ".|0123456789"


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
    report = _Report(max_reports)
    path = root / split
    tfds = sorted(root.glob("**/dataset_info.json"))
    if (path / "dataset.json").exists() or not tfds:
        if not any(path.glob("*.npy")) and not (path / "dataset.json").exists():
            raise DataError(f"{path}: no split of a data set: neither dataset.json nor .npy files")
        metadata = _read_metadata(path / "dataset.json", report)
        names = metadata.get("sets") or sorted(
            file.name.removesuffix("__inputs.npy") for file in path.glob("*__inputs.npy")
        )
        sets = {name: _load_arrays(path, name, report) for name in names}
    else:
        part = _read_tfds(root, split, tfds[0], report)
        metadata = {} if part is None else dataclasses.asdict(part.metadata)
        sets = {} if part is None else {"all": _arrays_of(part)}
    kind, identity = _kind(root, metadata, sets, report)
    examples: list[str] = []
    for name, arrays in sets.items():
        prefix = "" if name == "all" else f"{name}__"
        _check_format(prefix, kind, arrays, metadata, report)
        _check_examples(prefix, kind, split, arrays, metadata, report)
        examples += _show(kind, arrays, num - len(examples))
    sizes = {
        "examples": _total(sets, "inputs", 0),
        "puzzles": _total(sets, "puzzle_identifiers", 0),
        "groups": _total(sets, "group_indices", -1),
    }
    _check_totals(metadata, sizes, report)
    _check_identity(root, split, identity, report)
    return Inspection(kind, metadata, sizes, examples, report.violations, report.total)


class _Report:
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


# --- metadata and files ---------------------------------------------------------------------------


def _read_metadata(path: pathlib.Path, report: _Report) -> dict[str, Any]:
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


def _load_arrays(path: pathlib.Path, name: str, report: _Report) -> dict[str, Array]:
    """The arrays of one set that have the right kind and number of dimensions."""
    arrays: dict[str, Array] = {}
    prefix = "" if name == "all" else f"{name}__"
    for field in (*_ARRAYS, "ratings"):
        file = path / f"{name}__{field}.npy"
        if field == "ratings" and not file.exists():
            continue
        try:
            array: Array = np.load(file, allow_pickle=False)
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


def _read_tfds(
    root: pathlib.Path, split: str, info: pathlib.Path, report: _Report
) -> PuzzleSet | None:
    try:
        names = [part.get("name") for part in files.read_json(info).get("splits", [])]
    except (OSError, ValueError, AttributeError) as error:
        report.add(info.name, f"cannot be read: {error}")
        return None
    if split not in names:
        raise DataError(f"{root}: there is no split {split!r}, only {names}")
    from hrm_jax.data.sudoku.tfds_files import read_tfds  # slow import, and optional

    try:
        return read_tfds(root, split)
    except DataError as error:
        report.add("TFDS files", str(error))
        return None


def _arrays_of(part: PuzzleSet) -> dict[str, Array]:
    arrays = {name: getattr(part, name) for name in (*_ARRAYS, "ratings")}
    return {name: array for name, array in arrays.items() if array is not None}


def _kind(
    root: pathlib.Path,
    metadata: dict[str, Any],
    sets: dict[str, dict[str, Array]],
    report: _Report,
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
            if kind == "arc" and vocab is None and inputs.size and inputs.max() < len(_MAZE):
                continue
            return kind, identity
    return None, identity


def _fits(kind: str, length: int, vocab: int | None) -> bool:
    """Whether a puzzle of this kind can have `length` tokens, of that vocabulary if it is given."""
    if kind == "sudoku":
        possible = length in _SUDOKU_VOCAB
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
        return _SUDOKU_VOCAB[length]
    return {"domino": VOCAB_SIZE, "arc": len(_ARC), "maze": len(_MAZE)}[kind]


# --- rules of the format --------------------------------------------------------------------------


def _check_format(
    prefix: str,
    kind: str | None,
    arrays: dict[str, Array],
    metadata: dict[str, Any],
    report: _Report,
) -> None:
    inputs, labels = arrays.get("inputs"), arrays.get("labels")
    length, vocab = metadata.get("seq_len"), metadata.get("vocab_size")
    if vocab is None and kind is not None and inputs is not None:
        vocab = _vocab(kind, inputs.shape[1]) if _fits(kind, inputs.shape[1], None) else None
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
    name: str, array: Array | None, stop: int | None, also: int | None, report: _Report
) -> None:
    """Values must be in [0, stop) or `also`; names the first bad one of each row."""
    if array is None or stop is None or not array.size:
        return
    bad = (array < 0) | (array >= stop)
    if also is not None:
        bad &= array != also
    grid = array.reshape(len(array), -1)
    bad = bad.reshape(grid.shape)

    def what(row: int) -> str:
        place = int(np.argmax(bad[row]))
        where = f"position {place}: " if array.ndim > 1 else ""
        more = int(bad[row].sum()) - 1
        ignored = "" if also is None else f" or {also}"
        others = f" (and {more} more in this row)" if more else ""
        return f"{where}{grid[row, place]} is outside [0, {stop}){ignored}{others}"

    report.add_rows(name, np.asarray(bad.any(1)), what)


def _check_boundaries(
    name: str, array: Array, of: Array | None, what: str, report: _Report
) -> None:
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


def _total(sets: dict[str, dict[str, Array]], name: str, more: int) -> int:
    return sum(max(0, len(arrays[name]) + more) for arrays in sets.values() if name in arrays)


def _check_totals(metadata: dict[str, Any], sizes: dict[str, int], report: _Report) -> None:
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


def _check_identity(
    root: pathlib.Path, split: str, identity: Identity | None, report: _Report
) -> None:
    """Checks `identifiers.json`, and the digest if nothing else is wrong."""
    names = root / "identifiers.json"
    if names.exists():
        try:
            value = json.loads(names.read_text("utf-8"))
        except (OSError, ValueError) as error:
            report.add("identifiers.json", f"cannot be read: {error}")
        else:
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                report.add("identifiers.json", "expected a list of names")
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


# --- rules of the puzzles -------------------------------------------------------------------------


def _check_examples(
    prefix: str,
    kind: str | None,
    split: str,
    arrays: dict[str, Array],
    metadata: dict[str, Any],
    report: _Report,
) -> None:
    if kind is None or "inputs" not in arrays or "labels" not in arrays:
        return
    inputs, labels = arrays["inputs"], arrays["labels"]
    if inputs.shape != labels.shape or not _fits(kind, inputs.shape[1], None):
        return
    ignored = metadata.get("ignore_label_id")
    width = _maze_width(inputs, labels) if kind == "maze" else 0
    for start in range(0, len(inputs), _CHUNK):
        x = inputs[start : start + _CHUNK].astype(np.int64)
        y = labels[start : start + _CHUNK].astype(np.int64)
        if ignored is not None:
            y = np.where(y == ignored, 0, y)
        if kind == "sudoku":
            checks = _check_sudoku(x, y)
        elif kind == "maze":
            checks = _check_maze(x, y, width)
        elif kind == "arc":
            checks = _check_arc(x, y, split)
        else:
            checks = domino.check_examples(x, y)
        for name, bad, what in checks:
            report.add_rows(prefix + name, bad, what, start)


def _check_sudoku(inputs: Array, labels: Array) -> Checks:
    shape = SudokuShape.for_cells(inputs.shape[1])
    givens = inputs > 1
    tokens = ((inputs >= 1) & (inputs < shape.vocab_size)).all(1)
    return [
        ("inputs", (inputs == 0).any(1), "a cell of the question is pad, expected blank or digit"),
        (
            "inputs",
            tokens & ~check_rules(inputs - 1, shape),
            "a given digit stands twice in a unit",
        ),
        ("labels", ~is_solution(labels - 1, shape), "the answer is no full valid grid"),
        ("labels", (givens & (inputs != labels)).any(1), "the answer changes a given"),
    ]


def _check_maze(inputs: Array, labels: Array, width: int) -> Checks:
    """Tokens: 1 wall, 2 free, 3 start, 4 goal, 5 on the path."""
    marked = labels == 5
    kept = np.where(marked, 2, labels) == inputs
    ends = ((inputs == 3).sum(1) == 1) & ((inputs == 4).sum(1) == 1)
    shape = (len(inputs), inputs.shape[1] // width, width)
    grid, path = inputs.reshape(shape), marked.reshape(shape)
    shortest = _distances(grid != 1, grid == 3, grid == 4)
    along = _distances(path | (grid >= 3), grid == 3, grid == 4)
    connected = along == marked.sum(1) + 1
    comparable = ends & kept.all(1) & (shortest > 0)
    return [
        *(
            (name, (array == token).sum(1) != 1, f"{letter} stands there not exactly once")
            for name, array in (("inputs", inputs), ("labels", labels))
            for token, letter in ((3, "S"), (4, "G"))
        ),
        ("inputs", (inputs == 0).any(1), "a cell of the question is pad"),
        ("inputs", (inputs == 5).any(1), "the question shows path cells (o)"),
        ("labels", ~kept.all(1), "the answer changes the question, not only free cells to path"),
        ("inputs", ends & (shortest < 0), "no way leads from S to G"),
        (
            "labels",
            comparable & ~connected,
            "the path cells are not one path from S to G without detours",
        ),
        ("labels", comparable & connected & (along > shortest), "the path is not a shortest one"),
    ]


def _maze_width(inputs: Array, labels: Array) -> int:
    """The width that is stored nowhere: with it most of the first paths are whole.

    Of equally good ones it is that of the board nearest to a square.
    """
    x, y = inputs[:64].astype(np.int64), labels[:64].astype(np.int64)
    length = inputs.shape[1]
    widths = [width for width in range(1, length + 1) if length % width == 0]
    best, fewest = 0, math.inf
    for width in sorted(widths, key=lambda width: abs(math.log(width * width / length))):
        wrong = sum(int(bad.sum()) for _, bad, _ in _check_maze(x, y, width))
        if wrong < fewest:
            best, fewest = width, wrong
        if not wrong:
            break
    return best


def _distances(free: Array, start: Array, goal: Array) -> Array:
    """Steps from start to goal by breadth-first search, bool [N, h, w] each; -1 without a way."""
    distances = np.full(len(free), -1, np.int64)
    reached, edge = start.copy(), start
    for step in range(1, free[0].size + 1):
        grown = np.zeros_like(edge)
        grown[:, 1:] |= edge[:, :-1]
        grown[:, :-1] |= edge[:, 1:]
        grown[:, :, 1:] |= edge[:, :, :-1]
        grown[:, :, :-1] |= edge[:, :, 1:]
        edge = grown & free & ~reached
        reached |= edge
        distances[(edge & goal).any((1, 2))] = step
        if not edge.any() or (distances > 0).all():
            break
    return distances


def _check_arc(inputs: Array, labels: Array, split: str) -> Checks:
    """A filled rectangle of colours, with end-of-sequence below and to the right of it."""
    result: Checks = []
    corners = []
    for name, tokens in (("inputs", inputs), ("labels", labels)):
        side = round(tokens.shape[1] ** 0.5)
        grid = tokens.reshape(-1, side, side)
        colours = grid >= 2
        some = np.asarray(colours.any((1, 2)))
        down, right = np.arange(side)[None, :, None], np.arange(side)[None, None, :]
        in_rows, in_cols = np.asarray(colours.any(2)), np.asarray(colours.any(1))
        top, left = in_rows.argmax(1)[:, None, None], in_cols.argmax(1)[:, None, None]
        bottom = side - in_rows[:, ::-1].argmax(1)[:, None, None]
        end = side - in_cols[:, ::-1].argmax(1)[:, None, None]
        rows, cols = (down >= top) & (down < bottom), (right >= left) & (right < end)
        filled = (colours == (rows & cols)).all((1, 2))
        wanted = (rows & (right == end)) | (cols & (down == bottom))
        marked = ((grid == 1) == wanted).all((1, 2))
        corners.append(np.stack([top[:, 0, 0], left[:, 0, 0]], axis=1))
        result += [
            (name, ~some, "no colour in it, expected a grid"),
            (name, some & ~filled, "the colours are not one filled rectangle"),
            (
                name,
                some & filled & ~marked,
                "end-of-sequence must stand just below and just right of the grid, nowhere else",
            ),
        ]
        if split == "test":
            moved = (corners[-1] != 0).any(1)
            result.append((name, some & moved, "the grid of a test example must stand top left"))
    both = (inputs >= 2).any(1) & (labels >= 2).any(1)
    apart = both & (corners[0] != corners[1]).any(1)
    result.append(("labels", apart, "question and answer stand at different offsets"))
    return result


# --- examples for people --------------------------------------------------------------------------


def _show(kind: str | None, arrays: dict[str, Array], num: int) -> list[str]:
    if "inputs" not in arrays or "labels" not in arrays:
        return []
    inputs, labels = arrays["inputs"], arrays["labels"]
    width = round(inputs.shape[1] ** 0.5)
    if inputs.shape[1:] != labels.shape[1:]:
        kind = None
    elif kind == "maze" and inputs.shape == labels.shape:
        width = _maze_width(inputs, labels)
    pairs = zip(inputs[: max(0, num)], labels, strict=False)
    return [_render(kind, x.astype(np.int64), y.astype(np.int64), width) for x, y in pairs]


def _render(kind: str | None, inputs: Array, labels: Array, width: int) -> str:
    if kind == "domino":
        return domino.render(inputs, labels)
    if kind == "sudoku":
        shape = SudokuShape.for_cells(len(inputs))
        letters = "?." + "123456789"[: shape.size]
        blocks = [_sudoku_lines(_letters(x, letters), shape) for x in (inputs, labels)]
    elif kind in ("maze", "arc"):
        letters = _MAZE if kind == "maze" else _ARC
        texts = [_letters(x, letters) for x in (inputs, labels)]
        blocks = [[t[i : i + width] for i in range(0, len(t), width)] for t in texts]
    else:
        return f"inputs {inputs.tolist()}\nlabels {labels.tolist()}"
    return "\n".join(f"{left}    {right}" for left, right in zip(*blocks, strict=True))


def _letters(tokens: Array, letters: str) -> str:
    return "".join(letters[t] if 0 <= t < len(letters) else "?" for t in tokens.tolist())


def _sudoku_lines(text: str, shape: SudokuShape) -> list[str]:
    width, lines = shape.box_cols, []
    for row in range(shape.size):
        if row and row % shape.box_rows == 0:
            lines.append("-" * (2 * shape.size + 2 * (shape.size // width) - 3))
        cells = text[row * shape.size : (row + 1) * shape.size]
        boxes = [" ".join(cells[i : i + width]) for i in range(0, shape.size, width)]
        lines.append(" | ".join(boxes))
    return lines

"""Reads ARC tasks: folders of JSON, archives of such folders, and Kaggle's pairs of files."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array

Grid = Array  # colours, uint8 [H, W]
Pair = tuple[Grid, Grid]

COLOURS = 10
MAX_SIDE = 30
_LARGEST_FILE = 2**26  # bytes; Kaggle's largest file has a fifteenth of that
_KAGGLE = re.compile(r".*?(?P<split>training|evaluation|test)_challenges\.json")
_SPLIT_OF_FOLDER = {
    "training": "training",
    "evaluation": "evaluation",
    "corpus": "training",  # ConceptARC, as the reference counts it
    "MinimalTasks": "minimal",
}


@dataclasses.dataclass(frozen=True, eq=False)
class ArcTask:
    """One task; its grids are colours 0 to 9, uint8 [1 to 30, 1 to 30]."""

    name: str  # that of the file, without `.json`
    train: tuple[Pair, ...]  # demonstrations
    test: tuple[tuple[Grid, Grid | None], ...]  # questions; None where the output is not known

    def grids(self) -> list[Grid]:
        """All grids of the task."""
        return [x for pair in (*self.train, *self.test) for x in pair if x is not None]

    def side(self) -> int:
        """The longest side of any grid."""
        return max(max(grid.shape) for grid in self.grids())


def read_tasks(path: str | os.PathLike[str]) -> dict[str, tuple[ArcTask, ...]]:
    """Reads all tasks of a source: by split, sorted by name; nothing is written to disk.

    A source is a folder, or a tar archive (compressed or not) of one, with a JSON file for each
    task at any depth, or with Kaggle's `..._<split>_challenges.json` and beside each, if the
    answers are known, `..._<split>_solutions.json`; or it is one such `..._challenges.json`.

    Splits are `training`, `evaluation` and `test`, by folder or file name; ConceptARC has
    `training` (its corpus, 160 tasks) and `minimal`; tasks in other folders are in the split `all`.

    Raises:
        DataError: No tasks, or a file that is none; names file (and archive member), task, pair,
            what was found and what was expected.
    """
    root = pathlib.Path(path)
    if root.is_file() and not _KAGGLE.fullmatch(root.name):
        files = _archive_files(root)
    elif root.exists():
        below = root if root.is_dir() else root.parent
        answers = root.with_name(root.name.replace("_challenges", "_solutions"))
        files = [
            _File(pathlib.PurePosixPath(x.relative_to(below)), str(x), x.read_bytes)
            for x in (sorted(root.rglob("*.json")) if root.is_dir() else [root, answers])
            if x.is_file() and not x.name.startswith(".")
        ]
    else:
        raise DataError(f"{root}: there is no such file or folder")
    splits = _read_kaggle(files) or _read_task_files(files)
    if not splits:
        raise DataError(f"{root}: holds no .json files, expected one for each task")
    return splits


def choose_split(
    splits: dict[str, tuple[ArcTask, ...]], wanted: Iterable[str], where: str
) -> tuple[ArcTask, ...]:
    """The first of the wanted splits that there is; DataError names those that there are."""
    names = list(wanted)
    for name in names:
        if name in splits:
            return splits[name]
    raise DataError(f"{where}: has the splits {sorted(splits)}, expected one of {names}")


class _File(NamedTuple):
    """A JSON file: its name below the source, its name for messages, and how to read it."""

    name: pathlib.PurePosixPath
    where: str
    read: Callable[[], bytes]

    def parse(self) -> dict[str, Any]:
        try:
            value = json.loads(self.read().decode("utf-8"))
        except json.JSONDecodeError as error:
            line = f"line {error.lineno}: not valid JSON: {error.msg}"
            raise DataError(f"{self.where}: {line}") from error
        except (UnicodeDecodeError, RecursionError, ValueError) as error:
            raise DataError(f"{self.where}: not valid JSON: {error}") from error
        except OSError as error:
            raise DataError(f"{self.where}: cannot be read: {error}") from error
        if not isinstance(value, dict):
            found = type(value).__name__
            raise DataError(f"{self.where}: expected a JSON object, found {found}")
        return value


def _archive_files(root: pathlib.Path) -> list[_File]:
    """The JSON files of an archive; their names only tell splits and tasks, no path is opened."""
    files: list[_File] = []
    try:
        with tarfile.open(root, "r:*") as archive:
            for member in archive:
                name = pathlib.PurePosixPath(member.name)
                if not member.isfile() or name.suffix != ".json" or name.name.startswith("."):
                    continue
                where = f"{root}, member {member.name}"
                if member.size > _LARGEST_FILE:
                    raise DataError(
                        f"{where}: has {member.size} bytes, expected at most {_LARGEST_FILE}"
                    )
                stream = archive.extractfile(member)
                assert stream is not None  # only of members that are no files
                files.append(_File(name, where, functools.partial(bytes, stream.read())))
    except DataError:
        raise
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(
            f"{root}: expected a folder, a tar archive or ..._challenges.json; "
            f"as an archive it cannot be read: {error}"
        ) from error
    return sorted(files, key=lambda file: str(file.name))


def _read_task_files(files: list[_File]) -> dict[str, tuple[ArcTask, ...]]:
    splits: dict[str, dict[str, tuple[ArcTask, str]]] = {}
    for file in files:
        folders = file.name.parts[:-1]
        split = next((_SPLIT_OF_FOLDER[x] for x in folders if x in _SPLIT_OF_FOLDER), "all")
        tasks, name = splits.setdefault(split, {}), file.name.stem
        if name in tasks:
            raise DataError(f"{file.where}: the task {name} is also in {tasks[name][1]}")
        tasks[name] = (_task(name, file.parse(), file.where), file.where)
    return {
        split: tuple(task for _, (task, _) in sorted(tasks.items()))
        for split, tasks in splits.items()
    }


def _read_kaggle(files: list[_File]) -> dict[str, tuple[ArcTask, ...]]:
    """Tasks of Kaggle's files; none where there are none of those."""
    splits: dict[str, tuple[ArcTask, ...]] = {}
    by_name = {file.name: file for file in files}
    for file in files:
        match = _KAGGLE.fullmatch(file.name.name)
        if not match:
            continue
        split = match["split"]
        if split in splits:
            raise DataError(f"{file.where}: there is another file of the split {split}")
        tasks = file.parse()
        if not tasks:
            raise DataError(f"{file.where}: holds no tasks")
        solutions = file.name.name.replace("_challenges", "_solutions")
        if answers := by_name.get(file.name.with_name(solutions)):
            _add_answers(tasks, answers.parse(), file.where, answers.where)
        splits[split] = tuple(_task(key, tasks[key], file.where) for key in sorted(tasks))
    return splits


def _add_answers(tasks: Any, answers: Any, where: str, answers_where: str) -> None:
    """Puts Kaggle's answers into the raw tasks."""
    for name, task in tasks.items():
        questions = task.get("test") if isinstance(task, dict) else None
        if not isinstance(questions, list):
            continue  # `_task` says what is wrong
        some = answers.get(name)
        if not isinstance(some, list) or len(some) != len(questions):
            found = f"{len(some)} grids" if isinstance(some, list) else "no list"
            raise DataError(
                f"{answers_where}: task {name}: found {found}, expected a list of "
                f"{len(questions)} grids, one for each test input in {where}"
            )
        for question, answer in zip(questions, some, strict=True):
            if isinstance(question, dict):
                question["output"] = answer


def _task(name: str, value: Any, where: str) -> ArcTask:
    here = f"{where}: task {name}"
    if not isinstance(value, dict) or not {"train", "test"} <= set(value):
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise DataError(f"{here}: expected an object with train and test, found {found}")
    train: list[Pair] = []
    for pair, source, target in _pairs(value["train"], f"{here}: train"):
        if target is None:
            raise DataError(f"{pair}: output is missing")
        train.append((source, target))
    test = [(source, target) for _, source, target in _pairs(value["test"], f"{here}: test")]
    return ArcTask(name, tuple(train), tuple(test))


def _pairs(value: Any, where: str) -> Iterator[tuple[str, Grid, Grid | None]]:
    """Yields name for messages, input, and output or None where there is none."""
    if not isinstance(value, list) or not value:
        found = "an empty one" if value == [] else type(value).__name__
        raise DataError(f"{where}: expected a list of pairs, found {found}")
    for number, pair in enumerate(value, 1):
        here = f"{where} pair {number}"
        if not isinstance(pair, dict) or "input" not in pair:
            keys = sorted(pair) if isinstance(pair, dict) else type(pair).__name__
            raise DataError(f"{here}: expected an object with input and output, found {keys}")
        target = _grid(pair["output"], f"{here}: output") if "output" in pair else None
        yield here, _grid(pair["input"], f"{here}: input"), target


def _grid(value: Any, where: str) -> Grid:
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise DataError(f"{where}: expected a list of rows of colours")
    widths = [len(row) for row in value]
    if not 1 <= len(value) <= MAX_SIDE or not 1 <= widths[0] <= MAX_SIDE:
        size = f"{len(value)}×{widths[0] if widths else 0}"
        raise DataError(f"{where}: is {size}, expected 1 to {MAX_SIDE} rows and columns")
    for number, row in enumerate(value, 1):
        if len(row) != widths[0]:
            raise DataError(
                f"{where}: row {number} has {len(row)} cells, row 1 has {widths[0]}; expected a "
                f"rectangle"
            )
        for column, colour in enumerate(row, 1):
            if type(colour) is not int or not 0 <= colour < COLOURS:
                raise DataError(
                    f"{where}: row {number}, column {column} is {str(colour)[:20]!r}, "
                    f"expected a colour 0 to {COLOURS - 1}"
                )
    return np.array(value, np.uint8)

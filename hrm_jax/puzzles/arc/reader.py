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
from typing import Any

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array

Grid = Array  # colours, uint8 [H, W]
Pair = tuple[Grid, Grid]

COLOURS = 10
MAX_SIDE = 30
_LARGEST_FILE = 2**26  # bytes; Kaggle's largest file has a fifteenth of that
_KAGGLE = re.compile(r"(?P<start>.*?)(?P<split>training|evaluation|test)_challenges\.json")
_SPLIT_OF_FOLDER = {
    "training": "training",
    "evaluation": "evaluation",
    "corpus": "training",  # ConceptARC, as the reference counts it
    "MinimalTasks": "minimal",
}


@dataclasses.dataclass(frozen=True, eq=False)
class ArcTask:
    """One task; its grids are colours 0 to 9, uint8 [1 to 30, 1 to 30].

    Attributes:
        name: That of the file, without `.json`.
        train: Demonstrations: input and output of each.
        test: Questions: input, and output or None where it is not known.
    """

    name: str
    train: tuple[Pair, ...]
    test: tuple[tuple[Grid, Grid | None], ...]

    def grids(self) -> Iterator[Grid]:
        """Yields all grids of the task."""
        for source, target in (*self.train, *self.test):
            yield source
            if target is not None:
                yield target

    def side(self) -> int:
        """Returns the longest side of any grid."""
        return max(max(grid.shape) for grid in self.grids())


def read_tasks(path: str | os.PathLike[str]) -> dict[str, tuple[ArcTask, ...]]:
    """Reads all tasks of a source; nothing is written to disk.

    Args:
        path: One of
            a folder, or a tar archive (compressed or not) of one, with a JSON file for each task,
            at any depth;
            a folder or archive with Kaggle's `..._<split>_challenges.json`, and beside each, if
            the answers are known, `..._<split>_solutions.json`;
            one such `..._challenges.json`.

    Returns:
        Tasks by split, sorted by name. Splits are `training`, `evaluation` and `test`, by folder
        or file name; ConceptARC has `training` (its corpus, 160 tasks) and `minimal`; tasks in
        other folders are in the split `all`.

    Raises:
        DataError: No tasks, or a file that is none; names file (and archive member), task, pair,
            what was found and what was expected.
    """
    root = pathlib.Path(path)
    if root.is_dir():
        files = [
            _file(path, root)
            for path in sorted(root.rglob("*.json"))
            if path.is_file() and not path.name.startswith(".")
        ]
    elif _KAGGLE.fullmatch(root.name):
        answers = root.with_name(root.name.replace("_challenges", "_solutions"))
        files = [_file(root, root.parent)] + [_file(answers, root.parent)] * answers.is_file()
    elif root.is_file():
        files = _archive_files(root)
    else:
        raise DataError(f"{root}: there is no such file or folder")
    kaggle = [part for part in files if _KAGGLE.fullmatch(part[0].name)]
    splits = _read_kaggle(kaggle, files) if kaggle else _read_task_files(files)
    if not splits:
        raise DataError(f"{root}: holds no .json files, expected one for each task")
    return splits


def choose_split(
    splits: dict[str, tuple[ArcTask, ...]], wanted: Iterable[str], where: str
) -> tuple[ArcTask, ...]:
    """Returns the first of the wanted splits that there is.

    Raises:
        DataError: There is none of them; names those that there are.
    """
    names = list(wanted)
    for name in names:
        if name in splits:
            return splits[name]
    raise DataError(f"{where}: has the splits {sorted(splits)}, expected one of {names}")


_File = tuple[pathlib.PurePosixPath, str, Callable[[], bytes]]


def _file(path: pathlib.Path, root: pathlib.Path) -> _File:
    """Name below `root`, name for messages and contents of a file."""
    name = pathlib.PurePosixPath(path.relative_to(root))
    return name, str(path), functools.partial(_read_bytes, path)


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
                _check_size(where, member.size)
                stream = archive.extractfile(member)
                assert stream is not None  # only of members that are no files
                files.append((name, where, functools.partial(bytes, stream.read())))
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{root}: expected a folder, a tar archive or ..._challenges.json; "
            f"as an archive it cannot be read: {error}"
        ) from error
    return sorted(files, key=lambda part: str(part[0]))


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        _check_size(str(path), path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _check_size(where: str, size: int) -> None:
    if size > _LARGEST_FILE:
        raise DataError(f"{where}: has {size} bytes, expected at most {_LARGEST_FILE}")


def _read_task_files(files: list[_File]) -> dict[str, tuple[ArcTask, ...]]:
    splits: dict[str, dict[str, tuple[ArcTask, str]]] = {}
    for name, where, read in files:
        split = next((_SPLIT_OF_FOLDER[p] for p in name.parts[:-1] if p in _SPLIT_OF_FOLDER), "all")
        tasks = splits.setdefault(split, {})
        if name.stem in tasks:
            raise DataError(f"{where}: the task {name.stem} is also in {tasks[name.stem][1]}")
        tasks[name.stem] = (_task(name.stem, _parse(read(), where), where), where)
    return {
        split: tuple(task for _, (task, _) in sorted(tasks.items()))
        for split, tasks in splits.items()
    }


def _read_kaggle(kaggle: list[_File], files: list[_File]) -> dict[str, tuple[ArcTask, ...]]:
    splits: dict[str, tuple[ArcTask, ...]] = {}
    by_name = {str(name): (where, read) for name, where, read in files}
    for name, where, read in kaggle:
        match = _KAGGLE.fullmatch(name.name)
        assert match is not None  # that is how they were chosen
        split = match["split"]
        if split in splits:
            raise DataError(f"{where}: there is another file of the split {split}")
        tasks = _parse(read(), where)
        answers_name = str(name.with_name(name.name.replace("_challenges", "_solutions")))
        if answers_name in by_name:
            answers_where, read_answers = by_name[answers_name]
            _add_answers(tasks, _parse(read_answers(), answers_where), where, answers_where)
        splits[split] = tuple(_task(key, tasks[key], where) for key in sorted(tasks))
        if not tasks:
            raise DataError(f"{where}: holds no tasks")
    return splits


def _add_answers(tasks: Any, answers: Any, where: str, answers_where: str) -> None:
    """Puts Kaggle's answers into the raw tasks."""
    for name, task in tasks.items():
        questions = task.get("test") if isinstance(task, dict) else None
        if not isinstance(questions, list):
            continue  # `_task` says what is wrong
        if not isinstance(answers.get(name), list) or len(answers[name]) != len(questions):
            some = answers.get(name)
            found = f"{len(some)} grids" if isinstance(some, list) else "no list"
            raise DataError(
                f"{answers_where}: task {name}: found {found}, expected a list of "
                f"{len(questions)} grids, one for each test input in {where}"
            )
        for question, answer in zip(questions, answers[name], strict=True):
            if isinstance(question, dict):
                question["output"] = answer


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: line {error.lineno}: not valid JSON: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise DataError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


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

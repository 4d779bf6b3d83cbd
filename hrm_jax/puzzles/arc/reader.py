"""Reads ARC tasks: folders of JSON, archives of such folders, and Kaggle's pairs of files."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from hrm_jax.data.errors import DataError, reading
from hrm_jax.puzzles.arc.json_files import JsonFile, json_files
from hrm_jax.puzzles.base import Array

logger = logging.getLogger(__name__)

Grid = Array  # colours, uint8 [H, W]
Pair = tuple[Grid, Grid]

COLOURS = 10
MAX_SIDE = 30
_KAGGLE = re.compile(r"(?:.*[-_])?(?P<split>[A-Za-z]+\d*)[-_]challenges\.json")
_SOLUTIONS = re.compile(r".*[-_]solutions\.json")
_FOLDER = re.compile(r"(?:training|evaluation|test|concept)\d*")
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
    hidden: int = 0  # outputs of the test that are placeholders

    def grids(self) -> list[Grid]:
        """All grids of the task."""
        return [x for pair in (*self.train, *self.test) for x in pair if x is not None]

    def side(self) -> int:
        """The longest side of any grid."""
        return max(max(grid.shape) for grid in self.grids())


def read_tasks(path: str | os.PathLike[str]) -> dict[str, tuple[ArcTask, ...]]:
    """Reads all tasks of a source: by split, sorted by name; nothing is written to disk.

    A source is a folder, or a tar archive (compressed or not) or ZIP of one, with a JSON file for
    each task at any depth, or with Kaggle's `..._<split>_challenges.json` and beside each, if the
    answers are known, `..._<split>_solutions.json`; or it is one JSON file, of one task or of tasks
    by name as Kaggle's are.

    Splits have the names of Kaggle's files, or of folders: `training`, `evaluation`, `test`,
    `concept`, all with numbers (`training2`) too; ConceptARC has `training` (its corpus, 160 tasks)
    and `minimal`; tasks in other folders are in the split `all`.

    A test output `[[0]]` is the placeholder of a hidden one, and unknown, unless a demonstration of
    the task has an output of one cell too; a warning says how many there are.

    Raises:
        DataError: No tasks, or a file that is none; names file (and archive member), task, pair,
            what was found and what was expected.
    """
    root = pathlib.Path(path)
    if not root.exists():
        raise DataError(f"{root}: there is no such file or folder")
    if _SOLUTIONS.fullmatch(root.name) and root.is_file():
        raise DataError(
            f"{root}: holds answers alone, expected {_partner(root.name, 'challenges')}, beside "
            f"which they are read"
        )
    files = json_files(root)
    answers = root.with_name(_partner(root.name, "solutions"))
    if root.is_file() and _KAGGLE.fullmatch(root.name) and answers.exists():
        files += json_files(answers)
    with reading(root, "ARC tasks"):
        splits = _read_kaggle(files, alone=root.is_file()) or _read_task_files(files)
    if not splits:
        raise DataError(f"{root}: holds no .json files, expected one for each task")
    if hidden := sum(task.hidden for tasks in splits.values() for task in tasks):
        logger.warning(
            "%s: %d test outputs are [[0]], the placeholder of hidden solutions: they count as "
            "unknown",
            *(root, hidden),
        )
    return splits


def read_subsets(source: str, wanted: Sequence[str]) -> list[ArcTask]:
    """The tasks of a source, all of those that are named behind it, `path:training2+concept`.

    Where none are named it is the first of the splits `wanted` that there is, see `choose_split`,
    or a single file's only one.
    """
    path, _, names = source.rpartition(":")
    if not path or pathlib.Path(source).exists():
        path, names = source, ""
    splits = read_tasks(path)
    if not names:
        if pathlib.Path(path).suffix == ".json":
            return [task for tasks in splits.values() for task in tasks]
        return [*choose_split(splits, wanted, path)]
    found: dict[str, ArcTask] = {}
    for name in names.split("+"):
        if name not in splits:
            raise DataError(f"{path}: there is no split {name!r}, expected of {sorted(splits)}")
        for task in splits[name]:
            if task.name in found:
                raise DataError(f"{source}: the task {task.name} is in more than one of them")
            found[task.name] = task
    return list(found.values())


def choose_split(
    splits: dict[str, tuple[ArcTask, ...]], wanted: Iterable[str], where: str
) -> tuple[ArcTask, ...]:
    """The first of the wanted splits that there is, or the only one if it has a name of its own.

    DataError names those that there are, where none is wanted or where tasks would be passed over:
    those of splits other than `training`, `evaluation`, `test` and ConceptARC's `minimal`.
    """
    names = list(wanted)
    others = sorted(set(splits) - {"training", "evaluation", "test", "minimal"})
    if len(splits) == len(others) == 1:
        return splits[others[0]]
    found = [name for name in names if name in splits]
    if found and not {*others} - {found[0]}:
        return splits[found[0]]
    several = f", and none of {others} beside it" if found else ""
    raise DataError(
        f"{where}: has the splits {sorted(splits)}, expected one of {names}{several}; name the one "
        f"that is meant, or several joined by +, behind a colon: {where}:{[*found, *splits][0]}"
    )


def _partner(name: str, kind: str) -> str:
    """The name of the file with a Kaggle file's `challenges` or `solutions`."""
    return re.sub(r"(challenges|solutions)\.json$", f"{kind}.json", name)


def _read_task_files(files: list[JsonFile]) -> dict[str, tuple[ArcTask, ...]]:
    splits: dict[str, dict[str, tuple[ArcTask, str]]] = {}
    for file in files:
        folders = file.name.parts[:-1]
        named = [_SPLIT_OF_FOLDER[x] for x in folders if x in _SPLIT_OF_FOLDER]
        split = next(iter(named or filter(_FOLDER.fullmatch, folders)), "all")
        tasks, name = splits.setdefault(split, {}), file.name.stem
        if name in tasks:
            raise DataError(f"{file.where}: the task {name} is also in {tasks[name][1]}")
        tasks[name] = (_task(name, file.parse(), file.where), file.where)
    return {
        split: tuple(task for _, (task, _) in sorted(tasks.items()))
        for split, tasks in splits.items()
    }


def _read_kaggle(files: list[JsonFile], alone: bool) -> dict[str, tuple[ArcTask, ...]]:
    """Tasks of Kaggle's files; none where there are none of those.

    A single file, `alone`, may have any name.
    """
    splits: dict[str, tuple[ArcTask, ...]] = {}
    by_name = {file.name: file for file in files}
    matches = {name: _KAGGLE.fullmatch(name.name) for name in by_name}
    if not any(matches.values()):
        if not alone or len(files) != 1 or {"train", "test"} & set(tasks := files[0].parse()):
            return {}
        return {"all": _tasks(tasks, files[0].where)}
    for file in files:
        match = matches[file.name]
        if not match:
            partner = file.name.with_name(_partner(file.name.name, "challenges"))
            if file.name.name != "sample_submission.json" and not matches.get(partner):
                raise DataError(
                    f"{file.where}: neither Kaggle's ..._challenges.json, as others here, nor the "
                    f"..._solutions.json of one of them"
                )
            continue
        split = match["split"]
        if split in splits:
            raise DataError(f"{file.where}: there is another file of the split {split}")
        tasks = file.parse()
        if answers := by_name.get(file.name.with_name(_partner(file.name.name, "solutions"))):
            _add_answers(tasks, answers.parse(), file.where, answers.where)
        splits[split] = _tasks(tasks, file.where)
    return splits


def _tasks(tasks: dict[str, Any], where: str) -> tuple[ArcTask, ...]:
    if not tasks:
        raise DataError(f"{where}: holds no tasks")
    return tuple(_task(key, tasks[key], where) for key in sorted(tasks))


def _add_answers(tasks: Any, answers: Any, where: str, answers_where: str) -> None:
    """Puts Kaggle's answers into the raw tasks."""
    if strangers := sorted(set(answers) - set(tasks)):
        raise DataError(f"{answers_where}: task {strangers[0]}: there is no such task in {where}")
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
        found = sorted(value)[:5] if isinstance(value, dict) else type(value).__name__
        raise DataError(f"{here}: expected an object with train and test, found {found}")
    train: list[Pair] = []
    for pair, source, target in _pairs(value["train"], f"{here}: train"):
        if target is None:
            raise DataError(f"{pair}: output is missing")
        train.append((source, target))
    test = [(source, target) for _, source, target in _pairs(value["test"], f"{here}: test")]
    if any(target.size == 1 for _, target in train):
        return ArcTask(name, tuple(train), tuple(test))
    known = tuple((x, None if y is not None and is_placeholder(y) else y) for x, y in test)
    hidden = sum(y is not None for _, y in test) - sum(y is not None for _, y in known)
    return ArcTask(name, tuple(train), known, hidden)


def is_placeholder(grid: Grid) -> bool:
    """Whether a grid is `[[0]]`, which stands for hidden answers; a task may also mean it."""
    return grid.size == 1 and not grid.any()


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

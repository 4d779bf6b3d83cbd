"""Builds ARC data sets: from ARC-AGI's and ConceptARC's files or made up, without leaks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Sequence

from hrm_jax import files
from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import PuzzleSet, read_npy, write_npy
from hrm_jax.data.output_folder import output_folder
from hrm_jax.puzzles.arc.convert import to_puzzle_sets
from hrm_jax.puzzles.arc.leaks import without_leaks
from hrm_jax.puzzles.arc.questions import Questions
from hrm_jax.puzzles.arc.reader import ArcTask, choose_split, read_tasks
from hrm_jax.puzzles.arc.synthetic import FAMILIES, generate_tasks

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class ArcSource:
    """Where the tasks come from: files, or else made up.

    Attributes:
        training: Sources of training tasks, see `reader.read_tasks`; their split `training`, or
            all tasks of a source without splits.
        evaluation: Source of the evaluation tasks; its split `evaluation`, or else `test`, or all
            tasks of a source without splits.
        num_aug: Augmentations of each task; the paper has 1000.
        test_aug: How many of them are evaluated; None for all.
        canvas: Rows and columns of the canvas; None: 30, or one more than `side` if made up.
        max_grid: Tasks with a longer side are left out; None: every task must fit the canvas.
        num_train: Made-up training tasks.
        num_test: Made-up evaluation tasks.
        side: Longest side of made-up grids.
        demonstrations: Demonstrations of each made-up task.
        families: Kinds of made-up rules, of `synthetic.FAMILIES`; () for all.
        seed: Seed of augmentations and made-up tasks.
    """

    training: tuple[str, ...] = ()
    evaluation: str = ""
    num_aug: int = 100
    test_aug: int | None = None
    canvas: int | None = None
    max_grid: int | None = None
    num_train: int = 480
    num_test: int = 48
    side: int = 6
    demonstrations: int = 3
    families: tuple[str, ...] = ()
    seed: int = 0

    def canvas_side(self) -> int:
        """Returns the rows and columns of the canvas."""
        if self.canvas is not None:
            return self.canvas
        return 30 if self.evaluation else self.side + 1


@dataclasses.dataclass(frozen=True)
class ArcData:
    """A data set to train on and to evaluate.

    Attributes:
        train, test: The splits; see `convert.to_puzzle_sets`.
        identifiers: Name of each puzzle identifier; 0 is `<blank>`.
        questions: Which test input and symmetry each test example is.
        left_out: Training pairs that were left out because they give an answer, in words; not
            known of a data set that was read from a folder.
    """

    train: PuzzleSet
    test: PuzzleSet
    identifiers: list[str]
    questions: Questions
    left_out: tuple[str, ...] = ()

    def identifiers_digest(self) -> str:
        """Returns the SHA-256 of the identifiers' names."""
        return hashlib.sha256(json.dumps(self.identifiers).encode()).hexdigest()

    def identity(self, seed: int | None) -> Identity:
        """Returns what identifies the data: counts and digests."""
        return Identity(
            builder="arc",
            version=VERSION,
            seed=seed,
            counts={
                "train_tasks": self.train.metadata.total_groups,
                "train_examples": len(self.train),
                "test_tasks": self.test.metadata.total_groups,
                "test_inputs": len(self.questions.items),
                "test_examples": len(self.test),
                "identifiers": len(self.identifiers),
            },
            sha256={
                "train": self.train.digest(),
                "test": self.test.digest(),
                "identifiers": self.identifiers_digest(),
            },
        )


def load_arc(source: ArcSource, scratch: pathlib.Path | None = None) -> ArcData:
    """Reads or makes up tasks and builds the splits in memory, or in mapped files.

    Args:
        source: What to build.
        scratch: Folder for the arrays, None for memory.

    Raises:
        DataError: Bad arguments or files, or evaluation tasks among the training tasks.
    """
    training, evaluation, left_out = load_tasks(source)
    train, test, identifiers = to_puzzle_sets(
        training,
        evaluation,
        canvas=source.canvas_side(),
        num_aug=source.num_aug,
        test_aug=source.test_aug,
        seed=source.seed,
        scratch=scratch,
    )
    questions = Questions.of(test, identifiers)
    return ArcData(train, test, identifiers, questions, tuple(left_out))


def build_arc(
    output: str | os.PathLike[str], source: ArcSource, *, overwrite: bool = False
) -> Identity:
    """Builds a data set folder in the reference's format; complete when it gets its name.

    Beside the splits it holds `identifiers.json` and `identity.json`. While it is written, the
    arrays stand on the disk twice, but never all in memory.

    Args:
        output: Folder to make.
        source: What to build.
        overwrite: Replace a data set that stands there, one that this function wrote.

    Returns:
        What identifies the data: counts and digests.

    Raises:
        DataError: Bad arguments or files, leaks, or a folder in the way.
    """
    with output_folder(output, overwrite) as folder:
        scratch = folder / "scratch"
        scratch.mkdir()
        data = load_arc(source, scratch)
        for split, puzzles in (("train", data.train), ("test", data.test)):
            write_npy(folder, split, puzzles, data.identifiers)
        identity = data.identity(source.seed)
        del data, puzzles  # the files are mapped
        shutil.rmtree(scratch)
        files.write_text(folder / "identity.json", identity.to_json() + "\n")
    return identity


def read_arc(folder: str | os.PathLike[str]) -> ArcData:
    """Reads what `build_arc` wrote, or another program in the same format and with such names.

    Raises:
        DataError: A file is missing or damaged, or they do not belong together.
    """
    path = pathlib.Path(folder) / "identifiers.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: expected a list of names")
    train, test = read_npy(folder, "train"), read_npy(folder, "test")
    return ArcData(train, test, names, Questions.of(test, names))


def load_tasks(source: ArcSource) -> tuple[list[ArcTask], list[ArcTask], list[str]]:
    """Reads or makes up training and evaluation tasks.

    Returns:
        Training tasks, evaluation tasks, and which training pairs were left out because they give
        an answer; see `leaks.without_leaks`.

    Raises:
        DataError: Bad arguments or files, or evaluation tasks among the training tasks.
    """
    if bool(source.training) != bool(source.evaluation):
        raise DataError("training and evaluation belong together: give both or neither")
    if source.evaluation:
        training = _training_tasks(source.training)
        splits = read_tasks(source.evaluation)
        evaluation = [*choose_split(splits, ("evaluation", "test", "all"), source.evaluation)]
    else:
        if source.num_train < 1 or source.num_test < 1:
            raise DataError(
                f"num_train is {source.num_train}, num_test {source.num_test}; expected 1 or more"
            )
        tasks = generate_tasks(
            source.num_train + source.num_test,
            source.seed,
            side=source.side,
            demonstrations=source.demonstrations,
            families=source.families or tuple(FAMILIES),
        )
        training, evaluation = tasks[: source.num_train], tasks[source.num_train :]
    training, left_out = without_leaks(training, evaluation)
    if source.max_grid is not None:
        training = [task for task in training if task.side() <= source.max_grid]
        evaluation = [task for task in evaluation if task.side() <= source.max_grid]
        if not training or not evaluation:
            raise DataError(
                f"max_grid is {source.max_grid}: {len(training)} training and "
                f"{len(evaluation)} evaluation tasks are left, expected some of each"
            )
    return training, evaluation, left_out


def _training_tasks(paths: Sequence[str]) -> list[ArcTask]:
    tasks: dict[str, tuple[ArcTask, str]] = {}
    for path in paths:
        for task in choose_split(read_tasks(path), ("training", "all"), path):
            if task.name in tasks:
                raise DataError(
                    f"{path}: its training task {task.name} is also in {tasks[task.name][1]}; "
                    f"ARC-AGI-2 holds most of ARC-AGI-1, give one of them"
                )
            tasks[task.name] = (task, path)
    return [task for task, _ in tasks.values()]

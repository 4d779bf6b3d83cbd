"""The ARC task: where its tasks come from, how they may be moved, how the answers are voted on."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from hrm_jax.data.identity import Identity
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.fields import require
from hrm_jax.models.act import Solved
from hrm_jax.puzzles.arc.augment import translate
from hrm_jax.puzzles.arc.baselines import (
    Baseline,
    copy_input_baseline,
    most_frequent_colour_baseline,
)
from hrm_jax.puzzles.arc.build import ArcData, ArcSource, build_arc, load_arc, read_arc
from hrm_jax.puzzles.arc.questions import Questions
from hrm_jax.puzzles.arc.tokens import canvas_side
from hrm_jax.puzzles.arc.vote import PASS_AT, Ballot, cell_accuracy, pass_at_k, vote
from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.puzzles.task import PuzzleConfig, PuzzleTask


@dataclasses.dataclass(frozen=True)
class ArcTaskData:
    """Which tasks: a data set folder, files, or else made-up ones.

    Attributes:
        path: Folder made by `launch/build_dataset.py arc`.
        training: Sources of training tasks, separated by commas: folders, archives or Kaggle's
            files; see `hrm_jax.puzzles.arc.reader.read_tasks`.
        evaluation: Source of the evaluation tasks.
        num_aug: Augmentations of each task, besides the task itself; the paper has 1000.
        test_aug: How many of them are in the test; −1 for all.
        canvas: Rows and columns of the canvas; 0: 30, or one more than `side` if made up.
        max_grid: Tasks with a longer side are left out; 0: every task must fit the canvas.
        num_train, num_test: Made-up training and evaluation tasks.
        side: Longest side of made-up grids.
        demonstrations: Demonstrations of each made-up task.
        families: Kinds of made-up rules, separated by commas; "" for all, see
            `hrm_jax.puzzles.arc.synthetic.FAMILIES`.
        seed: Seed of augmentations and made-up tasks.
        augment: Whether each draw is moved about the canvas at random.
    """

    path: str = ""
    training: str = ""
    evaluation: str = ""
    num_aug: int = 100
    test_aug: int = -1
    canvas: int = 0
    max_grid: int = 0
    num_train: int = 480
    num_test: int = 48
    side: int = 6
    demonstrations: int = 3
    families: str = ""
    seed: int = 0
    augment: bool = True

    def __post_init__(self) -> None:
        require(
            not (self.path and (self.training or self.evaluation)),
            "data.path and data.training/evaluation: give one or the other",
        )
        require(self.test_aug >= -1, f"data.test_aug: expected -1 or more, got {self.test_aug}")

    def source(self) -> ArcSource:
        """The same for the builder."""
        return ArcSource(
            training=_parts(self.training),
            evaluation=self.evaluation,
            num_aug=self.num_aug,
            test_aug=None if self.test_aug < 0 else self.test_aug,
            canvas=self.canvas or None,
            max_grid=self.max_grid or None,
            num_train=self.num_train,
            num_test=self.num_test,
            side=self.side,
            demonstrations=self.demonstrations,
            families=_parts(self.families),
            seed=self.seed,
        )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArcConfig(PuzzleConfig):
    """Configuration of an ARC run.

    Attributes:
        eval_aug: How many augmentations of each task are solved in the evaluations of training,
            besides the task itself; −1 for all that the test has. `launch/evaluate.py` takes all.
    """

    data: ArcTaskData = ArcTaskData()
    eval_aug: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.eval_aug >= -1, f"config.eval_aug: expected -1 or more, got {self.eval_aug}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArcTest(PuzzleSet):
    """The test split of an ARC data set, and what it takes to score answers to it.

    Attributes:
        questions: Which test input and symmetry each example is.
        baselines: What answers without learning score, by name; {} where no answers are known.
    """

    questions: Questions
    baselines: Mapping[str, Baseline]

    @classmethod
    def of(cls, data: ArcData) -> ArcTest:
        """Takes the test split of a data set."""
        fields = {f.name: getattr(data.test, f.name) for f in dataclasses.fields(data.test)}
        baselines = {}
        if any(question.answer is not None for question in data.questions.items):
            baselines["copy"] = copy_input_baseline(data)
            baselines["colour"] = most_frequent_colour_baseline(data)
        return cls(**fields, questions=data.questions, baselines=baselines)

    def first(self, augmentations: int) -> ArcTest:
        """The same test inputs with only so many augmentations, besides the task itself."""
        rows = np.flatnonzero(self.questions.augmentation <= augmentations)
        sizes = np.diff(self.group_indices)
        places = np.arange(len(self.puzzle_identifiers)) - np.repeat(self.group_indices[:-1], sizes)
        puzzles = np.flatnonzero(places <= augmentations)
        return dataclasses.replace(
            self,
            inputs=self.inputs[rows],
            labels=self.labels[rows],
            puzzle_identifiers=self.puzzle_identifiers[puzzles],
            puzzle_indices=_boundaries(np.diff(self.puzzle_indices)[puzzles]),
            group_indices=_boundaries(np.minimum(sizes, augmentations + 1)),
            metadata=dataclasses.replace(
                self.metadata, mean_puzzle_examples=len(rows) / len(puzzles)
            ),
            questions=self.questions.take(rows),
        )

    def vote(self, solved: Solved) -> Ballot:
        """The votes of answers to the first N examples, on those test inputs that occur there."""
        questions = self.questions.take(slice(len(solved.predictions)))
        asked = questions.items[: int(np.max(questions.item)) + 1]
        questions = dataclasses.replace(questions, items=asked)
        return vote(questions, solved.predictions, solved.q_halt)


def _boundaries(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)


class ArcTask(PuzzleTask):
    """Trains an ACT model on ARC, where an embedding for each symmetry of each task names it.

    Besides the usual figures, which are over all augmentations: `eval/pass_at_1`, `_2`, `_10`, …
    (the right answer is among so many that the augmentations voted for, mean over tasks; as far as
    there are so many votes), `eval/cell_accuracy` (share of cells that the first of them has
    right), and both of answering with the input (`eval/copy_…`) and with a grid of that size in the
    most frequent colour (`eval/colour_…`). Where no answers are known there are none of these.
    """

    def __init__(
        self,
        config: Any,
        data_cache: pathlib.Path | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """As in `PuzzleTask`."""
        super().__init__(config, data_cache, variables)
        assert isinstance(self.test, ArcTest)  # what `load` returns
        self._evaluated = self.test if config.eval_aug < 0 else self.test.first(config.eval_aug)
        measured = config.best_metric or config.early_stopping.metric
        require(
            bool(self.test.baselines) or not measured,
            "config.best_metric: no answers of the evaluation tasks are known, so there is no "
            'best; expected "", and "" for early_stopping.metric',
        )

    @classmethod
    def load(
        cls, data: ArcTaskData, cache: pathlib.Path | None
    ) -> tuple[PuzzleSet, PuzzleSet, Identity]:
        """As in `PuzzleTask.load`; the test is an `ArcTest`."""
        if data.path:
            found = read_arc(data.path)
        elif cache is None:
            found = load_arc(data.source())
        else:
            if not (cache / "test" / "dataset.json").exists():
                build_arc(cache, data.source())
            found = read_arc(cache)
        return found.train, ArcTest.of(found), found.identity(None if data.path else data.seed)

    def augment(
        self, key: PRNGKeyArray, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Input and output at one random place of the canvas."""
        return translate(key, inputs, labels, canvas_side(inputs.shape[0]))

    def evaluated(self) -> PuzzleSet:
        """The test inputs with `config.eval_aug` augmentations."""
        return self._evaluated

    @classmethod
    def tally(cls, puzzles: PuzzleSet, solved: Solved) -> Figures:
        """`pass_at_k` and `cell_accuracy` of the votes; beside them, where all of the test was
        solved, those of the baselines."""
        assert isinstance(puzzles, ArcTest)
        ballot = puzzles.vote(solved)
        figures = {f"eval/{name}": share for name, share in ballot_figures(ballot).items()}
        if figures and len(ballot.questions) == len(puzzles):
            for name, baseline in puzzles.baselines.items():
                figures[f"eval/{name}_pass_at_1"] = baseline.pass_at_1
                figures[f"eval/{name}_cell_accuracy"] = baseline.cell_accuracy
        return figures


def ballot_figures(ballot: Ballot, models: int = 1) -> Figures:
    """Scores votes.

    Args:
        ballot: Votes of all augmentations.
        models: How many models have voted.

    Returns:
        `pass_at_1`, `pass_at_2`, `pass_at_10`, …, as far as there are so many votes, and
        `cell_accuracy`; {} where no answers are known.
    """
    if all(question.answer is None for question in ballot.questions.items):
        return {}
    votes = models * int(np.max(np.bincount(ballot.questions.item)))
    passed = pass_at_k(ballot, [k for k in PASS_AT if k <= max(2, votes)])
    figures: dict[str, Any] = {name.replace("@", "_at_"): x for name, x in passed.items()}
    return {**figures, "cell_accuracy": cell_accuracy(ballot)}

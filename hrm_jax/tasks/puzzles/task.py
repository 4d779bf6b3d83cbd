"""What all puzzle tasks share: their configuration, data, training step and evaluation."""

from __future__ import annotations

import abc
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import grain
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import PRNGKeyArray

from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import read_npy, write_npy
from hrm_jax.data.pipeline import PuzzleBatches, batch_iterator
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.fields import ConfigError, require
from hrm_jax.models import recurrent
from hrm_jax.models.act import Solved
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.trm import TRMConfig
from hrm_jax.tasks.base import Figures, Metrics, RunConfig, State, Task
from hrm_jax.tasks.puzzles.act_training import (
    ACTTrainer,
    PuzzleOptimizerConfig,
    puzzle_weights,
)
from hrm_jax.tasks.puzzles.evaluation import evaluate_puzzles, labels_to_count
from hrm_jax.tasks.puzzles.losses import LossName
from hrm_jax.tasks.puzzles.report import report


@dataclasses.dataclass(frozen=True, kw_only=True)
class PuzzleConfig(RunConfig):
    """Fields that the config of every puzzle task has.

    Attributes:
        data: Which puzzles.
        model: Which network (`model.name`) and its sizes; seq_len, vocab_size and
            num_puzzle_identifiers come from the data.
        optimizer: How parameters are updated.
        loss: Token loss.
        eval_slots: Puzzles that think at a time in evaluation.
        eval_max_steps: Most ACT steps in evaluation; 0 takes those of training. More are often
            better, and with halting cost little.
        init_from: A workdir, or a file of the reference's names.
        reset_puzzle_table: Whether a puzzle table of another size is replaced.
    """

    free: ClassVar[tuple[str, ...]] = (
        *(*RunConfig.free, "eval_aug", "eval_slots", "eval_max_steps", "reset_puzzle_table"),
        *("data.path", "data.train_csv", "data.test_csv"),  # the identity tells whether they differ
    )

    data: Any = None
    model: HRMConfig | TRMConfig = dataclasses.field(default_factory=HRMConfig)
    optimizer: PuzzleOptimizerConfig = dataclasses.field(default_factory=PuzzleOptimizerConfig)
    loss: LossName = "stablemax"
    eval_slots: int = 32
    eval_max_steps: int = 0
    best_metric: str = "eval/exact_accuracy"
    reset_puzzle_table: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.eval_slots >= 1, f"config.eval_slots: expected at least 1, got {self.eval_slots}"
        )
        require(
            self.eval_max_steps >= 0,
            f"config.eval_max_steps: expected 0 or more, got {self.eval_max_steps}",
        )


def read_data_folder(folder: str | os.PathLike[str], split: str) -> PuzzleSet:
    """Reads a split of a data set folder, in npy or TFDS format."""
    folder = pathlib.Path(folder)
    if (folder / split / "dataset.json").exists() or not list(folder.glob("**/dataset_info.json")):
        return read_npy(folder, split)
    from hrm_jax.puzzles.sudoku.tfds_files import read_tfds  # slow import, and optional

    return read_tfds(folder, split)


def stored_or_made(
    path: str, cache: pathlib.Path | None, make: Callable[[], tuple[PuzzleSet, PuzzleSet]]
) -> tuple[PuzzleSet, PuzzleSet]:
    """Train and test sets from a data set folder, from those kept before, or newly made.

    Args:
        path: Data set folder; "" for none.
        cache: Folder in which what was made is kept for the next time, or None.
        make: Makes both sets.
    """
    kept = cache if not path and cache and (cache / "test" / "dataset.json").exists() else None
    if path or kept:
        folder = kept or pathlib.Path(path)
        return read_data_folder(folder, "train"), read_data_folder(folder, "test")
    train, test = make()
    if cache:
        write_npy(cache, "train", train)
        write_npy(cache, "test", test)
    return train, test


def identify(
    builder: str, version: str, seed: int | None, train: PuzzleSet, test: PuzzleSet
) -> Identity:
    """What identifies a pair of sets."""
    counts = {"train_examples": len(train), "test_examples": len(test)}
    return Identity.of(builder, version, seed, counts, train, test)


class PuzzleTask(Task):
    """Trains an ACT model on puzzles.

    A kind of puzzle says where its data come from (`load`), what may be done to an example
    (`augment`), and what else than equality makes an answer good (`scores`).

    Attributes:
        config: The configuration, with the sizes that come from the data filled in.
        train, test: The puzzles.
        answer_length: How many of the first tokens are the answer; None for all.
    """

    unit = "puzzles"
    shown: ClassVar[Mapping[str, str]] = {
        **Task.shown,
        "exact": "train/exact_accuracy",
        "held-out": "eval/exact_accuracy",
    }
    answer_length: ClassVar[int | None] = None

    def __init__(
        self,
        config: Any,
        data_cache: pathlib.Path | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads or generates the data.

        Args:
            config: The configuration.
            data_cache: Folder for generated puzzles.
            variables: Weights to start from instead of fresh ones.

        Raises:
            ConfigError: `config.model` contradicts the data.
            DataError: Bad data.
        """
        self.train, self.test, self._identity = self.load(config.data, data_cache)
        facts = self.train.metadata
        sizes: dict[str, Any] = {
            "seq_len": facts.seq_len,
            "vocab_size": facts.vocab_size,
            "num_puzzle_identifiers": facts.num_puzzle_identifiers,
        }
        for name, value in sizes.items():
            given = getattr(config.model, name)
            default = getattr(HRMConfig(), name)
            if given not in (default, value):
                raise ConfigError(f"model.{name} is {given}, but the data have {value}")
        self.config = dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
        self._variables = variables
        self._trainer = ACTTrainer(
            self.config.model, config.optimizer, config.loss, config.steps, config.microbatch_size
        )

    @property
    def identity(self) -> Identity:
        """What identifies the data."""
        return self._identity

    @classmethod
    @abc.abstractmethod
    def load(cls, data: Any, cache: pathlib.Path | None) -> tuple[PuzzleSet, PuzzleSet, Identity]:
        """Train and test sets and what identifies them.

        Args:
            data: Which puzzles.
            cache: Folder in which generated puzzles are kept for the next time, or None.

        Raises:
            DataError: Bad files, or a test puzzle in training.
        """

    @classmethod
    def read_csv(cls, path: pathlib.Path) -> PuzzleSet:
        """Puzzles with answers from a CSV file.

        Raises:
            DataError: The file is bad, or these puzzles have no such files.
        """
        raise DataError(f"{path}: expected a data set folder, these puzzles have no CSV files")

    @property
    def augments(self) -> bool:
        """Whether training goes through `augment`."""
        return bool(self.config.data.augment)

    def augment(
        self, key: PRNGKeyArray, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """A random example as good as the given one [S]; pure."""
        return inputs, labels

    @classmethod
    def scores(
        cls,
        inputs: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        predictions: npt.NDArray[Any],
    ) -> dict[str, npt.NDArray[np.bool_]]:
        """Verdicts on predictions [N, S] besides equality, by name, each bool [N]."""
        return {}

    @classmethod
    def transform(cls, key: PRNGKeyArray, inputs: jax.Array) -> jax.Array:
        """The same puzzle [S] in another form, for voting; pure.

        Raises:
            DataError: Such puzzles have no symmetries to vote under.
        """
        raise DataError(
            "votes: these puzzles have no symmetries to vote under here (ARC's evaluation votes "
            "over its augmentations by itself)"
        )

    @classmethod
    def restore(cls, key: PRNGKeyArray, answer: jax.Array) -> jax.Array:
        """Turns the answer [S] to what `transform` made with this key into one to the puzzle."""
        return answer

    @classmethod
    def obeys(
        cls, inputs: npt.NDArray[Any], predictions: npt.NDArray[Any]
    ) -> npt.NDArray[np.bool_]:
        """Which predictions [N, S] obey the rules, so far as can be told without the label [N].

        Raises:
            DataError: Answers to such puzzles cannot be checked.
        """
        raise DataError("verify: answers to these puzzles cannot be checked without the label")

    @classmethod
    def tally(cls, puzzles: PuzzleSet, solved: Solved) -> Figures:
        """Figures `eval/…` of the answers to the first N puzzles together."""
        return {}

    def evaluated(self) -> PuzzleSet:
        """The puzzles that `evaluate` takes."""
        return self.test

    def init(self, key: PRNGKeyArray) -> State:
        """A fresh state; the carry has `batch_size` rows that have all halted."""
        weights_key, run_key = jax.random.split(key)
        variables = self._variables or recurrent.init(self.config.model, weights_key)
        rows, length = self.config.batch_size, self.config.model.seq_len
        batch = {
            "inputs": jnp.zeros((rows, length), jnp.int32),
            "labels": jnp.zeros((rows, length), jnp.int32),
            "puzzle_identifiers": jnp.zeros(rows, jnp.int32),
        }
        return self._trainer.init(run_key, variables, batch)

    def batches(self) -> grain.DatasetIterator:
        """Training batches; element i is a pure function of (seed, i)."""
        source = PuzzleBatches(
            self.train,
            self.config.batch_size,
            self.config.seed,
            jax.process_index(),
            jax.process_count(),
        )
        return batch_iterator(source)

    def step(self, state: State, batch: Any) -> tuple[State, Metrics]:
        """Augments the batch, then one step of deep supervision."""
        augment_key, explore_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        inputs = batch["inputs"].astype(jnp.int32)
        labels = batch["labels"].astype(jnp.int32)
        if self.augments:
            keys = jax.random.split(augment_key, inputs.shape[0])
            inputs, labels = jax.vmap(self.augment)(keys, inputs, labels)
        batch = {
            "inputs": inputs,
            "labels": labels_to_count(labels, self.train.metadata.ignore_label_id),
            "puzzle_identifiers": batch["puzzle_identifiers"],
        }
        return self._trainer.step(state, batch, explore_key)

    def weights(self, state: State) -> dict[str, Any]:
        """`params`, averaged where an average is kept, `constants` and, if any, `tables`."""
        return puzzle_weights(state)

    @classmethod
    def model(cls, config: Any, weights: Mapping[str, Any], name: str) -> Any:
        """A `PuzzleModel`; see its `solve`."""
        from hrm_jax.tasks.puzzles.model import PuzzleModel  # which imports this

        steps = config.eval_max_steps or None
        return PuzzleModel(config.model, weights, puzzle=config.task, max_steps=steps)

    @classmethod
    def with_sizes(cls, config: Any, sizes: Any) -> Any:
        """The configuration as it is.

        Raises:
            ConfigError: The weights are those of another network.
        """
        require(
            type(sizes) is type(config.model),
            f"config.init_from: {config.init_from}: not the weights of the network "
            f"{config.model.variant!r}",
        )
        return config

    def report(self, state: State, figures: Figures, folder: pathlib.Path) -> str:
        """Figures, a solved puzzle, and what to do next; draws some."""
        return report(self, state, figures, folder)

    def evaluate(self, state: State) -> Figures:
        """Figures on the test set, halting by q."""
        return evaluate_puzzles(
            self.config.model,
            self.weights(state),
            self.evaluated(),
            slots=self.config.eval_slots,
            max_steps=self.config.eval_max_steps or self.config.model.halt_max_steps,
            scores=self.scores,
            tally=self.tally,
        )

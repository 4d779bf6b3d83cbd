"""The Sudoku task: puzzles, an ACT model, and their configuration."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import grain
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from hrm_jax.configs import ConfigError, require
from hrm_jax.data.identity import Identity
from hrm_jax.data.pipeline import PuzzleBatches, batch_iterator
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.data.puzzles import read_npy, write_npy
from hrm_jax.data.sudoku.board import SudokuShape
from hrm_jax.data.sudoku.build import VERSION, SudokuSource, load_puzzles
from hrm_jax.data.sudoku.convert import to_puzzle_set
from hrm_jax.data.sudoku.symmetry import augment
from hrm_jax.models import hrm
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.optim.build import OptimizerConfig
from hrm_jax.tasks.act_training import ACTTrainer
from hrm_jax.tasks.base import Figures, Metrics, RunConfig, State
from hrm_jax.tasks.evaluation import evaluate_puzzles, labels_to_count
from hrm_jax.tasks.losses import LossName


@dataclasses.dataclass(frozen=True)
class SudokuData:
    """Which puzzles: a data set folder, two CSV files, or else the generator.

    Attributes:
        path: Folder made by `launch/build_dataset.py` or by the reference (npy or TFDS).
        train_csv, test_csv: Files with the columns source, question, answer, rating.
        subsample: Random puzzles of `train_csv` to keep; 0 for all.
        check_symmetry: Whether the files are compared up to symmetry too, not only exactly.
        size: Rows of generated boards: 4, 6 or 9.
        num_train, num_test: Generated puzzles.
        givens: Least and greatest number of givens of generated puzzles; () for the usual ones.
        seed: Seed of generator and subsample.
        augment: Whether each draw gets a fresh random symmetry.
    """

    path: str = ""
    train_csv: str = ""
    test_csv: str = ""
    subsample: int = 0
    check_symmetry: bool = False
    size: int = 6
    num_train: int = 1000
    num_test: int = 1000
    givens: tuple[int, ...] = ()
    seed: int = 0
    augment: bool = True

    def __post_init__(self) -> None:
        require(
            len(self.givens) in (0, 2),
            f"data.givens: expected a least and a greatest number, got {self.givens}",
        )
        require(
            not (self.path and (self.train_csv or self.test_csv)),
            "data.path and data.train_csv/test_csv: give one or the other",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SudokuConfig(RunConfig):
    """Configuration of a Sudoku run.

    Attributes:
        data: Which puzzles.
        model: Sizes; seq_len, vocab_size and num_puzzle_identifiers come from the data.
        optimizer: How parameters are updated.
        loss: Token loss.
        eval_slots: Puzzles that think at a time in evaluation.
        eval_max_steps: Most ACT steps in evaluation; 0 takes those of training. More are often
            better, and with halting cost little.
        init_from: Weights to start from: a file of the reference's names, or a workdir.
        reset_puzzle_table: Whether a puzzle table of another size is replaced.
    """

    data: SudokuData = SudokuData()
    model: HRMConfig = dataclasses.field(default_factory=HRMConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    loss: LossName = "stablemax"
    eval_slots: int = 32
    eval_max_steps: int = 0
    init_from: str = ""
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
    from hrm_jax.data.sudoku.tfds_files import read_tfds  # slow import, and optional

    return read_tfds(folder, split)


def load_data(
    data: SudokuData, cache: pathlib.Path | None
) -> tuple[PuzzleSet, PuzzleSet, Identity]:
    """Train and test sets and what identifies them.

    Args:
        data: Which puzzles.
        cache: Folder in which generated puzzles are kept for the next time, or None.

    Raises:
        DataError: Bad files, or a test grid in training.
    """
    generated = not (data.path or data.train_csv or data.test_csv)
    stored = cache if generated and cache and (cache / "test" / "dataset.json").exists() else None
    if stored or data.path:
        folder = stored or pathlib.Path(data.path)
        train, test = (read_data_folder(folder, split) for split in ("train", "test"))
    else:
        train_puzzles, test_puzzles, shape = load_puzzles(
            SudokuSource(
                size=data.size,
                num_train=data.num_train,
                num_test=data.num_test,
                givens=(data.givens[0], data.givens[1]) if data.givens else None,
                train_csv=data.train_csv or None,
                test_csv=data.test_csv or None,
                subsample=data.subsample or None,
                check_symmetry=data.check_symmetry,
                seed=data.seed,
            )
        )
        train, test = to_puzzle_set(train_puzzles, shape), to_puzzle_set(test_puzzles, shape)
        if generated and cache:
            write_npy(cache, "train", train)
            write_npy(cache, "test", test)
    identity = Identity(
        builder="sudoku",
        version=VERSION,
        seed=None if data.path else data.seed,
        counts={"train_examples": len(train), "test_examples": len(test)},
        sha256={"train": train.digest(), "test": test.digest()},
    )
    return train, test, identity


class SudokuTask:
    """Trains an ACT model on Sudoku; see `hrm_jax.tasks.base.Task`.

    Attributes:
        config: The configuration, with the sizes that come from the data filled in.
        identity: What identifies the data.
        train, test: The puzzles.
    """

    def __init__(
        self,
        config: SudokuConfig,
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
        self.train, self.test, self.identity = load_data(config.data, data_cache)
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
        self.shape = SudokuShape.for_cells(facts.seq_len)
        self.config = dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
        self._variables = variables
        self._trainer = ACTTrainer(
            self.config.model, config.optimizer, config.loss, config.steps, config.microbatch_size
        )

    def init(self, key: PRNGKeyArray) -> State:
        """A fresh state; the carry has `batch_size` rows that have all halted."""
        weights_key, run_key = jax.random.split(key)
        variables = self._variables or hrm.init(self.config.model, weights_key)
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
        if self.config.data.augment:
            keys = jax.random.split(augment_key, inputs.shape[0])
            inputs, labels = jax.vmap(lambda k, x, y: augment(k, x, y, self.shape))(
                keys, inputs, labels
            )
        batch = {
            "inputs": inputs,
            "labels": labels_to_count(labels, self.train.metadata.ignore_label_id),
            "puzzle_identifiers": batch["puzzle_identifiers"],
        }
        return self._trainer.step(state, batch, explore_key)

    def evaluate(self, state: State) -> Figures:
        """Figures on the test set, halting by q."""
        return evaluate_puzzles(
            self.config.model,
            state.variables(),
            self.test,
            slots=self.config.eval_slots,
            max_steps=self.config.eval_max_steps or self.config.model.halt_max_steps,
        )

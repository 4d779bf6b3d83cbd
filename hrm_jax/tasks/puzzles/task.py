"""The task of puzzles, of whatever kind: configuration, data, training step and evaluation."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import grain
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.pipeline import PuzzleBatches, batch_iterator
from hrm_jax.data.puzzle_set import PuzzleSet, in_parts
from hrm_jax.fields import ConfigError, require, require_fields
from hrm_jax.models import recurrent
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.trm import TRMConfig
from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.base import Puzzle
from hrm_jax.tasks.base import Figures, Metrics, RunConfig, State, Task
from hrm_jax.tasks.puzzles.act_training import (
    ACTTrainer,
    PuzzleOptimizerConfig,
    puzzle_weights,
)
from hrm_jax.tasks.puzzles.evaluation import evaluate_puzzles
from hrm_jax.tasks.puzzles.losses import IGNORED, LossName
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.tasks.puzzles.report import report


@dataclasses.dataclass(frozen=True, kw_only=True)
class PuzzleConfig(RunConfig):
    """Configuration of a run on puzzles; `task` names them.

    Attributes:
        data: Which puzzles: the puzzle's `Puzzle.data`.
        model: Which network (`model.name`) and its sizes; seq_len, vocab_size and
            num_puzzle_identifiers come from the data.
        optimizer: How parameters are updated.
        loss: Token loss.
        eval_slots: Puzzles that think at a time in evaluation.
        eval_max_steps: Most ACT steps in evaluation; 0 takes those of training. More are often
            better, and with halting cost little.
        eval_aug: How many augmentations of each puzzle of the test are solved in the evaluations of
            training, besides the puzzle itself, where the test has any; −1 for all.
            `launch/evaluate.py` takes all.
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
    eval_aug: int = -1
    best_metric: str = "eval/exact_accuracy"
    reset_puzzle_table: bool = False

    def unused(self) -> dict[str, str]:
        table = dict.fromkeys(
            ("optimizer.puzzle_emb_lr", "optimizer.puzzle_emb_weight_decay"),
            "model.puzzle_emb_ndim is 0: there is no table",
        )
        fresh = {"reset_puzzle_table": "init_from is not set"}
        return {
            **({} if self.model.puzzle_emb_ndim else table),
            **({} if self.init_from else fresh),
        }

    def __post_init__(self) -> None:
        super().__post_init__()
        check = functools.partial(require_fields, self, "config")
        check("at least 1", lambda x: x >= 1, "eval_slots")
        check("at least 0", lambda x: x >= 0, "eval_max_steps")
        check("at least -1", lambda x: x >= -1, "eval_aug")


@functools.cache
def config_of(puzzle: Puzzle) -> type[PuzzleConfig]:
    """The class of configurations of a puzzle's runs: `PuzzleConfig` with its kind of data."""
    return dataclasses.make_dataclass(
        f"{puzzle.name.capitalize()}Config",
        [("data", puzzle.data, puzzle.data())],
        bases=(PuzzleConfig,),
        frozen=True,
        kw_only=True,
    )


class PuzzleTask(Task):
    """Trains an ACT model on puzzles; its config has the sizes that come from the data."""

    unit = "puzzles"
    shown: ClassVar[Mapping[str, str]] = {
        **Task.shown,
        "exact": "train/exact_accuracy",
        "held-out": "eval/exact_accuracy",
    }

    def __init__(
        self,
        config: Any,
        data_cache: pathlib.Path | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads or generates the data; `variables` are weights to start from."""
        self.puzzle = PUZZLES[config.task]
        self.train, self.test, self._identity = self.puzzle.load(config.data, data_cache)
        facts = self.train.metadata
        further: dict[str, Any] = {}
        sizes: dict[str, Any] = {
            "seq_len": facts.seq_len,
            "vocab_size": facts.vocab_size,
            "num_puzzle_identifiers": facts.num_puzzle_identifiers,
        }
        if config.model.mixer == "units":
            kinds = self.puzzle.units(facts.seq_len)
            require(
                bool(kinds), f"model.mixer: 'units', but {self.puzzle.name} puzzles say of none"
            )
            groups = tuple(tuple(tuple(group.tolist()) for group in kind) for kind in kinds)
            further = {"units": groups, "values": self.puzzle.values(facts.seq_len)}
        for name, value in sizes.items():
            asked = getattr(self.test.metadata, name)
            if asked > value or (name == "seq_len" and asked != value):
                raise DataError(
                    f"{name} is {asked} in the test split, but {value} in the training split, "
                    f"which gives the model its sizes"
                )
        shape = self.puzzle.shape(facts.seq_len)
        if shape is None or not self.puzzle.fits(facts.seq_len, facts.vocab_size):
            raise DataError(
                f"the data have {facts.seq_len} tokens of a vocabulary of {facts.vocab_size}, "
                f"which are none of {self.puzzle.name} puzzles"
            )
        sizes |= further
        for name, value in sizes.items():
            given = getattr(config.model, name)
            default = getattr(HRMConfig(), name)
            if given not in (default, value):
                raise ConfigError(f"model.{name} is {given}, but the data have {value}")
        measured = config.best_metric or config.early_stopping.metric
        require(
            not measured or _any_label(self.test),
            "config.best_metric: no answers of the test puzzles are known, so there is no best; "
            'expected "", and "" for early_stopping.metric',
        )
        few = config.eval_aug
        self.evaluated = self.test if few < 0 else self.puzzle.first(self.test, few)
        self.config = dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
        self._variables = variables
        self._trainer = ACTTrainer(
            self.config.model, config.optimizer, config.loss, config.steps, config.microbatch_size
        )

    @property
    def identity(self) -> Identity:
        return self._identity

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
        if self.puzzle.augments(self.config.data):
            keys = jax.random.split(augment_key, inputs.shape[0])
            augment = functools.partial(self.puzzle.augment, self.config.data)
            inputs, labels = jax.vmap(augment)(keys, inputs, labels)
        ignored = self.train.metadata.ignore_label_id
        if ignored is not None:
            labels = jnp.where(labels == ignored, IGNORED, labels)
        batch = {**batch, "inputs": inputs, "labels": labels}
        return self._trainer.step(state, batch, explore_key)

    def weights(self, state: State) -> dict[str, Any]:
        return puzzle_weights(state)

    @classmethod
    def model(cls, config: Any, weights: Mapping[str, Any], name: str) -> PuzzleModel:
        steps = config.eval_max_steps or None
        return PuzzleModel(config.model, weights, PUZZLES[config.task], steps, config.loss)

    @classmethod
    def with_sizes(cls, config: Any, sizes: Any) -> Any:
        require(
            type(sizes) is type(config.model),
            f"config.init_from: {config.init_from}: not the weights of the network "
            f"{config.model.variant!r}",
        )
        return config

    def report(self, state: State, figures: Figures, folder: pathlib.Path) -> str:
        return report(self, state, figures, folder)

    def evaluate(self, state: State) -> Figures:
        return evaluate_puzzles(
            self.config.model,
            self.weights(state),
            self.evaluated,
            self.puzzle,
            slots=self.config.eval_slots,
            max_steps=self.config.eval_max_steps or self.config.model.halt_max_steps,
        )


def _any_label(puzzles: PuzzleSet) -> bool:
    """Whether the answer to any puzzle is known; the labels may be a mapped file."""
    ignored = puzzles.metadata.ignore_label_id
    return any((part != ignored).any() for _, part in in_parts(puzzles.labels))

"""What every task shares: its state, its configuration, its protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import grain
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PRNGKeyArray

from hrm_jax.data.identity import Identity
from hrm_jax.fields import require

Metrics = Mapping[str, Array]
"""Name to a float32 pair [2]: a sum and the number of things summed. `tokens`, if it is there, sums
to the number of tokens that the step has learnt from."""

Figures = Mapping[str, Any]
"""Name to a number, or to a list of numbers, ready to be written down."""


class State(struct.PyTreeNode):
    """Everything a run needs to go on: all of it is checkpointed.

    Attributes:
        step: Optimizer steps done, int32 scalar.
        params: What the optimizer trains.
        opt_state: The optimizer's own state.
        key: Root of the run's randomness; never changes, steps fold their number in.
        carry: What the task hands from step to step.
        ema: Averages of collections by their names, which is to say {"params": average}; or None.
        tables: Embedding tables with sparse updates. They have no average, for keeping one up would
            touch every row at each step.
        constants: Saved with the weights, never trained.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    key: PRNGKeyArray
    carry: Any = None
    ema: Any = None
    tables: Any = struct.field(default_factory=dict)
    constants: Any = struct.field(default_factory=dict)

    def variables(self, averaged: bool = True) -> dict[str, Any]:
        """The weights as `module.apply` takes them; averaged ones where the run keeps them."""
        live = {"params": self.params, "tables": self.tables, "constants": self.constants}
        return {**live, **self.ema} if averaged and self.ema is not None else live


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """When to stop before the last step.

    Attributes:
        metric: Name of an evaluation figure; "" never stops early.
        mode: Whether more or less of it is better.
        patience: Evaluations without improvement after which the run stops.
        min_delta: Least change that counts as improvement.
    """

    metric: str = ""
    mode: Literal["max", "min"] = "max"
    patience: int = 10
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        require(
            self.patience >= 1,
            f"config.early_stopping.patience: expected at least 1, got {self.patience}",
        )


@dataclasses.dataclass(frozen=True)
class ControlConfig:
    """Limits of a run beside its steps. An iteration is an evaluation: a period of `eval_every`.

    Attributes:
        max_iterations: Iterations after which the run stops; 0 for no limit.
        max_tokens: Tokens after which the run stops, at the end of the step that reaches them; 0
            for no limit. They are counted from the sums of the metric `tokens`, which the task
            must give. Each step is then waited for before the next batch is made.
        token_limit_iterations: Iterations after which the run stops where `max_tokens` is set, if
            it has not reached the tokens before: whichever comes first.
    """

    max_iterations: int = 0
    max_tokens: int = 0
    token_limit_iterations: int = 12

    def __post_init__(self) -> None:
        least = {"max_iterations": 0, "max_tokens": 0, "token_limit_iterations": 1}
        for name, value in least.items():
            given = getattr(self, name)
            require(
                given >= value, f"config.control.{name}: expected at least {value}, got {given}"
            )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the devices of all processes are arranged. It may change when a run goes on.

    Attributes:
        data: Devices along which batches are divided and weights are copied; 0 takes the rest.
        fsdp: Devices along which batches are divided, and parameters, their average and the
            optimizer's state too; 0 takes the rest.
        smallest: Arrays of fewer elements than this are copied and not divided.
    """

    data: int = 0
    fsdp: int = 1
    smallest: int = 65536

    def __post_init__(self) -> None:
        for name in ("data", "fsdp", "smallest"):
            value = getattr(self, name)
            require(value >= 0, f"config.mesh.{name}: expected 0 or more, got {value}")
        require(
            bool(self.data or self.fsdp),
            "config.mesh: data and fsdp are both 0, but only one can take the rest",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Fields that the config of every task has.

    Attributes:
        task: Name of the task.
        preset: Name of the preset the config was made from, and why, for the reader.
        expect: What the run takes and gives, for the reader.
        seed: Seed of weights, data order and augmentation.
        steps: Optimizer steps of the run.
        batch_size: Rows of a batch over all devices.
        microbatch_size: Rows whose gradient is computed at a time, over all devices; gradients
            are accumulated over the batch. 0 takes the whole batch at once. On a CPU small values
            are faster, since activations then stay in the cache.
        mesh: How the devices are arranged.
        shard_tables: Whether the embedding tables are divided over the devices, for tables that
            are large: each device then holds some columns of every row.
        log_every, eval_every, checkpoint_every: Steps between log lines, evaluations, checkpoints.
        keep_checkpoints: How many of the last checkpoints are kept.
        best_metric: Evaluation figure (higher is better) by which the best weights are kept in
            `best/`; "" keeps none.
        early_stopping: When to stop before the last step.
        control: Limits beside `steps`.
        profile: Whether to write a JAX profile of a few steps into the workdir.
        tensorboard: Whether to write TensorBoard event files.
        wandb: Weights & Biases project to report to; "" reports nothing.
    """

    task: str
    preset: str = ""
    expect: str = ""
    seed: int = 0
    steps: int = 1000
    batch_size: int = 64
    microbatch_size: int = 0
    mesh: MeshConfig = MeshConfig()
    shard_tables: bool = False
    log_every: int = 50
    eval_every: int = 500
    checkpoint_every: int = 500
    keep_checkpoints: int = 3
    best_metric: str = "eval/exact_accuracy"
    early_stopping: EarlyStopping = EarlyStopping()
    control: ControlConfig = ControlConfig()
    profile: bool = False
    tensorboard: bool = True
    wandb: str = ""

    def __post_init__(self) -> None:
        for name in (
            *("steps", "batch_size", "log_every", "eval_every", "checkpoint_every"),
            "keep_checkpoints",
        ):
            value = getattr(self, name)
            require(value >= 1, f"config.{name}: expected at least 1, got {value}")
        micro = self.microbatch_size
        require(
            micro == 0 or (micro > 0 and self.batch_size % micro == 0),
            f"config.microbatch_size: {micro} does not divide batch_size {self.batch_size}",
        )
        require(0 <= self.seed < 2**31, f"config.seed: expected 0 <= seed < 2**31, got {self.seed}")


@runtime_checkable
class Task(Protocol):
    """What is learnt. The loop knows nothing else of it."""

    config: Any
    identity: Identity

    def init(self, key: PRNGKeyArray) -> State:
        """A fresh state."""

    def batches(self) -> grain.DatasetIterator:
        """Training batches, endless and checkpointable; this process' rows."""

    def step(self, state: State, batch: Any) -> tuple[State, Metrics]:
        """One optimizer step; pure. The loop jits, shards and donates it."""

    def evaluate(self, state: State) -> Figures:
        """Held-out figures named `eval/…`."""


def pair(total: Any, count: Any) -> Array:
    """A metric: a sum and how many things it sums over, float32 [2]."""
    return jnp.stack([jnp.asarray(total, jnp.float32), jnp.asarray(count, jnp.float32)])


def over_microbatches(
    function: Callable[[Any], tuple[Any, Any]], rows: Any, microbatch_size: int
) -> tuple[Any, Any]:
    """Applies `function` to a batch part by part: some results are added up, some kept by row.

    Args:
        function: From a part of `rows` to (tree of sums, tree of arrays with the part's rows).
        rows: Tree of arrays [B, …].
        microbatch_size: Rows of a part; 0 or B takes all at once. Part i is made of every n-th
            row from row i on, so that a batch sharded over devices stays spread over them.

    Returns:
        The sums over all parts, and the rows in their order [B, …].
    """
    total = jax.tree.leaves(rows)[0].shape[0]
    if microbatch_size in (0, total):
        return function(rows)
    parts = total // microbatch_size

    def split(x: Array) -> Array:
        return jnp.swapaxes(x.reshape(microbatch_size, parts, *x.shape[1:]), 0, 1)

    def join(x: Array) -> Array:
        return jnp.swapaxes(x, 0, 1).reshape(total, *x.shape[2:])

    split_rows = jax.tree.map(split, rows)
    shapes, _ = jax.eval_shape(function, jax.tree.map(lambda x: x[0], split_rows))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def body(sums: Any, part: Any) -> tuple[Any, Any]:
        more, kept = function(part)
        return jax.tree.map(jnp.add, sums, more), kept

    sums, kept = jax.lax.scan(body, zeros, split_rows)
    return sums, jax.tree.map(join, kept)

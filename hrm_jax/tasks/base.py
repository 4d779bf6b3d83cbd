"""What every task shares: its state, its configuration, its protocol."""

from __future__ import annotations

import abc
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import grain
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PRNGKeyArray

from hrm_jax.data.identity import Identity
from hrm_jax.fields import require, require_fields

Metrics = Mapping[str, Array]
"""Name to a float32 pair [2]: a sum and the number of things summed. `tokens`, if it is there, sums
to the number of tokens that the step has learnt from."""

Figures = Mapping[str, Any]
"""Name to a number, or to a list of numbers, ready to be written down."""


class State(struct.PyTreeNode):
    """Everything a run needs to go on: all of it but `frozen` is checkpointed.

    Attributes:
        step: Steps of the loop that are done; the loop alone counts them.
        opt_state: The optimizer's own state, with its own count of updates.
        key: Root of the run's randomness; never changes, steps fold their number in.
        ema: Average of `params`; None where none is kept.
        rows: What each row hands from step to step, arrays [B, …]; divided over the devices.
        carry: What else the task hands on (memories, buffers, statistics, constants of a model);
            whole on every device, or divided as `Task.carry_spec` says.
        tables: Embedding tables [N, D] with sparse updates. They have no average, for keeping one
            up would touch every row at each step.
        frozen: Weights that are never trained, and data that lie on the devices: made anew by
            `Task.frozen` at each start, never saved, read only.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    key: PRNGKeyArray
    ema: Any = None
    rows: Any = None
    carry: Any = None
    tables: Any = struct.field(default_factory=dict)
    frozen: Any = struct.field(default_factory=dict)

    @property
    def averaged(self) -> Any:
        """The average of the parameters, or the parameters themselves where none is kept."""
        return self.params if self.ema is None else self.ema


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

    def unused(self) -> dict[str, str]:
        why = "early_stopping.metric is not set"
        return {} if self.metric else dict.fromkeys(("mode", "patience", "min_delta"), why)

    def __post_init__(self) -> None:
        require_fields(self, "config.early_stopping", "at least 1", lambda x: x >= 1, "patience")


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

    def unused(self) -> dict[str, str]:
        return {} if self.max_tokens else {"token_limit_iterations": "there is no max_tokens"}

    def __post_init__(self) -> None:
        check = functools.partial(require_fields, self, "config.control")
        check("at least 0", lambda x: x >= 0, "max_iterations", "max_tokens")
        check("at least 1", lambda x: x >= 1, "token_limit_iterations")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the devices of all processes are arranged. It may change when a run goes on.

    Attributes:
        data: Devices along which batches are divided and weights are copied; 0 takes the rest.
        fsdp: Devices along which batches are divided, and parameters, their average and the
            optimizer's state too; 0 takes the rest.
        smallest: Arrays of fewer elements than this are copied and not divided.
        cpu_devices: Where there is no accelerator, into how many devices the CPU is divided: each
            computes its rows with a core, which for small networks is faster than all cores for
            all rows. 0 leaves it as JAX starts (one device, or what XLA_FLAGS say).
    """

    data: int = 0
    fsdp: int = 1
    smallest: int = 65536
    cpu_devices: int = 0

    def __post_init__(self) -> None:
        names = ("data", "fsdp", "smallest", "cpu_devices")
        require_fields(self, "config.mesh", "0 or more", lambda x: x >= 0, *names)
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
        steps: Steps of the run: of the optimizer, where the task makes one update in a step.
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
        init_from: Weights to start from: the workdir of another run, or what the family of tasks
            says; "" draws fresh ones.
        early_stopping: When to stop before the last step.
        control: Limits beside `steps`.
        profile: Whether to write a JAX profile of a few steps into the workdir.
        tensorboard: Whether to write TensorBoard event files.
        wandb: Weights & Biases project to report to; "" reports nothing.
    """

    free: ClassVar[tuple[str, ...]] = (
        *("preset", "expect", "steps", "log_every", "eval_every", "checkpoint_every"),
        *("keep_checkpoints", "best_metric", "init_from", "early_stopping", "control", "profile"),
        *("tensorboard", "wandb", "mesh", "shard_tables", "model.attention"),
    )
    """Fields, or groups of them, that may differ when a run goes on: they change no step that has
    been made."""
    gone: ClassVar[tuple[str, ...]] = ()
    """Fields that the configurations of older runs have, and that had no effect."""

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
    best_metric: str = ""
    init_from: str = ""
    early_stopping: EarlyStopping = EarlyStopping()
    control: ControlConfig = ControlConfig()
    profile: bool = False
    tensorboard: bool = True
    wandb: str = ""

    @property
    def base(self) -> str:
        """The model that the task is given at each start, for it is in no checkpoint; "" for
        none."""
        return ""

    def refuses(self, other: RunConfig) -> str:
        """What the run that another configuration is of is, where this one cannot start from its
        weights whatever their shapes; "" where it can."""
        return ""

    def __post_init__(self) -> None:
        numbers = ("steps", "batch_size", "log_every", "eval_every", "checkpoint_every")
        check = functools.partial(require_fields, self, "config")
        check("at least 1", lambda x: x >= 1, *numbers, "keep_checkpoints")
        check("0 <= seed < 2**31", lambda x: 0 <= x < 2**31, "seed")
        micro = self.microbatch_size
        require(
            micro == 0 or (micro > 0 and self.batch_size % micro == 0),
            f"config.microbatch_size: {micro} does not divide batch_size {self.batch_size}",
        )


class Task(abc.ABC):
    """What is learnt. The loop knows nothing else of it.

    A task has `init`, `batches` and `step`; the other methods have answers that suit many. The rows
    of a batch, a `unit` each, lie along `batch_axis` of its arrays. `shown` are figures beside the
    progress bar: what they are called there, and their names.
    """

    config: Any
    batch_axis: ClassVar[int] = 0
    unit: ClassVar[str] = "rows"
    shown: ClassVar[Mapping[str, str]] = {"loss": "train/loss"}
    program: Any = None
    """Tasks of which this is equal, and not None, have the same step for the same shapes: within a
    process it is compiled once."""

    @property
    @abc.abstractmethod
    def identity(self) -> Identity:
        """What identifies the data."""

    @abc.abstractmethod
    def init(self, key: PRNGKeyArray) -> State:
        """A fresh state, without what is frozen; to be jitted."""

    def frozen(self, place: Callable[[Any], Array]) -> Any:
        """Makes what is frozen, at each start of a run: a tree of what `place` returned. The run is
        refused if it differs when it goes on.

        `place` puts an array on the devices, divided over `fsdp` as parameters are; called for one
        array after the other, no more than one of them need be whole in memory.
        """
        return {}

    def carry_spec(self, carry: Any) -> Any:
        """How `State.carry` is divided: a `PartitionSpec` on the mesh `data` × `fsdp` for each of
        its arrays (given are their shapes); None leaves all of them whole. An array that the
        devices cannot share equally stays whole."""
        return None

    def keep(self) -> None:  # noqa: B027 - most tasks need nothing more
        """Keeps with the run, in the folder for its data, what loading and evaluating it elsewhere
        needs. The first process calls it, once the run's folder is known to be its own."""

    @abc.abstractmethod
    def batches(self) -> grain.DatasetIterator:
        """Training batches, endless and checkpointable; this process' rows. For a task that makes
        its own data, `hrm_jax.data.pipeline.empty_batches`."""

    @abc.abstractmethod
    def step(self, state: State, batch: Any) -> tuple[State, Metrics]:
        """One step of the loop, with any number of updates; pure. The loop jits, shards and donates
        it, and counts it."""

    def evaluate(self, state: State) -> Figures:
        """Held-out figures named `eval/…`."""
        return {}

    def derived(self, step: int, figures: Figures) -> Figures:
        """More figures of training at a step, from those that are logged there."""
        return {}

    def weights(self, state: State) -> dict[str, Any]:
        """What is kept as best, loaded and exported: arrays of the state, none computed from them,
        by collection as `module.apply` takes them."""
        return {"params": state.averaged}

    def report(self, state: State, figures: Figures, folder: pathlib.Path) -> str:
        """What to tell the user at the end of a run, which may leave pictures in its folder; the
        weights of the last state are whole on each device."""
        return "\n".join(f"{name}: {value}" for name, value in figures.items())

    @classmethod
    def model(cls, config: Any, weights: Mapping[str, Any], name: str) -> Any:
        """What `hrm_jax.load` returns of a run of that name, with its `weights` as numpy arrays."""
        return weights

    @classmethod
    def load(cls, config: Any, weights: Mapping[str, Any], folder: pathlib.Path) -> Any:
        """What `hrm_jax.load` returns of the run in a folder; the `model` of its name. Where the
        configuration names a `base`, that model is given too."""
        return cls.model(config, weights, folder.resolve().name)

    @classmethod
    def with_sizes(cls, config: Any, sizes: Any) -> Any:
        """The user's configuration of a run that starts from weights of a network whose own
        configuration is `sizes`."""
        return config


def pair(total: Any, count: Any) -> Array:
    """A metric: a sum and how many things it sums over, float32 [2]."""
    return jnp.stack([jnp.asarray(total, jnp.float32), jnp.asarray(count, jnp.float32)])

"""The one training loop: any task, resumable at any moment."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import pathlib
import time
from typing import Any, Literal

import jax
from tqdm.auto import tqdm

from hrm_jax.compilation import compile_step, hoist_constants, jit
from hrm_jax.fields import ConfigError
from hrm_jax.paths import path_of
from hrm_jax.tasks.base import Figures, Metrics, RunConfig, State, Task
from hrm_jax.training.checkpoints import Checkpoints, digest
from hrm_jax.training.metrics import Meter, MetricWriter
from hrm_jax.training.processes import agreed, is_first
from hrm_jax.training.sharding import (
    divided_step,
    for_evaluation,
    make_mesh,
    place_batch,
    place_frozen,
    state_shardings,
)
from hrm_jax.training.signals import SharedSignal, collected
from hrm_jax.training.stopping import Stopping, StopReason
from hrm_jax.training.workdir import locked, prepare

log = logging.getLogger("hrm_jax")

_PROFILED_STEPS = 5
_COMPILED: dict[Any, Any] = {}  # the last step of a task that names its program

Reason = Literal["finished", "interrupted"] | StopReason


class NonFiniteError(FloatingPointError):
    """The loss or its gradient is not a finite number any more."""


@dataclasses.dataclass(frozen=True)
class RunResult:
    """How a run ended. A "token_limit" is of its tokens or its iterations, see `ControlConfig`; a
    signal has "interrupted" it."""

    reason: Reason
    step: int
    figures: Figures  # the last evaluation, {} if there was none
    state: State
    task: Task
    signal: int = 0  # its number, or 0


class _Run:
    """One run in progress."""

    def __init__(self, task: Task, workdir: pathlib.Path, progress: bool) -> None:
        self.task, self.workdir = task, workdir
        self.config: RunConfig = task.config
        self.mesh = make_mesh(self.config.mesh)
        self.frozen = task.frozen(
            lambda array: place_frozen(array, self.mesh, self.config.mesh.smallest)
        )
        identity = dataclasses.replace(task.identity, frozen=digest(self.frozen))
        prepare(workdir, self.config, identity)
        if is_first():
            task.keep()
        self.signalled = 0
        self.iterator = task.batches()
        self.checkpoints = Checkpoints(workdir, self.config.keep_checkpoints, task.weights)
        self.stopping = Stopping(self.config)
        self.figures: Figures = {}
        self.evaluated = 0  # the step that they are of
        self.uncounted: list[jax.Array] = []
        self.state = self._start()
        self.step = self.first = int(self.state.step)
        self.meter = Meter(self.step)
        self.profiling = contextlib.ExitStack()
        self.writer = MetricWriter(
            workdir, self.step, tensorboard=self.config.tensorboard, wandb=self.config.wandb
        )
        self.bar = tqdm(
            total=self.config.steps,
            initial=self.step,
            unit="step",
            disable=not (progress and is_first()) or self.step >= self.config.steps,
            smoothing=0.1,
        )

    def _start(self) -> State:
        """The newest whole checkpoint, or else a fresh state."""
        key = jax.random.key(self.config.seed)
        shapes = jax.eval_shape(self.task.init, key)
        shardings = state_shardings(
            shapes,
            self.mesh,
            shard_tables=self.config.shard_tables,
            smallest=self.config.mesh.smallest,
            carry_spec=self.task.carry_spec(shapes.carry),
        )
        template = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
        )
        found = self.checkpoints.restore(template, self.iterator)
        if found is None:
            init, weights = hoist_constants(self.task.init, key)
            return jit(init, out_shardings=shardings)(weights, key)
        state, progress = found
        self.stopping.restore(progress["stopping"])
        self.figures = progress.get("figures", {})  # older checkpoints have none
        self.evaluated = int(state.step)
        log.info("Going on from step %d of %s.", int(state.step), self.workdir)
        return state

    def train(self) -> Reason:
        reason = self.ended()
        if reason:
            return reason
        step, batch = self.compile()
        with collected() as caught:  # before the first step there is nothing to save
            return self.make_steps(step, batch, SharedSignal(self.mesh, caught))

    def make_steps(self, step: Any, batch: Any, signal: SharedSignal) -> Reason:
        config = self.config
        while True:
            self.state, metrics = step(self.state, batch, self.frozen)
            self.step += 1
            self.take(metrics)
            self.profile()
            self.signalled = signal.after_step()
            reason = self.ended()
            if self.step % config.log_every == 0 or reason or self.signalled:
                self.log()
            if self.signalled:
                self.save()
                return "interrupted"
            if self.step % config.eval_every == 0 or reason:
                self.evaluate()
                reason = reason or self.stopping.reason
            if self.step % config.checkpoint_every == 0 or reason:
                self.save()
            if reason:
                return reason
            batch = self.next_batch()

    def ended(self) -> Reason | None:
        return "finished" if self.step >= self.config.steps else self.stopping.reason

    def next_batch(self) -> Any:
        with self.meter.clock("waiting"):
            rows = next(self.iterator)
        return place_batch(rows, self.mesh, self.task.batch_axis)

    def compile(self) -> tuple[Any, Any]:
        """Compiles the step for the first batch, and returns both."""
        batch = self.next_batch()
        shardings = jax.tree.map(lambda x: x.sharding, self.state)
        program = None
        if self.task.program is not None:
            program = (self.task.program, _described((self.state, batch, self.frozen)))
        compiled = None if program is None else _COMPILED.get(program)
        if compiled is None:
            start = time.perf_counter()
            step = divided_step(self.task.step, self.mesh, shardings, jit)
            with jax.set_mesh(self.mesh):
                compiled = compile_step(step, self.state, batch, self.frozen)
            log.info("Compiled the training step in %.1f s.", time.perf_counter() - start)
            if program is not None:
                _COMPILED.clear()  # one at a time: programs hold memory
                _COMPILED[program] = compiled
        self.meter.reset(self.step)
        return compiled, batch

    def take(self, metrics: Metrics) -> None:
        """Notes what the newest step reports; checks the one before, while this one runs."""
        config = self.config
        self.check()
        self.meter.reports.append(metrics)
        self.bar.update()
        if "tokens" in metrics:
            self.uncounted.append(metrics["tokens"])
        elif config.control.max_tokens:
            raise ConfigError(f"config.control.max_tokens: the task {config.task} counts no tokens")
        if config.control.max_tokens or self.step % config.log_every == 0:
            self.count_tokens()

    def profile(self) -> None:
        """Takes a JAX profile of a few steps, some steps after the start; in process 0 only.

        Of what XLA runs, not of Python's calls: JAX traces those with a hook that it sets in all
        threads, which crashes the process where one of them, as of those that write a checkpoint,
        has only just begun.
        """
        if self.step == self.first + 3 and self.config.profile and is_first():
            folder = self.workdir / "profile"
            folder.mkdir(exist_ok=True)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            self.profiling.enter_context(jax.profiler.trace(folder, profiler_options=options))
            self.profiling.callback(lambda: jax.block_until_ready(self.state))
        if self.step == self.first + 3 + _PROFILED_STEPS:
            self.profiling.close()

    def check(self) -> None:
        """Stops the run where the newest report is not finite; waits for that step to be done."""
        reports = self.meter.reports
        newest = reports[-1] if reports else {}
        for name in (x for x in ("loss", "grad_norm") if x in newest):
            total, count = (float(x) for x in jax.device_get(newest[name]))
            if not math.isfinite(total):
                step = self.meter.step + len(reports)
                raise NonFiniteError(
                    f"step {step}: {name} is {total / max(count, 1)}; the checkpoints in "
                    f"{self.workdir / 'checkpoints'} are from before. A lower "
                    "optimizer.learning_rate or optimizer.clip_norm=1.0 often helps."
                )

    def count_tokens(self) -> None:
        """Adds up what steps since the last time gave as `tokens`; waits for them."""
        for total, _ in jax.device_get(self.uncounted):
            self.stopping.add_tokens(int(total))
        self.uncounted.clear()

    def log(self) -> None:
        self.check()
        figures = self.meter.read(self.step)
        figures |= self.task.derived(self.step, figures)
        self.writer.write(self.step, figures)
        known = {**figures, **self.figures}
        shown = {k: known[name] for k, name in self.task.shown.items() if name in known}
        self.bar.set_postfix({k: f"{v:.3f}" for k, v in shown.items()}, refresh=False)

    def evaluate(self) -> None:
        """Writes held-out figures and keeps the weights if they are the best so far."""
        self.check()
        with self.meter.clock("paused"):
            start = time.perf_counter()
            alone = jax.process_count() == 1  # several evaluate each on devices of its own
            with jax.set_mesh(self.mesh) if alone else contextlib.nullcontext():
                state = for_evaluation(self.state.replace(frozen=self.frozen))
                self.figures, self.evaluated = agreed(self.task.evaluate(state)), self.step
            seconds = {"eval/seconds": time.perf_counter() - start}
            self.writer.write(self.step, {**self.figures, **seconds})
            if self.stopping.update(self.figures):
                self.checkpoints.save_best(self.state)

    def save(self) -> None:
        self.check()
        with self.meter.clock("paused"):
            self.count_tokens()
            figures = self.figures if self.evaluated == self.step else {}
            progress = {"stopping": self.stopping.state(), "figures": figures}
            self.checkpoints.save(self.state, self.iterator, progress)

    def close(self) -> None:
        with contextlib.ExitStack() as closing:  # all of them, though one may fail
            for part in (self.profiling, self.checkpoints, self.writer, self.bar):
                closing.callback(part.close)


def _described(tree: Any) -> Any:
    """What a program for these arrays depends on, hashable."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((x.shape, x.dtype, x.sharding) for x in leaves)


def run(task: Task, workdir: str | os.PathLike[str], *, progress: bool = True) -> RunResult:
    """Trains `task` in `workdir`, going on where an earlier run there stopped.

    From the first step on, SIGINT and SIGTERM have the state saved first. `progress` shows a bar on
    stderr.

    Raises:
        WorkdirError: The folder holds another run, or one that is still running.
        CheckpointError: A checkpoint could not be written, or none could be read.
        NonFiniteError: The loss is NaN or infinite; the last checkpoint is from before.
        OSError: The workdir cannot be written.
    """
    workdir = path_of(workdir)
    with locked(workdir):
        this = _Run(task, workdir, progress)
        try:
            reason = this.train()
            if not this.figures and reason != "interrupted":
                this.evaluate()
            this.checkpoints.wait()
        except BaseException:
            with contextlib.suppress(Exception):  # the first error says more
                this.close()
            raise
        this.close()
    return RunResult(
        reason=reason,
        step=this.step,
        figures=this.figures,
        state=this.state.replace(frozen=this.frozen),
        task=task,
        signal=this.signalled,
    )

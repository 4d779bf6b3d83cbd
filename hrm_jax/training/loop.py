"""The one training loop: any task, resumable at any moment."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

import jax
from tqdm.auto import tqdm

from hrm_jax.compilation import compile_step, hoist_constants, jit
from hrm_jax.fields import ConfigError
from hrm_jax.tasks.base import Figures, Metrics, RunConfig, State, Task
from hrm_jax.training.checkpoints import Checkpoints
from hrm_jax.training.metrics import MetricWriter, averages, read_metrics
from hrm_jax.training.processes import SharedSignal, agreed, is_first
from hrm_jax.training.sharding import (
    divided_step,
    for_evaluation,
    make_mesh,
    place_batch,
    state_shardings,
)
from hrm_jax.training.stopping import Stopping, StopReason
from hrm_jax.training.workdir import prepare

log = logging.getLogger("hrm_jax")

_PROFILED_STEPS = 5

Reason = Literal["finished", "interrupted"] | StopReason


class NonFiniteError(FloatingPointError):
    """The loss or its gradient is not a finite number any more."""


@dataclasses.dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        reason: "finished"; stopped by "early_stopping", "max_iterations" or the "token_limit" (its
            tokens or its iterations, see `ControlConfig`); or "interrupted" by a signal.
        step: Steps done.
        figures: The last evaluation, {} if there was none.
        state: The last state.
        task: What was trained.
        signal: Number of the signal, or 0.
    """

    reason: Reason
    step: int
    figures: Figures
    state: State
    task: Task
    signal: int = 0


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying; a second SIGINT is obeyed at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def handler(number: int, _: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class _Run:
    """One run in progress; `run` below says what its pieces do."""

    def __init__(self, task: Task, workdir: pathlib.Path, progress: bool) -> None:
        self.task, self.workdir, self.progress = task, workdir, progress and is_first()
        self.config: RunConfig = task.config
        self.mesh = make_mesh(self.config.mesh)
        prepare(workdir, self.config, task.identity)
        self.signal = SharedSignal(self.mesh)
        self.signalled = 0
        self.iterator = task.batches()
        self.checkpoints = Checkpoints(workdir, self.config.keep_checkpoints)
        self.stopping = Stopping(self.config)
        self.figures: Figures = {}
        self.uncounted: list[jax.Array] = []
        self.profiling = False
        self.state = self._start()
        self.step = int(self.state.step)
        self.writer = MetricWriter(
            workdir, self.step, tensorboard=self.config.tensorboard, wandb=self.config.wandb
        )

    def _start(self) -> State:
        """The newest whole checkpoint, or else a fresh state."""
        key = jax.random.key(self.config.seed)
        shapes = jax.eval_shape(self.task.init, key)
        config = self.config
        shardings = state_shardings(
            shapes, self.mesh, config.batch_size, config.shard_tables, config.mesh.smallest
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
        for line in read_metrics(self.workdir / "metrics.jsonl"):
            if line["step"] == int(state.step) and any(k.startswith("eval/") for k in line):
                self.figures = {k: v for k, v in line.items() if k != "step"}
        log.info("Going on from step %d of %s.", int(state.step), self.workdir)
        return state

    def compile(self) -> tuple[Any, Any]:
        """Compiles the step for the first batch, and returns both."""
        batch = place_batch(next(self.iterator), self.mesh)
        shardings = jax.tree.map(lambda x: x.sharding, self.state)
        start = time.perf_counter()
        step = divided_step(self.task.step, self.mesh, shardings, jit)
        with jax.set_mesh(self.mesh):
            compiled = compile_step(step, self.state, batch)
        log.info("Compiled the training step in %.1f s.", time.perf_counter() - start)
        return compiled, batch

    def check(self, metrics: Metrics | None, step: int) -> None:
        """Stops the run where numbers are no longer finite; waits for that step to be done."""
        for name in ("loss", "grad_norm"):
            if metrics is None or name not in metrics:
                continue
            total, count = (float(x) for x in jax.device_get(metrics[name]))
            if not math.isfinite(total):
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

    def evaluate(self) -> None:
        """Writes held-out figures and keeps the weights if they are the best so far."""
        start = time.perf_counter()
        alone = jax.process_count() == 1  # several evaluate each on devices of its own
        with jax.set_mesh(self.mesh) if alone else contextlib.nullcontext():
            self.figures = agreed(self.task.evaluate(for_evaluation(self.state)))
        seconds = {"eval/seconds": time.perf_counter() - start}
        self.writer.write(self.step, {**self.figures, **seconds})
        if self.stopping.update(self.figures):
            self.checkpoints.save_best(self.state)

    def save(self) -> None:
        """Starts a checkpoint."""
        self.count_tokens()
        self.checkpoints.save(self.state, self.iterator, {"stopping": self.stopping.state()})

    def stop_profile(self) -> None:
        """Writes the profile, if one is being taken."""
        if self.profiling:
            self.profiling = False
            jax.block_until_ready(self.state)
            jax.profiler.stop_trace()

    def train(self, caught: list[int]) -> Reason:
        """Runs to the end; returns why it ended."""
        config = self.config
        if self.step >= config.steps:
            return "finished"
        reason: Reason | None = self.stopping.reason
        if reason:
            return reason
        step_function, batch = self.compile()
        first = self.step
        bar = tqdm(
            total=config.steps, initial=first, unit="step", disable=not self.progress, smoothing=0.1
        )
        pending: list[Metrics] = []
        last_log, waited = time.perf_counter(), 0.0
        last_step = first
        with bar:
            while True:
                before = pending[-1] if pending else None
                self.state, metrics = step_function(self.state, batch)
                self.step += 1
                pending.append(metrics)
                self.check(before, self.step - 1)  # while this step runs
                bar.update()
                if "tokens" in metrics:
                    self.uncounted.append(metrics["tokens"])
                elif config.control.max_tokens:
                    raise ConfigError(
                        f"config.control.max_tokens: the task {config.task} counts no tokens"
                    )
                if config.control.max_tokens or self.step % config.log_every == 0:
                    self.count_tokens()

                if config.profile and self.step - first == 3 and is_first():
                    jax.profiler.start_trace(str(self.workdir / "profile"))
                    self.profiling = True
                if self.step - first == 3 + _PROFILED_STEPS:
                    self.stop_profile()

                self.signalled = self.signal.after_step(caught[0] if caught else 0)
                interrupted, done = bool(self.signalled), self.step >= config.steps
                reason = "finished" if done else self.stopping.reason
                if self.step % config.log_every == 0 or reason or interrupted:
                    self.check(metrics, self.step)
                    now = time.perf_counter()
                    figures = averages(pending, "train/")
                    figures["train/steps_per_second"] = (self.step - last_step) / (now - last_log)
                    figures["train/data_wait"] = waited / (now - last_log)
                    self.writer.write(self.step, figures)
                    bar.set_postfix(self._shown(figures), refresh=False)
                    pending, last_step, waited = [], self.step, 0.0
                    last_log = time.perf_counter()
                if interrupted:
                    self.save()
                    return "interrupted"
                paused = time.perf_counter()
                if self.step % config.eval_every == 0 or reason:
                    self.check(metrics, self.step)
                    self.evaluate()
                    reason = reason or self.stopping.reason
                if self.step % config.checkpoint_every == 0 or reason:
                    self.check(metrics, self.step)
                    self.save()
                last_log += time.perf_counter() - paused
                if reason:
                    return reason

                start = time.perf_counter()
                rows = next(self.iterator)
                waited += time.perf_counter() - start
                batch = place_batch(rows, self.mesh)

    def _shown(self, figures: Figures) -> dict[str, str]:
        shown = {"loss": figures.get("train/loss"), "exact": figures.get("train/exact_accuracy")}
        shown["held-out"] = self.figures.get("eval/exact_accuracy")
        return {k: f"{v:.3f}" for k, v in shown.items() if v is not None}


def run(task: Task, workdir: str | os.PathLike[str], *, progress: bool = True) -> RunResult:
    """Trains `task` in `workdir`, going on where an earlier run there stopped.

    Args:
        task: What to train; `task.config` is its configuration.
        workdir: Folder for everything the run leaves.
        progress: Whether to show a progress bar on stderr.

    Returns:
        How it ended. After SIGINT or SIGTERM the state is saved first.

    Raises:
        WorkdirError: The folder holds another run.
        CheckpointError: A checkpoint could not be written, or none could be read.
        NonFiniteError: The loss is NaN or infinite; the last checkpoint is from before.
        OSError: The workdir cannot be written.
    """
    with _signals() as caught:
        this = _Run(task, pathlib.Path(workdir), progress)
        try:
            reason = this.train(caught)
            if not this.figures and reason != "interrupted":
                this.evaluate()
            this.checkpoints.wait()
        finally:
            this.writer.close()
            this.checkpoints.close()
            this.stop_profile()  # of a run that ended early
    return RunResult(
        reason=reason,
        step=this.step,
        figures=this.figures,
        state=this.state,
        task=task,
        signal=this.signalled,
    )

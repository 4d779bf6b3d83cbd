"""Training control for loops of one's own: when to stop, and checkpoints of what is trained.

`hrm_jax.training.loop` follows the same rules by its configuration (`config.control` and
`config.early_stopping`) and has checkpoints of its own.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import time
import zlib
from typing import Any, SupportsFloat

import jax
import numpy as np
from flax import serialization

from hrm_jax.files import atomic_path
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.stopping import Progress, Rules, StopReason

log = logging.getLogger("hrm_jax")

Path = str | os.PathLike[str]


class TrainingController:
    """Counts iterations and tokens, follows the loss, and says when to stop.

    An iteration is one call of `update`. Nothing is stopped by force::

        controller = create_training_controller(max_tokens=1_000_000)
        while controller.should_continue():
            params, opt_state, loss = step(params, opt_state, batch)
            controller.update(loss, tokens_processed=batch.size)
        controller.finish(params, opt_state)

    A checkpoint is one file, MessagePack as of `flax.serialization` and a CRC-32 of it. Reading one
    runs nothing that the file brings along.

    Attributes:
        rules: When to stop.
        progress: How far the training has come.
        loss_history: Every loss so far.
        gradient_history: Every gradient norm that was given.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        checkpoint_dir: Path = "checkpoints",
        save_checkpoint_on_stop: bool = True,
        log_interval: int = 10,
    ) -> None:
        """See `create_training_controller`."""
        self.rules = rules
        self.progress = Progress()
        self.loss_history: list[float] = []
        self.gradient_history: list[float] = []
        self._folder = pathlib.Path(checkpoint_dir)
        self._save_on_stop = save_checkpoint_on_stop
        self._log_interval = log_interval
        self._start = time.perf_counter()

    @property
    def stop_reason(self) -> StopReason | None:
        """Why to stop now, None to go on; "token_limit" is for its tokens and its iterations."""
        return self.progress.reason(self.rules)

    @property
    def total_tokens(self) -> int:
        """Tokens so far."""
        return self.progress.tokens

    @property
    def best_loss(self) -> float | None:
        """The lowest loss that counted as an improvement, None before the first."""
        return None if self.progress.reference is None else -self.progress.reference

    def should_continue(self) -> bool:
        """Whether no rule says to stop."""
        return self.stop_reason is None

    def update(
        self,
        loss: SupportsFloat,
        tokens_processed: int = 0,
        gradient_norm: SupportsFloat | None = None,
    ) -> None:
        """Counts an iteration.

        Args:
            loss: Its loss, a number or a scalar array, which is waited for. NaN is no improvement.
            tokens_processed: How many tokens it has learnt from.
            gradient_norm: Its gradient's norm.

        Raises:
            ValueError: There are less than no tokens.
        """
        if tokens_processed < 0:
            raise ValueError(f"tokens_processed: expected at least 0, got {tokens_processed}")
        value = float(loss)
        self.progress = self.progress.with_tokens(int(tokens_processed)).with_iteration(
            self.rules, -value
        )
        self.loss_history.append(value)
        if gradient_norm is not None:
            self.gradient_history.append(float(gradient_norm))
        if self._log_interval and self.progress.iterations % self._log_interval == 0:
            log.info(
                "Iteration %d: loss %.6g, %d without improvement, %d tokens.",
                self.progress.iterations,
                value,
                self.progress.stale,
                self.total_tokens,
            )

    def finish(self, model_state: Any, optimizer_state: Any = None) -> pathlib.Path | None:
        """Ends the training, whatever stopped it.

        Returns:
            The checkpoint, which is saved unless `save_checkpoint_on_stop` is False.

        Raises:
            OSError: The checkpoint cannot be written.
        """
        log.info("Stopped after iteration %d: %s.", self.progress.iterations, self.stop_reason)
        return self.save_checkpoint(model_state, optimizer_state) if self._save_on_stop else None

    def save_checkpoint(
        self, model_state: Any, optimizer_state: Any = None, filepath: Path | None = None
    ) -> pathlib.Path:
        """Writes where the training stands, atomically.

        Args:
            model_state, optimizer_state: Trees of arrays on this process's devices and of numbers,
                in dicts, lists, tuples, named tuples or Flax structs. Of a typed PRNG key take
                `jax.random.key_data`.
            filepath: Where to; by default `checkpoint_<iteration>.msgpack` in `checkpoint_dir`.

        Returns:
            The file.

        Raises:
            TypeError: A tree holds something else.
            OSError: The file cannot be written; one that was there before is untouched.
        """
        content = {
            "training_state": {
                **dataclasses.asdict(self.progress),
                "loss_history": self.loss_history,
                "gradient_history": self.gradient_history,
                "elapsed_seconds": time.perf_counter() - self._start,
            },
            "config": dataclasses.asdict(self.rules),
            "model_state": serialization.to_state_dict(model_state),
            "optimizer_state": serialization.to_state_dict(optimizer_state),
        }
        encoded = serialization.msgpack_serialize(content)
        name = f"checkpoint_{self.progress.iterations:06d}.msgpack"
        path = pathlib.Path(filepath) if filepath is not None else self._folder / name
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            file.write(encoded)
            file.write(zlib.crc32(encoded).to_bytes(4, "big"))
        return path

    def load_checkpoint(
        self, path: Path, model_state: Any = None, optimizer_state: Any = None
    ) -> dict[str, Any]:
        """Reads a checkpoint and goes on from where it stood, under this controller's own rules.

        Args:
            path: The file.
            model_state, optimizer_state: Trees of the structure and shapes that are expected. The
                one without such a tree comes as nested dicts with strings for keys, which
                `flax.serialization.from_state_dict` puts into any structure.

        Returns:
            `model_state` and `optimizer_state` with NumPy arrays; `training_state`; and `config`,
            the rules under which it was saved.

        Raises:
            CheckpointError: The file is no checkpoint, is damaged, or holds other trees.
            OSError: It cannot be read.
        """
        content = _read(pathlib.Path(path))
        for name, template in (("model_state", model_state), ("optimizer_state", optimizer_state)):
            if template is not None:
                content[name] = _fitted(template, content[name], f"{path}: {name}")
        state = dict(content["training_state"])
        self._start = time.perf_counter() - state.pop("elapsed_seconds")
        self.loss_history = list(state.pop("loss_history"))
        self.gradient_history = list(state.pop("gradient_history"))
        self.progress = Progress(**state)
        return content

    def get_summary(self) -> dict[str, Any]:
        """Figures of the training so far, as plain numbers."""
        return {
            "current_iteration": self.progress.iterations,
            "total_tokens_processed": self.total_tokens,
            "best_loss": self.best_loss,
            "last_loss": self.loss_history[-1] if self.loss_history else None,
            "iterations_without_improvement": self.progress.stale,
            "elapsed_seconds": time.perf_counter() - self._start,
            "stop_reason": self.stop_reason,
        }


def _read(path: pathlib.Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        encoded, checksum = file.read(max(path.stat().st_size - 4, 0)), file.read()
    if zlib.crc32(encoded).to_bytes(4, "big") != checksum:
        raise CheckpointError(f"{path}: not a checkpoint of a training controller, or damaged")
    content = serialization.msgpack_restore(encoded)
    # those that were read are read-only views of the file's content
    return jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, content)


def _fitted(template: Any, stored: Any, where: str) -> Any:
    """`stored` in the structure of `template`, if it has the same leaves."""

    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in leaves}

    found, wanted = shapes(stored), shapes(serialization.to_state_dict(template))
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise CheckpointError(
                f"{where}{name}: expected {_shown(wanted.get(name))}, "
                f"the file has {_shown(found.get(name))}"
            )
    return serialization.from_state_dict(template, stored)


def _shown(shape: tuple[int, ...] | None) -> str:
    return "no such entry" if shape is None else f"shape {shape}"


def create_training_controller(
    max_iterations: int = 69,
    early_stop: bool = True,
    early_stop_patience: int = 12,
    max_tokens: int | None = None,
    token_limit_iterations: int = 12,
    checkpoint_dir: Path = "checkpoints",
    resume_from: Path | None = None,
    min_delta: float = 1e-6,
    save_checkpoint_on_stop: bool = True,
    log_interval: int = 10,
) -> TrainingController:
    """Makes a controller with the defaults of TenMinaTorc.

    The training stops as soon as one of these holds:

    - `max_tokens` is set, and so many tokens are done, or else `token_limit_iterations`: whichever
      comes first. TenMinaTorc stops when both have come, and so goes beyond its limit.
    - `max_iterations` are done.
    - The loss has not become lower by more than `min_delta` for `early_stop_patience` iterations.

    Args:
        max_iterations: Iterations in all.
        early_stop: Whether to stop when the loss stays.
        early_stop_patience: Iterations without improvement after which to stop.
        max_tokens: Tokens in all, None for no limit.
        token_limit_iterations: Iterations in all if `max_tokens` is set.
        checkpoint_dir: Folder for checkpoints, made when the first is saved.
        resume_from: Checkpoint to go on from; `load_checkpoint` gives what it holds.
        min_delta: Least fall of the loss that counts as improvement.
        save_checkpoint_on_stop: Whether `finish` saves a checkpoint.
        log_interval: Iterations between lines in the log; 0 for none.

    Raises:
        ValueError: A number is too low.
        CheckpointError: `resume_from` is no checkpoint, or damaged.
        OSError: It cannot be read.
    """
    for name, value, least in (
        ("max_iterations", max_iterations, 1),
        ("early_stop_patience", early_stop_patience, 1),
        ("max_tokens", 1 if max_tokens is None else max_tokens, 1),
        ("token_limit_iterations", token_limit_iterations, 1),
        ("min_delta", min_delta, 0),
        ("log_interval", log_interval, 0),
    ):
        if not value >= least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    controller = TrainingController(
        Rules(
            max_iterations=max_iterations,
            patience=early_stop_patience if early_stop else 0,
            min_delta=min_delta,
            max_tokens=max_tokens or 0,
            token_limit_iterations=token_limit_iterations,
        ),
        checkpoint_dir=checkpoint_dir,
        save_checkpoint_on_stop=save_checkpoint_on_stop,
        log_interval=log_interval,
    )
    if resume_from is not None:
        controller.load_checkpoint(resume_from)
    return controller

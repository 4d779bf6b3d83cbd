"""The loop's own stopping rules (`stopping`), and one-file checkpoints, for loops of one's own."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import time
import zlib
from collections.abc import Mapping
from typing import Any, SupportsFloat

import jax
import numpy as np
from flax import serialization

from hrm_jax.data.errors import DataError, reading
from hrm_jax.files import atomic_path
from hrm_jax.paths import path_of
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.stopping import Progress, Rules, StopReason

log = logging.getLogger("hrm_jax")

Path = str | os.PathLike[str]


@dataclasses.dataclass(eq=False)
class TrainingController:
    """Counts iterations (calls of `update`) and tokens, and says when to stop; it forces nothing.

    A checkpoint is MessagePack as of `flax.serialization`, then a CRC-32 of it. Reading one runs
    nothing that the file brings along.
    """

    rules: Rules
    checkpoint_dir: Path = "checkpoints"
    save_checkpoint_on_stop: bool = True
    log_interval: int = 10
    progress: Progress = dataclasses.field(default_factory=Progress)
    loss_history: list[float] = dataclasses.field(default_factory=list)
    gradient_history: list[float] = dataclasses.field(default_factory=list)
    start: float = dataclasses.field(default_factory=time.perf_counter)

    @property
    def stop_reason(self) -> StopReason | None:
        """Why to stop now, None to go on; "token_limit" is for its tokens and its iterations."""
        return self.progress.reason(self.rules)

    @property
    def total_tokens(self) -> int:
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
        """Counts an iteration; waits for its loss. NaN is no improvement. Raises `ValueError` where
        `tokens_processed` is negative."""
        if tokens_processed < 0:
            raise ValueError(f"tokens_processed: expected at least 0, got {tokens_processed}")
        value = float(loss)
        tokens = self.progress.with_tokens(int(tokens_processed))
        self.progress = tokens.with_iteration(self.rules, -value)
        self.loss_history.append(value)
        if gradient_norm is not None:
            self.gradient_history.append(float(gradient_norm))
        done, stale = self.progress.iterations, self.progress.stale
        if self.log_interval and done % self.log_interval == 0:
            message = "Iteration %d: loss %.6g, %d without improvement, %d tokens."
            log.info(message, done, value, stale, self.total_tokens)

    def finish(self, model_state: Any, optimizer_state: Any = None) -> pathlib.Path | None:
        """Ends the training: saves unless `save_checkpoint_on_stop` is False."""
        log.info("Stopped after iteration %d: %s.", self.progress.iterations, self.stop_reason)
        if not self.save_checkpoint_on_stop:
            return None
        return self.save_checkpoint(model_state, optimizer_state)

    def save_checkpoint(
        self, model_state: Any, optimizer_state: Any = None, filepath: Path | None = None
    ) -> pathlib.Path:
        """Writes a file atomically, by default `checkpoint_<iteration>.msgpack`; returns its path.

        The states are trees of arrays on this process's devices and of numbers, in dicts, lists,
        tuples, named tuples or Flax structs (of a typed PRNG key take `jax.random.key_data`);
        `TypeError` where they hold something else.
        """
        content = {
            "training_state": {
                **dataclasses.asdict(self.progress),
                "loss_history": self.loss_history,
                "gradient_history": self.gradient_history,
                "elapsed_seconds": time.perf_counter() - self.start,
            },
            "config": dataclasses.asdict(self.rules),
            "model_state": serialization.to_state_dict(model_state),
            "optimizer_state": serialization.to_state_dict(optimizer_state),
        }
        encoded = serialization.msgpack_serialize(content)
        name = f"checkpoint_{self.progress.iterations:06d}.msgpack"
        path = path_of(pathlib.Path(self.checkpoint_dir, name) if filepath is None else filepath)
        with atomic_path(path) as temporary:
            temporary.write_bytes(encoded + zlib.crc32(encoded).to_bytes(4, "big"))
        return path

    def load_checkpoint(
        self, path: Path, model_state: Any = None, optimizer_state: Any = None
    ) -> dict[str, Any]:
        """Goes on from where a checkpoint stood, under this controller's own rules; returns both
        states with NumPy arrays, `training_state`, and `config`, the rules under which it was
        saved.

        `model_state` and `optimizer_state` are trees of the structure and shapes that are expected.
        The one without such a tree comes as nested dicts with strings for keys, which
        `flax.serialization.from_state_dict` puts into any structure. Raises `CheckpointError` where
        the file is no checkpoint, is damaged, or holds other trees.
        """
        content = _read(path_of(path))
        for name, template in (("model_state", model_state), ("optimizer_state", optimizer_state)):
            if template is not None:
                content[name] = _fitted(template, content[name], f"{path}: {name}")
        state = dict(content["training_state"])
        self.start = time.perf_counter() - state.pop("elapsed_seconds")
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
            "elapsed_seconds": time.perf_counter() - self.start,
            "stop_reason": self.stop_reason,
        }


_SAVED = {"training_state": dict, "config": dict, "model_state": object, "optimizer_state": object}
_TRAINING = {
    **{"iterations": int, "tokens": int, "reference": float | None, "stale": int},
    **{"loss_history": list, "gradient_history": list, "elapsed_seconds": float},
}


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        with reading(path, "a checkpoint of a training controller"):
            content = path.read_bytes()
            encoded, checksum = content[:-4], content[-4:]
            if not encoded or zlib.crc32(encoded).to_bytes(4, "big") != checksum:
                raise ValueError("its checksum is another")
            stored = serialization.msgpack_restore(encoded)
            _check(stored, _SAVED)
            _check(stored["training_state"], _TRAINING)
            for name in ("loss_history", "gradient_history"):
                numbers = stored["training_state"][name]
                _check(dict(enumerate(numbers)), dict.fromkeys(range(len(numbers)), float))
    except DataError as error:
        raise CheckpointError(str(error)) from error
    # copied: what was read are read-only views of the file's content
    return jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, stored)


def _check(found: Any, kinds: Mapping[Any, Any]) -> None:
    """Raises `ValueError` unless a mapping has these entries of these types."""
    if not isinstance(found, dict) or found.keys() != kinds.keys():
        names = list(found) if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"expected the entries {list(kinds)}, found {names}")
    for name, kind in kinds.items():
        if not isinstance(found[name], kind):
            raise ValueError(f"{name}: expected {kind}, found {found[name]!r}")


def _fitted(template: Any, stored: Any, where: str) -> Any:
    """`stored` in the structure of `template`, if its leaves have the same names and shapes."""

    def shapes(tree: Any) -> dict[str, str]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): f"shape {np.shape(leaf)}" for path, leaf in leaves}

    found, wanted = shapes(stored), shapes(serialization.to_state_dict(template))
    for name in sorted({*found, *wanted}):
        expected, has = (shape.get(name, "no such entry") for shape in (wanted, found))
        if expected != has:
            raise CheckpointError(f"{where}{name}: expected {expected}, the file has {has}")
    return serialization.from_state_dict(template, stored)


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
    """Makes a controller with TenMinaTorc's defaults; `stopping.Rules` says what they mean.

    `early_stop` False ignores `early_stop_patience` and `min_delta`, which are of the loss;
    `resume_from` is a checkpoint to go on from, `log_interval` the iterations between lines in the
    log, 0 for none. Raises `ValueError` where a number is too low, and as `load_checkpoint`.
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
    patience = early_stop_patience if early_stop else 0
    controller = TrainingController(
        Rules(max_iterations, patience, min_delta, max_tokens or 0, token_limit_iterations),
        checkpoint_dir,
        save_checkpoint_on_stop,
        log_interval,
    )
    if resume_from is not None:
        controller.load_checkpoint(resume_from)
    return controller

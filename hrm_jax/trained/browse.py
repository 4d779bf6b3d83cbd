"""What a model answers after each ACT step, how sure it is, and where it would stop."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array

from hrm_jax import tasks
from hrm_jax.compilation import jit
from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import PuzzleSet, read_identifiers, read_npy
from hrm_jax.models import act
from hrm_jax.models.act import Halting
from hrm_jax.puzzles import PUZZLES, named
from hrm_jax.puzzles.base import Puzzle
from hrm_jax.tasks.puzzles.losses import LossName, stablemax_log_probabilities
from hrm_jax.trained.evaluate import held_out
from hrm_jax.training.workdir import read_config


@dataclasses.dataclass(frozen=True)
class Traces:
    """The course of T ACT steps on N puzzles of S tokens.

    Attributes:
        boards: Most probable tokens after each step, uint8 (uint16 for large vocabularies)
            [N, T, S].
        confidence: Their probabilities, 255 for 1, uint8 [N, T, S].
        q_halt: Halting value after each step, float32 [N, T]; its sigmoid is the model's belief to
            be right.
        stops: Step after which the model stops, and whose board is its answer, int32 [N], 1..T.
    """

    boards: npt.NDArray[Any]
    confidence: npt.NDArray[np.uint8]
    q_halt: npt.NDArray[np.float32]
    stops: npt.NDArray[np.int32]


def trace_puzzles(
    config: Any,
    variables: Mapping[str, Any],
    inputs: npt.NDArray[Any],
    identifiers: npt.NDArray[Any],
    *,
    max_steps: int,
    halting: Halting = "q",
    loss: LossName = "stablemax",
    rows: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Traces:
    """Runs every puzzle for `max_steps` ACT steps, past the step where the model would stop.

    Args:
        config, variables: The model.
        inputs, identifiers: Tokens [N, S] and puzzle identifiers [N].
        max_steps: ACT steps T; may exceed those of training.
        halting: "q" sets `stops` where the model wants to stop, "fixed" to `max_steps`.
        loss: Token loss of training, which says what probabilities the logits mean.
        rows: Puzzles in one batch.
        progress: Told the number of puzzles done after each batch.

    Raises:
        ValueError: `max_steps` or `rows` is less than 1, or there are no puzzles.
    """
    count = len(inputs)
    for name, value in (("max_steps", max_steps), ("rows", rows), ("puzzles", count)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    rows = min(rows, count)
    step = jit(functools.partial(_step, config, halting=halting, max_steps=max_steps, loss=loss))
    parts = []
    for start in range(0, count, rows):
        chosen = np.resize(np.arange(start, min(start + rows, count)), rows)
        batch = {
            "inputs": jnp.asarray(inputs[chosen], jnp.int32),
            "puzzle_identifiers": jnp.asarray(identifiers[chosen], jnp.int32),
        }
        carry = act.initial_carry(config, batch)
        outs = []
        for _ in range(max_steps):
            carry, out = step(variables, carry, batch)
            outs.append(out)
        done = min(count, start + rows)
        columns = zip(*jax.device_get(outs), strict=True)
        parts.append([np.stack(x, axis=1)[: done - start] for x in columns])
        if progress:
            progress(done)
    boards, confidence, q_halt, wishes = (np.concatenate(x) for x in zip(*parts, strict=True))
    # The last step always halts, so that there is a first one.
    stops = np.argmax(wishes, axis=1).astype(np.int32) + 1
    width = np.uint8 if boards.max(initial=0) < 256 else np.uint16
    return Traces(boards.astype(width), confidence, q_halt.astype(np.float32), stops)


def _step(
    config: Any,
    variables: Mapping[str, Any],
    carry: act.ACTCarry,
    batch: Mapping[str, Array],
    *,
    halting: Halting,
    max_steps: int,
    loss: LossName,
) -> tuple[act.ACTCarry, tuple[Array, Array, Array, Array]]:
    """One ACT step; rows that want to halt are noted, and go on all the same."""
    carry, out = act.act_step(config, variables, carry, batch, halting=halting, max_steps=max_steps)
    logits = out.logits.astype(jnp.float32)
    log_p = jax.nn.log_softmax(logits) if loss == "softmax" else stablemax_log_probabilities(logits)
    confidence = jnp.round(255 * jnp.exp(jnp.max(log_p, axis=-1))).astype(jnp.uint8)
    board = jnp.argmax(logits, axis=-1)
    wishes = carry.halted
    return carry.replace(halted=jnp.zeros_like(wishes)), (board, confidence, out.q_halt, wishes)


def loss_of_run(workdir: str | os.PathLike[str]) -> LossName:
    """The token loss that a run was trained with.

    Raises:
        WorkdirError: There is no run in `workdir`.
    """
    config = tasks.parse(read_config(pathlib.Path(workdir)))
    return "softmax" if getattr(config, "loss", "stablemax") == "softmax" else "stablemax"


def examples(
    workdir: str | os.PathLike[str] | None,
    dataset: str | os.PathLike[str] | None,
    split: str = "test",
    puzzle: Puzzle | None = None,
) -> tuple[PuzzleSet, list[str]]:
    """Puzzles to look at, and the names of their identifiers.

    Args:
        workdir: A run, whose own data are taken where `dataset` is None.
        dataset: A data set folder, or a CSV file.
        split: "train" or "test"; a CSV file has only one.
        puzzle: What `dataset` holds; None takes that of the run, the one that built the data set,
            or else the first of all that there are.

    Returns:
        The puzzles; and names by puzzle identifier, [] where the data give none.

    Raises:
        DataError, WorkdirError: The data are missing, bad, or not those of the run.
    """
    if dataset is None:
        if workdir is None:
            raise DataError("give a data set or the workdir of a run")
        return _of_run(pathlib.Path(workdir), split)
    folder = pathlib.Path(dataset)
    if not folder.exists():
        raise DataError(f"{folder}: no such file or folder")
    puzzle = puzzle or puzzle_of(workdir, folder) or next(iter(PUZZLES.values()))
    if folder.is_dir():
        return puzzle.read(folder, split), _names(folder)
    if split != "test":
        raise DataError(f"{folder}: --split={split} needs a data set folder")
    return puzzle.read_csv(folder), []


def puzzle_of(
    workdir: str | os.PathLike[str] | None, dataset: str | os.PathLike[str] | None
) -> Puzzle | None:
    """The puzzle of a run, or the one whose builder made a data set; None where nothing says so."""
    if workdir:
        return PUZZLES[tasks.parse(read_config(workdir)).task]
    path = pathlib.Path(dataset or "") / "identity.json"
    return named(Identity.from_json(path.read_text("utf-8")).builder) if path.exists() else None


def _of_run(workdir: pathlib.Path, split: str) -> tuple[PuzzleSet, list[str]]:
    config: Any = tasks.parse(read_config(workdir))
    path = pathlib.Path(getattr(config.data, "path", "") or workdir / "data")
    if split == "test":
        return held_out(workdir), _names(path)
    if not (path / split / "dataset.json").exists():
        raise DataError(f"{workdir}: its {split} puzzles are not kept; name them with --dataset")
    return read_npy(path, split), _names(path)


def _names(folder: pathlib.Path) -> list[str]:
    """The names in `identifiers.json`; [] without the file, or where all are one."""
    if not (folder / "identifiers.json").exists():
        return []
    names = read_identifiers(folder)
    return names if len(names) > 1 else []

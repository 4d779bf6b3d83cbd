"""What a model answers after each ACT step, how sure it is, and where it would stop."""

from __future__ import annotations

import dataclasses
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
from hrm_jax.data.errors import DataError, reading
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import PuzzleSet, read_identifiers, read_npy
from hrm_jax.models import act
from hrm_jax.models.act import Halting
from hrm_jax.puzzles import PUZZLES, named
from hrm_jax.puzzles.base import Puzzle
from hrm_jax.tasks.puzzles.evaluation import checked_indices
from hrm_jax.tasks.puzzles.losses import LossName, stablemax_log_probabilities
from hrm_jax.trained.evaluate import held_out
from hrm_jax.training.workdir import read_config


@dataclasses.dataclass(frozen=True)
class Steps:
    """The course of T ACT steps on N puzzles of S tokens."""

    boards: npt.NDArray[Any]  # answer after each step, tokens [N, T, S]
    confidence: npt.NDArray[Any]  # probability of each of these, 255 for 1, uint8 [N, T, S]
    q_halt: npt.NDArray[Any]  # after each step [N, T]; its sigmoid is the belief to be right
    stops: npt.NDArray[Any]  # step after which the model stops, whose board is its answer [N], 1..T
    solved: npt.NDArray[Any] | None = None  # counts as right [N]; None where it must equal labels

    def __post_init__(self) -> None:
        if self.boards.ndim != 3 or not self.boards.shape[1]:
            raise ValueError(f"boards has shape {self.boards.shape}, expected (puzzles, steps, S)")
        count, steps, _ = self.boards.shape
        expected = {"confidence": self.boards.shape, "q_halt": (count, steps), "stops": (count,)}
        if self.solved is not None:
            expected["solved"] = (count,)
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name} has shape {found}, expected {shape}")
        if count and not 1 <= self.stops.min() <= self.stops.max() <= steps:
            raise ValueError(f"stops: expected steps 1 to {steps}")


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
) -> Steps:
    """Runs every puzzle for `max_steps` ACT steps, past the step where the model would stop.

    `stops` are where the model wants to stop with the halting "q", `max_steps` with "fixed". `loss`
    is the token loss of training, which says what probabilities the logits mean. `rows` puzzles are
    one batch, after which `progress` is told the number of puzzles done.
    """
    count = len(inputs)
    for name, value in (("max_steps", max_steps), ("rows", rows), ("puzzles", count)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    rows = min(rows, count)
    inputs = checked_indices("tokens", inputs, (count, config.seq_len), config.vocab_size)
    identifiers = checked_indices(
        "puzzle_identifiers", identifiers, (count,), config.num_puzzle_identifiers
    )

    def think(
        variables: Any, carry: act.ACTCarry, batch: Mapping[str, Array]
    ) -> tuple[act.ACTCarry, tuple[Array, Array, Array, Array]]:
        carry, out = act.act_step(
            config, variables, carry, batch, halting=halting, max_steps=max_steps
        )
        logits = out.logits.astype(jnp.float32)
        log_probabilities = (
            jax.nn.log_softmax if loss == "softmax" else stablemax_log_probabilities
        )(logits)
        confidence = jnp.round(255 * jnp.exp(jnp.max(log_probabilities, axis=-1)))
        board, wishes = jnp.argmax(logits, axis=-1), carry.halted
        # Rows that want to halt go on all the same.
        carry = carry.replace(halted=jnp.zeros_like(wishes))
        return carry, (board, confidence.astype(jnp.uint8), out.q_halt, wishes)

    step, parts = jit(think), []
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
    return Steps(boards.astype(width), confidence, q_halt.astype(np.float32), stops)


def examples(
    workdir: str | os.PathLike[str] | None,
    dataset: str | os.PathLike[str] | None,
    split: str = "test",
    puzzle: Puzzle | None = None,
) -> tuple[PuzzleSet, list[str]]:
    """Puzzles to look at, and names by puzzle identifier, [] where the data give none.

    They are those of `dataset`, a data set folder or a CSV file (which has only the split "test"),
    or else the run's own. `puzzle` is what the data set holds; None takes that of the run, the one
    that built the data set, or else the first of all that there are.

    Raises:
        DataError, WorkdirError: The data are missing, bad, or not those of the run.
    """
    if dataset is None:
        if workdir is None:
            raise DataError("give a data set or the workdir of a run")
        config: Any = tasks.parse(read_config(workdir))
        path = pathlib.Path(getattr(config.data, "path", "") or pathlib.Path(workdir) / "data")
        if split == "test":
            return held_out(workdir), _names(path)
        if not (path / split / "dataset.json").exists():
            raise DataError(
                f"{workdir}: its {split} puzzles are not kept; name them with --dataset"
            )
        return read_npy(path, split), _names(path)
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
    if not path.exists():
        return None
    with reading(path, "the identity of a data set"):
        return named(Identity.from_json(path.read_text("utf-8")).builder)


def _names(folder: pathlib.Path) -> list[str]:
    """The names in `identifiers.json`; [] without the file, or where all are one."""
    if not (folder / "identifiers.json").exists():
        return []
    names = read_identifiers(folder)
    return names if len(names) > 1 else []

"""Held-out figures of puzzle models."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any, get_args

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray

from hrm_jax.compilation import jit
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.fields import require
from hrm_jax.models import act
from hrm_jax.models.act import Halting, Solved
from hrm_jax.models.recurrent import RecurrentConfig
from hrm_jax.puzzles.base import Puzzle
from hrm_jax.tasks.base import Figures

_CHUNK = 4096  # puzzles in one call, so that traces of large sets need not fit on the device


@functools.lru_cache(maxsize=32)
def _solver(config: RecurrentConfig, **options: Any) -> Any:
    return jit(functools.partial(act.solve, config, **options))


def _row_sharding(variables: Mapping[str, Any], rows: int) -> NamedSharding | None:
    """How `rows` rows are spread over the mesh the weights are on; None off a mesh."""
    sharding = jax.tree.leaves(variables)[0].sharding
    if not isinstance(sharding, NamedSharding) or rows % sharding.mesh.size:
        return None
    return NamedSharding(sharding.mesh, PartitionSpec(sharding.mesh.axis_names))


def checked_indices(
    name: str, values: npt.ArrayLike, shape: tuple[int | None, ...], stop: int
) -> npt.NDArray[Any]:
    """Integers from outside that index a table of `stop` rows; None in `shape` is any length.

    XLA clamps what lies beyond a table to its last row, so ValueError names what is no such index.
    """
    wanted = "[" + ", ".join("N" if side is None else str(side) for side in shape) + "]"
    array = np.asarray(values)
    fits = len(array.shape) == len(shape) and all(
        side in (None, found) for side, found in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"expected {name} {wanted}, got an array of shape {array.shape}")
    if array.size and array.dtype.kind not in "iuf":
        raise ValueError(f"expected {name} that are integers, got {array.dtype}")
    bad = ~((array >= 0) & (array < stop) & (array == np.floor(array)))
    if bad.any():
        place = tuple(int(x) for x in np.argwhere(bad)[0])
        raise ValueError(
            f"expected {name} 0..{stop - 1}, got {array[place]} at {list(place)}"
            + (f" ({bad.sum()} such)" if bad.sum() > 1 else "")
        )
    return array if array.dtype.kind in "iu" else array.astype(np.int32)


def solve_puzzles(
    config: RecurrentConfig,
    variables: Mapping[str, Any],
    inputs: npt.NDArray[Any],
    identifiers: npt.NDArray[Any],
    *,
    slots: int = 32,
    halting: Halting = "q",
    max_steps: int | None = None,
    trace: bool = False,
    logits: bool = False,
    key: PRNGKeyArray | None = None,
) -> Solved:
    """Solves any number of puzzles, tokens [N, S]; compiles once for each size up to 4096, rounded
    up to 2ⁿ. The options are as in `act.solve`; fewer slots are used for fewer puzzles.

    Answers are numpy arrays; `iterations` is the total over all calls, `seconds` the time they took
    without compilation. ValueError for tokens and identifiers that the model has no rows for.
    """
    require(slots >= 1, f"slots: expected at least 1, got {slots}")  # with 0 it would never end
    known = ", ".join(map(repr, get_args(Halting)))
    require(halting in get_args(Halting), f"halting: expected one of {known}, got {halting!r}")
    inputs = checked_indices("tokens", inputs, (None, config.seq_len or None), config.vocab_size)
    count = len(inputs)
    identifiers = checked_indices(
        "puzzle_identifiers", identifiers, (count,), config.num_puzzle_identifiers
    )
    size = min(_CHUNK, 1 << (count - 1).bit_length())
    slots = min(slots, size)
    options = {"slots": slots, "halting": halting, "max_steps": max_steps}
    options |= {"trace": trace, "logits": logits}
    solver = _solver(config, **options, sharding=_row_sharding(variables, slots))

    def solve(rows: npt.NDArray[Any], number: int) -> Solved:
        filled = np.resize(rows, size)
        tokens, names = (x[filled].astype(np.int32) for x in (inputs, identifiers))
        of_part = None if key is None else jax.random.fold_in(key, rows[0])
        return jax.device_get(solver(variables, tokens, names, number, of_part))

    solve(np.arange(count), 0)  # compiles; with no puzzles to solve it ends at once
    begin = time.perf_counter()
    parts, iterations = [], 0
    for start in range(0, count, size):
        number = min(size, count - start)
        out = solve(np.arange(start, start + number), number)
        iterations += out.iterations
        rows = (out.predictions, out.steps, out.q_halt, out.trace, out.logits)
        parts.append(jax.tree.map(lambda x, number=number: x[:number], rows))
    seconds = time.perf_counter() - begin
    arrays = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
    predictions, steps, q_halt, trace, found = arrays
    return Solved(predictions, steps, q_halt, trace, iterations, seconds, found)


def answers_compared(
    puzzles: PuzzleSet, predictions: npt.NDArray[Any], puzzle: Puzzle | None = None
) -> Figures:
    """Compares answers to the first N puzzles, tokens [N, S], with labels.

    Returns:
        `exact_accuracy` (all labelled tokens right), `accuracy` (share of labelled tokens that are
        right, averaged over puzzles), `blank_accuracy` (the same over tokens that the question does
        not give), and the shares of the verdicts of `Puzzle.score`. Puzzles without any label have
        no part in the accuracies, which are left out if all are so.
    """
    inputs = puzzles.inputs[: len(predictions)]
    labels, counted = _labels(puzzles, len(predictions))
    right = (predictions == labels) & counted
    known = counted.any(1)

    def share(of: npt.NDArray[np.bool_]) -> float:
        number = of.sum(1)
        rows = number > 0
        return float(((right & of).sum(1)[rows] / number[rows]).mean()) if rows.any() else 1.0

    further = {} if puzzle is None else puzzle.score(inputs, labels, predictions)
    figures: dict[str, Any] = {name: float(np.mean(v)) for name, v in further.items()}
    if known.any():
        figures["exact_accuracy"] = float((right == counted).all(1)[known].mean())
        figures["accuracy"] = share(counted)
        figures["blank_accuracy"] = share(counted & (inputs != labels))
    return figures


def _labels(puzzles: PuzzleSet, count: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Labels of the first puzzles as int32, and which of them count; both [N, S]."""
    labels = np.asarray(puzzles.labels[:count], np.int32)
    ignored = puzzles.metadata.ignore_label_id
    return labels, np.ones(labels.shape, bool) if ignored is None else labels != ignored


def figures_of(puzzles: PuzzleSet, solved: Solved, puzzle: Puzzle | None = None) -> Figures:
    """Figures of the answers to the first N puzzles, from `solve_puzzles(…, trace=True)`.

    Returns:
        The figures of `answers_compared` as `eval/…`, `eval/q_halt_accuracy` (whether q_halt ≥ 0
        tells right answers from wrong), `eval/steps` (mean ACT steps),
        `eval/exact_accuracy_by_step` (list: if all rows were stopped after that many steps),
        `eval/puzzles`, `eval/puzzles_per_second` (without compilation), and those of
        `Puzzle.tally`. The accuracies are left out where no puzzle has a label.
    """
    count = len(solved.steps)
    compared = answers_compared(puzzles, solved.predictions, puzzle)
    figures: dict[str, Any] = {f"eval/{name}": value for name, value in compared.items()}
    labels, counted = _labels(puzzles, count)
    known = counted.any(1)
    if known.any():
        exact = ((solved.predictions == labels) | ~counted).all(1)
        agrees = (solved.q_halt >= 0) == exact
        figures["eval/q_halt_accuracy"] = float(agrees[known].mean())
        figures["eval/exact_accuracy_by_step"] = [  # one at a time, for a trace can be gigabytes
            float(((board == labels) | ~counted).all(1)[known].mean())
            for board in np.moveaxis(solved.trace, 1, 0)
        ]
    figures["eval/steps"] = float(solved.steps.mean())
    together = puzzle.tally(puzzles, [(solved.predictions, solved.q_halt)]) if puzzle else {}
    figures |= {f"eval/{name}": value for name, value in together.items()}
    return {
        **figures,
        "eval/puzzles": count,
        "eval/puzzles_per_second": count / solved.seconds,
    }


def evaluate_puzzles(
    config: RecurrentConfig,
    variables: Mapping[str, Any],
    puzzles: PuzzleSet,
    puzzle: Puzzle | None = None,
    **options: Any,
) -> Figures:
    """Solves a set, with the options of `solve_puzzles`, and compares with its labels."""
    identifiers = puzzles.example_identifiers()
    solved = solve_puzzles(config, variables, puzzles.inputs, identifiers, trace=True, **options)
    return figures_of(puzzles, solved, puzzle)

"""Search that a network guides: it guesses a cell, and takes back what cannot be.

References:
    Lattice Deduction Transformers (https://arxiv.org/abs/2605.08605): a network whose beliefs
    choose and prune the guesses of a search. Ours was not trained on guesses of its own.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special

from hrm_jax.fields import require
from hrm_jax.models.act import Solved
from hrm_jax.puzzles.base import Puzzle

_Node = tuple[float, int, npt.NDArray[Any]]  # -log probability of the guesses, number, tokens [S]


@dataclasses.dataclass(frozen=True)
class Searched:
    """The first answer to each puzzle that obeys the rules, or where none was found that to the
    puzzle without guesses; questions to the network about each, int [N]; and the ACT steps of all
    of them together, int [N]."""

    answers: Solved
    questions: npt.NDArray[Any]
    steps: npt.NDArray[Any]


def search(
    puzzle: Puzzle,
    solve: Callable[..., Solved],
    inputs: npt.NDArray[Any],
    identifiers: npt.NDArray[Any],
    most: int,
    *,
    at_once: int = 64,
) -> Searched:
    """Solves puzzles, tokens [N, S], with at most `most` questions to the network for each.

    A question is the puzzle with guesses in some blanks, its answer what the network says of the
    blanks that are left. Where that breaks the rules, the blank of which the network is least sure
    takes each value that is `Puzzle.possible` there, which makes new questions, as likely as the
    network says. The likeliest of a puzzle is asked first (best-first search), one at a time;
    those of `at_once` puzzles go to `solve` together.

    Args:
        solve: From tokens and identifiers to answers with logits, see `solve_puzzles`. What it says
            of a question may not depend on its place.

    Raises:
        ConfigError: For no puzzles, and less than one question of each or at once.
        DataError: Where guesses at such puzzles, or answers to them, cannot be checked.
    """
    searching_alone(most)
    count = len(inputs)
    require(count > 0, "search: expected at least one puzzle")
    require(at_once > 0, f"slots: expected at least 1, got {at_once}")
    size = min(at_once, 1 << (count - 1).bit_length())
    found: dict[int, tuple[Any, ...]] = {}  # answer, its ACT steps, its q_halt
    questions, steps = np.zeros(count, np.int64), np.zeros(count, np.int64)
    number = itertools.count()  # of equally likely guesses the older ones first
    waiting = list(range(count))[::-1]
    nodes: dict[int, list[_Node]] = {}  # of the puzzles that are being searched
    iterations, seconds = 0, 0.0

    while waiting or nodes:
        while waiting and len(nodes) < size:
            row = waiting.pop()
            nodes[row] = [(0.0, next(number), inputs[row])]
        rows = np.fromiter(nodes, np.int64)
        costs, _, asked = zip(*map(heapq.heappop, nodes.values()), strict=True)
        tokens = np.stack(asked)
        possible = puzzle.possible(tokens)
        blank = ~np.take_along_axis(possible, tokens[..., None].astype(np.int64), -1)[..., 0]
        filled = np.resize(np.arange(len(rows)), size)  # one shape for all rounds
        solved = solve(tokens[filled], identifiers[rows[filled]])
        iterations, seconds = iterations + solved.iterations, seconds + solved.seconds
        predictions = solved.predictions[: len(rows)]
        answers = np.where(blank, predictions, tokens.astype(predictions.dtype))
        right = puzzle.obeys(inputs[rows], answers)
        left = _left(possible)
        questions[rows] += 1
        steps[rows] += solved.steps[: len(rows)]
        for place, row in enumerate(rows.tolist()):
            if row not in found or right[place]:
                found[row] = (answers[place], solved.steps[place], solved.q_halt[place])
            if not right[place] and blank[place].any() and left[place]:
                cell, log_p = _least_sure(blank[place], possible[place], solved.logits[place])
                values = np.flatnonzero(possible[place, cell])
                guesses = np.repeat(tokens[place][None], len(values), axis=0)
                guesses[:, cell] = values
                kept = _left(puzzle.possible(guesses))
                for value, guess in zip(values[kept], guesses[kept], strict=True):
                    node = (costs[place] - float(log_p[value]), next(number), guess)
                    heapq.heappush(nodes[row], node)
            if right[place] or not nodes[row] or questions[row] >= most:
                del nodes[row]

    answered, last_steps, q_halt = map(np.stack, zip(*map(found.get, range(count)), strict=True))
    solved = Solved(answered, last_steps, q_halt, None, iterations, seconds)
    return Searched(solved, questions, steps)


def searching_alone(search: int, **others: Any) -> None:
    """ConfigError where something is asked for (names and values) that a search does without."""
    require(search > 0, f"search: expected a number of questions, 1 or more, got {search}")
    given = ", ".join(name for name, value in others.items() if value)
    require(not given, f"search: it looks for one answer that obeys the rules; {given} not with it")


def _left(possible: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which questions leave something for each cell, bool [N]."""
    return np.asarray(possible.any(-1).all(-1))


def _least_sure(
    blank: npt.NDArray[np.bool_], possible: npt.NDArray[np.bool_], logits: npt.NDArray[Any]
) -> tuple[int, npt.NDArray[Any]]:
    """The blank cell of which the network is least sure, and the log of the probability of each
    value there."""
    cells = np.flatnonzero(blank)
    log_p = scipy.special.log_softmax(np.where(possible, logits, -np.inf)[cells], axis=-1)
    least = int(np.argmin(log_p.max(1)))
    return int(cells[least]), log_p[least]

"""Several answers to the same puzzle from the same weights, and the vote between them.

Cells are not voted on one by one, for a majority of cells need not fit together: whole answers are.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import PRNGKeyArray

from hrm_jax.compilation import jit
from hrm_jax.fields import require
from hrm_jax.models.act import Solved
from hrm_jax.puzzles.base import Puzzle


@dataclasses.dataclass(frozen=True)
class Elected:
    """The winning vote of each puzzle (of several for one answer, the surest), how many votes were
    for that answer, int [N], and the ACT steps of all votes together, int [N]."""

    answers: Solved
    votes: npt.NDArray[Any]
    steps: npt.NDArray[Any]


def cast(
    puzzle: Any,
    solve: Callable[..., Solved],
    inputs: npt.NDArray[Any],
    votes: int,
    key: PRNGKeyArray,
    plain: Solved | None = None,
    *,
    restarts: bool = False,
) -> list[Solved]:
    """Solves each puzzle as it is, and then under random symmetries, which are undone; or, with
    `restarts`, as it is from random first states.

    A puzzle's symmetries and states depend on its place and the key, not on how many others there
    are. Answers to the puzzles as they are come first; `plain` are these, where they are known
    already. Only for more than one vote the `Puzzle` is needed, which knows the symmetries.
    """
    ballots = [solve(inputs) if plain is None else plain]
    for number in range(1, votes):
        of_this = jax.random.fold_in(key, number)
        if restarts:
            ballots.append(solve(inputs, key=of_this))
            continue
        of_vote = functools.partial(jax.random.fold_in, of_this)
        keys = jax.vmap(of_vote)(jnp.arange(len(inputs)))
        solved = solve(np.asarray(_each(puzzle.transform)(keys, inputs)))
        ballots.append(_restored(puzzle, keys, solved))
    return ballots


def cast_all(
    models: Sequence[Any],
    inputs: npt.NDArray[Any],
    identifiers: npt.NDArray[Any] | None,
    *,
    votes: int = 1,
    seed: int = 0,
    plain: Solved | None = None,
    **options: Any,
) -> list[Solved]:
    """Lets several `PuzzleModel`s answer each puzzle, each as often: see `cast`. Networks that
    commute with the puzzle's symmetries (`mixer` "units") vote by restarts.

    Of the first one `plain` may be known. The options are those of `solve_puzzles`. ConfigError
    where all votes would be the same.
    """
    ballots = []
    for number, model in enumerate(models):

        def solve(tokens: npt.NDArray[Any], model: Any = model, **more: Any) -> Solved:
            return model.answers(tokens, identifiers, **options, **more)

        restarts = model.config.mixing == "units"
        require(
            votes == 1 or not restarts or model.config.restart_noise > 0,
            "votes: the mixer 'units' answers alike under all symmetries, and without "
            "model.restart_noise in training it has no other states to start from; expected 1",
        )
        key = jax.random.fold_in(jax.random.key(seed), number)
        puzzle = model.known() if votes > 1 else model.puzzle
        first = None if number else plain
        ballots += cast(puzzle, solve, inputs, votes, key, first, restarts=restarts)
    return ballots


@functools.cache
def _each(function: Callable[..., Any]) -> Any:
    """A function of a key and a puzzle for many of both, compiled once."""
    return jit(jax.vmap(function))


def _restored(puzzle: Puzzle, keys: jax.Array, solved: Solved) -> Solved:
    restore = _each(puzzle.restore)
    answers = np.asarray(restore(keys, solved.predictions))
    trace = solved.trace
    if trace is not None:
        steps = [restore(keys, trace[:, step]) for step in range(trace.shape[1])]
        trace = np.stack(jax.device_get(steps), axis=1)
    return solved.replace(predictions=answers, trace=trace)


def obeying(
    puzzle: Puzzle, inputs: npt.NDArray[Any], ballots: Sequence[Solved]
) -> npt.NDArray[np.bool_]:
    """Which votes obey the rules, bool [V, N]; DataError where that cannot be told."""
    return np.stack([puzzle.obeys(inputs, ballot.predictions) for ballot in ballots])


def elect(
    ballots: Sequence[Solved],
    obeys: npt.NDArray[np.bool_] | None = None,
    answer_length: int | None = None,
) -> Elected:
    """Chooses an answer for each puzzle: most votes, then the highest mean of sigmoid(q_halt).

    So where all differ, the surest one wins. As the vote of `hrm_jax.puzzles.arc.vote`. Only votes
    that obey the rules [V, N] count; where none does, all do. The first `answer_length` tokens are
    the answer; None for all.
    """
    if len(ballots) == 1:
        only = ballots[0]
        return Elected(only, np.ones(len(only.steps), np.int64), only.steps)
    tokens = np.stack([ballot.predictions for ballot in ballots])
    q_halt = np.stack([ballot.q_halt for ballot in ballots]).astype(np.float64)
    number, puzzles, _ = tokens.shape
    answers = tokens[..., :answer_length].reshape(number * puzzles, -1)
    _, kinds = np.unique(answers, axis=0, return_inverse=True)
    kinds = kinds.reshape(number, puzzles)
    counts = np.ones(kinds.shape, bool) if obeys is None else obeys | ~obeys.any(0)
    same = (kinds[:, None] == kinds[None]) & counts[None]  # [V, V, N]
    votes = same.sum(1)
    with np.errstate(over="ignore"):
        belief = 1 / (1 + np.exp(-q_halt))
    mean = np.einsum("vwn,wn->vn", same, belief) / np.maximum(votes, 1)
    first = np.broadcast_to(-np.arange(number)[:, None], kinds.shape)
    winner = np.lexsort((first, q_halt, mean, votes, counts), axis=0)[-1]
    rows = np.arange(puzzles)

    def chosen(name: str) -> npt.NDArray[Any]:
        return np.stack([getattr(ballot, name) for ballot in ballots])[winner, rows]

    return Elected(
        answers=Solved(
            predictions=chosen("predictions"),
            steps=chosen("steps"),
            q_halt=chosen("q_halt"),
            trace=None if ballots[0].trace is None else chosen("trace"),
            iterations=sum(ballot.iterations for ballot in ballots),
            seconds=sum(ballot.seconds for ballot in ballots),
        ),
        votes=votes[winner, rows],
        steps=np.sum([ballot.steps for ballot in ballots], axis=0),
    )

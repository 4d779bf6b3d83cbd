"""How well a model plays dominoes: whole games against players of known strength."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from hrm_jax.puzzles.domino.players import (
    GreedyPlayer,
    ModelPlayer,
    Player,
    RandomPlayer,
    TournamentResult,
    tournament,
)
from hrm_jax.tasks.puzzles.evaluation import solve_puzzles
from hrm_jax.tasks.puzzles.model import PuzzleModel

_BATCH = 128  # positions in one call

OPPONENTS: dict[str, Callable[[int], Player]] = {
    "random": RandomPlayer,
    "greedy": lambda seed: GreedyPlayer(),
}


@dataclasses.dataclass(frozen=True)
class Match:
    """Games of one player against others that are all alike.

    Attributes:
        player: Whose strength is measured; the first of `result.players`.
        opponent: What the others are.
        drawing: Whether players without a move draw; else they pass.
        result: How the games went.
    """

    player: str
    opponent: str
    drawing: bool
    result: TournamentResult


def model_player(model: PuzzleModel, *, batch_size: int = 1, seed: int = 0) -> ModelPlayer:
    """A player that lays what a model answers.

    Args:
        model: Trained on dominoes.
        batch_size: Positions in every call of the model.
        seed: Seed of the random moves it makes where its answer is not legal.

    Raises:
        ValueError: The model was trained on other puzzles.
    """
    if model.puzzle != "domino":
        raise ValueError(f"a model of {model.puzzle or 'unknown'} puzzles plays no dominoes")
    identifiers = np.zeros(batch_size, np.int32)

    def solve(tokens: np.ndarray) -> np.ndarray:
        solved = solve_puzzles(
            model.config, model.variables, tokens, identifiers, max_steps=model.max_steps
        )
        return np.asarray(solved.predictions)

    return ModelPlayer(solve, batch_size=batch_size, seed=seed)


def strength(
    model: PuzzleModel,
    games: int = 1000,
    *,
    opponents: Sequence[str] = ("random", "greedy"),
    players: int = 2,
    drawing: Sequence[bool] = (True, False),
    seed: int = 0,
) -> Iterator[Match]:
    """Plays a model against each kind of opponent under each rule, one match after the other.

    With every rule comes a match of the greedy player against the random one, which is what a model
    that always answers with the label would do. All matches have the same deals, and everybody
    opens equally often.

    Args:
        model: Trained on dominoes.
        games: Games of each match.
        opponents: Of `OPPONENTS`.
        players: Players at the table, 2 to 4; all but one are opponents.
        drawing: Rules to play by.
        seed: Seed of deals and of random moves.

    Raises:
        ValueError: An unknown opponent, or numbers out of range.
    """
    unknown = [name for name in opponents if name not in OPPONENTS]
    if unknown:
        raise ValueError(f"opponent {unknown[0]!r}: expected one of {', '.join(OPPONENTS)}")
    pairs: list[tuple[Any, str]] = [
        (model_player(model, batch_size=_BATCH, seed=seed), name) for name in opponents
    ]
    pairs.append((GreedyPlayer(), "random"))

    def match(player: Any, opponent: str, rule: bool) -> Match:
        others = [OPPONENTS[opponent](seed + place) for place in range(1, players)]
        result = tournament([player, *others], games, drawing=rule, seed=seed)
        return Match(player.name, opponent, rule, result)

    return (match(player, name, rule) for rule in drawing for player, name in pairs)

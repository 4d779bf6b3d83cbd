"""How well a model plays dominoes: whole games against players of known strength."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.domino.players import (
    GreedyPlayer,
    ModelPlayer,
    Player,
    RandomPlayer,
    TournamentResult,
    tournament,
)

_BATCH = 128  # positions in one call

OPPONENTS: dict[str, Callable[[int], Player]] = {
    "random": RandomPlayer,
    "greedy": lambda seed: GreedyPlayer(),
}


@dataclasses.dataclass(frozen=True)
class Match:
    """Games of one player, first in `result`, against others that are all alike."""

    player: str
    opponent: str
    drawing: bool
    result: TournamentResult


def strength(
    solve: Callable[[Array], Array],
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
        solve: Turns positions, tokens [B, 72], into predictions [B, 72].
        games: Games of each match.
        opponents: Of `OPPONENTS`; all players but one are such.
        players: Players at the table, 2 to 4.
        drawing: Rules to play by.
        seed: Seed of deals and of random moves.

    Raises:
        DataError: Numbers out of range.
    """
    pairs: list[tuple[Player, str]] = [
        (ModelPlayer(solve, batch_size=_BATCH, seed=seed), name) for name in opponents
    ]
    pairs.append((GreedyPlayer(), "random"))

    def match(player: Player, opponent: str, rule: bool) -> Match:
        others = [OPPONENTS[opponent](seed + place) for place in range(1, players)]
        result = tournament([player, *others], games, drawing=rule, seed=seed)
        return Match(player.name, opponent, rule, result)

    return (match(player, name, rule) for rule in drawing for player, name in pairs)


_COLUMNS = "{:8} {:8} {:8} {:>6} {:>6} {:>16} {:>6} {:>6} {:>7} {:>7} {:>7}"
TITLES = _COLUMNS.format(
    *("player", "against", "rule", "games", "wins", "95% interval", "loses", "ties"),
    *("scores", "gives", "legal"),
)


def summary(match: Match) -> str:
    """A match as a line below `TITLES`."""
    result, player = match.result, match.result.players[0]
    others = result.players[1:]
    legal = 1 - player.illegal / player.moves if player.moves else 1.0
    return _COLUMNS.format(
        match.player,
        match.opponent,
        "drawing" if match.drawing else "passing",
        result.games,
        f"{player.win_rate:.1%}",
        f"{player.low:.1%} to {player.high:.1%}",
        f"{sum(other.wins for other in others) / result.games:.1%}",
        f"{result.ties / result.games:.1%}",
        f"{player.points / result.games:.1f}",
        f"{sum(other.points for other in others) / result.games:.1f}",
        f"{legal:.1%}",
    )

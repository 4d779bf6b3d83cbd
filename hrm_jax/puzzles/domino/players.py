"""Players of dominoes, a model among them, tournaments between them, and how well they play."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from random import Random

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.domino.encoding import SEQ_LEN, decode_move, encode
from hrm_jax.puzzles.domino.game import Game, Move, Position, best_move, legal_moves

_BATCH = 128  # positions in one call


class Player:
    """Who lays tiles by a rule; `illegal` counts the moves for which a model predicted none."""

    illegal = 0

    def __init__(self, name: str, rule: Callable[[Position], Move]) -> None:
        self.name, self._rule = name, rule

    def choose(self, positions: Sequence[Position]) -> list[Move]:
        """A legal move for each position; there is one in all of them."""
        return [self._rule(position) for position in positions]


class RandomPlayer(Player):
    """Lays any tile that fits, all moves alike."""

    def __init__(self, seed: int = 0, name: str = "random") -> None:
        random = Random(seed)
        super().__init__(name, lambda position: random.choice(legal_moves(position)))


class GreedyPlayer(Player):
    """Lays the heaviest tile that fits: `game.best_move`."""

    def __init__(self, name: str = "greedy") -> None:
        super().__init__(name, best_move)


class ModelPlayer(RandomPlayer):
    """Plays what a model predicts; where that is not legal, a random move.

    `solve` turns positions, uint8 tokens [batch_size, 72], of which the last rows may be fillers,
    into predictions of that shape (or just their first three). All calls have `batch_size` rows, so
    that a program is compiled once.
    """

    def __init__(
        self, solve: Callable[[Array], npt.ArrayLike], *, batch_size: int = 1, seed: int = 0
    ) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}, expected at least 1")
        super().__init__(seed, "model")
        self._solve = solve
        self._batch_size = batch_size

    def choose(self, positions: Sequence[Position]) -> list[Move]:
        chosen = []
        for start in range(0, len(positions), self._batch_size):
            part = positions[start : start + self._batch_size]
            for position, prediction in zip(part, self._predict(part), strict=True):
                move = decode_move(prediction, position)
                self.illegal += move is None
                chosen.append(move or self._rule(position))
        return chosen

    def _predict(self, positions: Sequence[Position]) -> Array:
        size = self._batch_size
        tokens = np.zeros((size, SEQ_LEN), np.uint8)
        tokens[: len(positions)] = [encode(position) for position in positions]
        found = np.asarray(self._solve(tokens))
        if found.ndim != 2 or len(found) != size or found.shape[1] < 3:
            raise DataError(
                f"player {self.name}: solve returned {found.shape}, expected ({size}, {SEQ_LEN})"
            )
        return found[: len(positions)]


@dataclasses.dataclass(frozen=True)
class PlayerResult:
    """How one player did."""

    name: str
    wins: int
    win_rate: float  # share of all games won
    low: float  # 95% Wilson confidence interval of it
    high: float
    points: int  # sum of what its wins scored: the pips in the others' hands
    moves: int  # tiles laid
    illegal: int  # of these, those for which a `ModelPlayer` predicted none that is legal


@dataclasses.dataclass(frozen=True)
class TournamentResult:
    """How a tournament went, with its players in the order given."""

    games: int
    blocked: int  # in the end
    ties: int  # of these, those without a winner
    players: tuple[PlayerResult, ...]


def tournament(
    players: Sequence[Player],
    games: int = 1000,
    *,
    drawing: bool = True,
    seed: int = 0,
    lockstep: int = 1024,
) -> TournamentResult:
    """Plays games in which all players, two to four of them, sit at the table.

    In game number i player p has seat (p + i) mod P, so that everybody opens equally often, and
    every game has a deal of its own, drawn from (seed, i). `lockstep` games are played at a time,
    and a player gets all of its positions in one call.
    """
    if not 2 <= len(players) <= 4 or len({id(player) for player in players}) < len(players):
        raise DataError(f"{len(players)} players, expected 2 to 4 different ones")
    if games < 1 or lockstep < 1:
        raise DataError(f"games is {games}, lockstep {lockstep}; expected at least 1")
    count = len(players)
    wins, points, moves = [0] * count, [0] * count, [0] * count
    illegal = [player.illegal for player in players]
    blocked = ties = 0
    for start in range(0, games, lockstep):
        numbers = range(start, min(games, start + lockstep))
        table = {i: Game(count, Random(f"deal/{seed}/{i}"), drawing=drawing) for i in numbers}
        _play_all(players, table, moves)
        for i, game in table.items():
            winner = game.winner()
            blocked += game.blocked
            ties += winner is None
            if winner is not None:
                wins[(winner - i) % count] += 1
                points[(winner - i) % count] += sum(game.pips()) - game.pips()[winner]
    results = []
    for p, player in enumerate(players):
        shares = (wins[p] / games, *wilson(wins[p], games))
        counts = (points[p], moves[p], player.illegal - illegal[p])
        results.append(PlayerResult(player.name, wins[p], *shares, *counts))
    return TournamentResult(games, blocked, ties, tuple(results))


def wilson(wins: int, games: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's confidence interval (1927) of a share; `z` is the normal quantile."""
    share = wins / games
    centre = share + z * z / (2 * games)
    spread = z * math.sqrt(share * (1 - share) / games + z * z / (4 * games * games))
    scale = 1 + z * z / games
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _play_all(players: Sequence[Player], games: dict[int, Game], moves: list[int]) -> None:
    """Plays all games to their end, a move of each at a time; counts moves of each player."""
    running = dict(games)
    while running:
        turns: dict[int, list[Game]] = {}
        for i, game in running.items():
            turns.setdefault((game.turn - i) % len(players), []).append(game)
        for p, some in turns.items():
            chosen = players[p].choose([game.position() for game in some])
            for game, move in zip(some, chosen, strict=True):
                game.play(move)
            moves[p] += len(some)
        running = {i: game for i, game in running.items() if not game.over}


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
    """Plays a model against each kind of `OPPONENTS` under each rule, one match after the other.

    `solve` is as in `ModelPlayer`; all players but one are such opponents. With every rule comes a
    match of the greedy player against the random one, which is what a model that always answers
    with the label would do. All matches have the same deals, and everybody opens equally often.
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

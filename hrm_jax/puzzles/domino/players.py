"""Players of dominoes, a model among them, and tournaments between them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.domino.encoding import SEQ_LEN, decode_move, encode
from hrm_jax.puzzles.domino.game import Game, Move, Position, best_move, legal_moves


class Player:
    """Who lays tiles; subclasses choose for one position, or for many at a time.

    `illegal` counts the moves for which a model predicted none that is legal.
    """

    illegal = 0

    def __init__(self, name: str) -> None:
        self.name = name

    def choose(self, position: Position) -> Move:
        """Returns one of `legal_moves(position)`, of which there is at least one."""
        return self.choose_batch([position])[0]

    def choose_batch(self, positions: Sequence[Position]) -> list[Move]:
        """Returns a legal move for each position."""
        return [self.choose(position) for position in positions]


class RandomPlayer(Player):
    """Lays any tile that fits, all moves alike."""

    def __init__(self, seed: int = 0, name: str = "random") -> None:
        super().__init__(name)
        self._random = Random(seed)

    def choose(self, position: Position) -> Move:
        return self._random.choice(legal_moves(position))


class GreedyPlayer(Player):
    """Lays the heaviest tile that fits: `game.best_move`."""

    def __init__(self, name: str = "greedy") -> None:
        super().__init__(name)

    def choose(self, position: Position) -> Move:
        return best_move(position)


class ModelPlayer(Player):
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
        super().__init__("model")
        self._solve = solve
        self._batch_size = batch_size
        self._random = Random(seed)

    def choose_batch(self, positions: Sequence[Position]) -> list[Move]:
        chosen = []
        for start in range(0, len(positions), self._batch_size):
            part = positions[start : start + self._batch_size]
            for position, prediction in zip(part, self._predict(part), strict=True):
                move = decode_move(prediction, position)
                if move is None:
                    self.illegal += 1
                    move = self._random.choice(legal_moves(position))
                chosen.append(move)
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
    """How one player did.

    Attributes:
        low, high: 95% Wilson confidence interval of `win_rate`, the share of all games won.
        points: Sum of what its wins scored: the pips in the others' hands.
        moves: Tiles laid.
        illegal: Of these, those for which a `ModelPlayer` predicted none that is legal.
    """

    name: str
    wins: int
    win_rate: float
    low: float
    high: float
    points: int
    moves: int
    illegal: int


@dataclasses.dataclass(frozen=True)
class TournamentResult:
    """How a tournament went, with its players in the order given.

    Some games are `blocked` in the end; of these, those without a winner are `ties`.
    """

    games: int
    blocked: int
    ties: int
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

    Raises:
        DataError: Another number of players, one who sits twice, or fewer than one game.
    """
    if not 2 <= len(players) <= 4 or len({id(player) for player in players}) < len(players):
        raise DataError(f"{len(players)} players, expected 2 to 4 different ones")
    if games < 1 or lockstep < 1:
        raise DataError(f"games is {games}, lockstep {lockstep}; expected at least 1")
    count = len(players)
    wins, points, moves = [0] * count, [0] * count, [0] * count
    illegal = [-player.illegal for player in players]
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
        low, high = wilson(wins[p], games)
        illegal[p] += player.illegal
        results.append(
            PlayerResult(
                player.name, wins[p], wins[p] / games, low, high, points[p], moves[p], illegal[p]
            )
        )
    return TournamentResult(games, blocked, ties, tuple(results))


def wilson(wins: int, games: int, z: float = 1.959964) -> tuple[float, float]:
    """Returns Wilson's confidence interval (1927) of a share; `z` is the normal quantile."""
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
            chosen = players[p].choose_batch([game.position() for game in some])
            for game, move in zip(some, chosen, strict=True):
                game.play(move)
            moves[p] += len(some)
        running = {i: game for i, game in running.items() if not game.over}

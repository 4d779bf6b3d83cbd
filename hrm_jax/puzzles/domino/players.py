"""Players of dominoes, a model among them, and tournaments between them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.domino.encoding import SEQ_LEN, decode_move, encode
from hrm_jax.puzzles.domino.game import Game, Move, Position, best_move, legal_moves


@runtime_checkable
class Player(Protocol):
    """Who lays tiles.

    Attributes:
        name: Name in the results.
    """

    name: str

    def choose(self, position: Position) -> Move:
        """Returns one of `legal_moves(position)`, of which there is at least one."""
        ...


@runtime_checkable
class BatchPlayer(Player, Protocol):
    """A player who is quicker with many positions at a time."""

    def choose_batch(self, positions: Sequence[Position]) -> list[Move]:
        """Returns a legal move for each position."""
        ...


class RandomPlayer:
    """Lays any tile that fits, all moves alike."""

    def __init__(self, seed: int = 0, name: str = "random") -> None:
        self.name = name
        self._random = Random(seed)

    def choose(self, position: Position) -> Move:
        """See `Player`."""
        return self._random.choice(legal_moves(position))


class GreedyPlayer:
    """Lays the heaviest tile that fits: `game.best_move`."""

    def __init__(self, name: str = "greedy") -> None:
        self.name = name

    def choose(self, position: Position) -> Move:
        """See `Player`."""
        return best_move(position)


class ModelPlayer:
    """Plays what a model predicts; where that is not legal, a random move.

    Attributes:
        name: Name in the results.
        moves: Moves so far.
        illegal: Predictions so far that were not legal.
    """

    def __init__(
        self,
        solve: Callable[[Array], npt.ArrayLike],
        *,
        batch_size: int | None = None,
        seed: int = 0,
        name: str = "model",
    ) -> None:
        """Makes the player.

        Args:
            solve: Turns positions, uint8 tokens [B, 72], into predictions, integers [B, 72] (or
                just their first three).
            batch_size: B of every call; the last rows are then fillers. None calls with as many
                rows as there are, for which a jitted function is compiled again and again.
            seed: Seed of the random moves.

        Raises:
            DataError: `batch_size` below 1.
        """
        if batch_size is not None and batch_size < 1:
            raise DataError(f"batch_size is {batch_size}, expected at least 1")
        self.name = name
        self.moves = 0
        self.illegal = 0
        self._solve = solve
        self._batch_size = batch_size
        self._random = Random(seed)

    def choose(self, position: Position) -> Move:
        """See `Player`."""
        return self.choose_batch([position])[0]

    def choose_batch(self, positions: Sequence[Position]) -> list[Move]:
        """See `BatchPlayer`; DataError where `solve` returned another shape."""
        if not positions:
            return []
        tokens = np.stack([encode(position) for position in positions])
        chosen = []
        for position, prediction in zip(positions, self._predict(tokens), strict=True):
            move = decode_move(prediction, position)
            if move is None:
                self.illegal += 1
                move = self._random.choice(legal_moves(position))
            chosen.append(move)
        self.moves += len(chosen)
        return chosen

    def _predict(self, tokens: Array) -> Array:
        size = self._batch_size or len(tokens)
        fillers = -len(tokens) % size
        padded = np.concatenate([tokens, np.zeros((fillers, SEQ_LEN), np.uint8)])
        parts = []
        for start in range(0, len(padded), size):
            part = np.asarray(self._solve(padded[start : start + size]))
            if part.ndim != 2 or len(part) != size or part.shape[1] < 3:
                raise DataError(
                    f"player {self.name}: solve returned {part.shape}, expected ({size}, {SEQ_LEN})"
                )
            parts.append(part)
        return np.concatenate(parts)[: len(tokens)]


@dataclasses.dataclass(frozen=True)
class PlayerResult:
    """How one player did.

    Attributes:
        name: The player's name.
        wins: Games won.
        win_rate: Share of all games won; the rest are lost or without a winner.
        low, high: 95% Wilson confidence interval of `win_rate`.
        points: Sum of what its wins scored: the pips in the others' hands.
        moves: Tiles laid.
        illegal: Of these, moves for which a `ModelPlayer` predicted none that is legal.
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
    """How a tournament went.

    Attributes:
        games: Games played.
        blocked: Games that ended in a block.
        ties: Blocked games without a winner.
        players: In the order given.
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
    """Plays games in which all players sit at the table.

    In game number i player p has seat (p + i) mod P, so that everybody opens equally often, and
    every game has a deal of its own, drawn from (seed, i).

    Args:
        players: Two to four; one object may sit only once.
        games: Number of games.
        drawing: Whether players draw or pass.
        seed: Seed of the deals.
        lockstep: Games played at a time; a `BatchPlayer` gets all of its positions in one call.

    Raises:
        DataError: Another number of players, or fewer than one game.
    """
    if not 2 <= len(players) <= 4 or len({id(player) for player in players}) < len(players):
        raise DataError(f"{len(players)} players, expected 2 to 4 different ones")
    if games < 1 or lockstep < 1:
        raise DataError(f"games is {games}, lockstep {lockstep}; expected at least 1")
    count = len(players)
    wins, points, moves = [0] * count, [0] * count, [0] * count
    illegal = [-getattr(player, "illegal", 0) for player in players]
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
        illegal[p] += getattr(player, "illegal", 0)
        results.append(
            PlayerResult(
                player.name, wins[p], wins[p] / games, low, high, points[p], moves[p], illegal[p]
            )
        )
    return TournamentResult(games, blocked, ties, tuple(results))


def wilson(wins: int, games: int, z: float = 1.959964) -> tuple[float, float]:
    """Returns Wilson's confidence interval of a share; `z` is the normal quantile, 95% by default.

    References:
        Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
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
            player, positions = players[p], [game.position() for game in some]
            if isinstance(player, BatchPlayer):
                chosen = player.choose_batch(positions)
            else:
                chosen = [player.choose(position) for position in positions]
            for game, move in zip(some, chosen, strict=True):
                game.play(move)
            moves[p] += len(some)
        running = {i: game for i, game in running.items() if not game.over}

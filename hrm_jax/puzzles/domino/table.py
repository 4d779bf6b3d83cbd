"""The table at which dominoes are played: by a person, or by a model whose strength is measured."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from random import Random, randrange

from hrm_jax.data.errors import DataError
from hrm_jax.files import write_json
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.console import Console, converse
from hrm_jax.puzzles.domino.encoding import encode_move
from hrm_jax.puzzles.domino.game import END_NAMES, FIRST, LEFT, RIGHT, Game, Move, Tile, legal_moves
from hrm_jax.puzzles.domino.players import (
    OPPONENTS,
    TITLES,
    ModelPlayer,
    Player,
    strength,
    summary,
)
from hrm_jax.puzzles.domino.text import move_text

_HELP = """\
  3          lay your tile number 3 (* marks tiles that fit)
  3 left     lay it at the left end; 3 right at the right end
  draw       take a tile from the boneyard, when none of yours fits
  pass       when none fits and there is none to draw
  quit       leave the game"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Who sits at the table, and by which rule they play.

    Attributes:
        players: Players at the table, 2 to 4.
        opponents: Some of random, greedy: more players beside the model.
        drawing: Who cannot lay a tile draws (the usual rule).
        passing: Who cannot lay a tile passes.
        games: Play so many games against each opponent, without a person; by both rules unless
            one is given.
        output: JSON file for the results of --games.
    """

    players: int | None = None
    opponents: tuple[str, ...] = ()
    drawing: bool = False
    passing: bool = False
    games: int | None = None
    output: str = ""

    def __post_init__(self) -> None:
        if self.players not in (None, 2, 3, 4):
            raise DataError(f"--players: expected 2 to 4, got {self.players}")
        if self.games is not None and self.games < 1:
            raise DataError(f"--games: expected at least 1, got {self.games}")
        if self.drawing and self.passing:
            raise DataError("--drawing and --passing: give one of them")
        for name in self.opponents:
            if name not in OPPONENTS:
                raise DataError(f"--opponents: {name!r}: expected some of {', '.join(OPPONENTS)}")

    def play(self, console: Console, solve: Callable[[Array], Array], seed: int | None) -> None:
        """Plays with a person, or measures strength where `games` is given.

        `solve` turns positions, tokens [B, 72], into predictions. `seed` is that of deals and of
        random moves; None takes another each time, or 0 to measure.
        """
        if self.games is not None:
            self._measure(console, solve, seed or 0)
            return
        seed = randrange(2**31) if seed is None else seed
        others: list[Player] = [OPPONENTS[name](seed) for name in self.opponents]
        players = self.players or len(others) + 2
        if players < len(others) + 2:
            raise DataError(
                f"--players={players}: you, the model and {len(others)} opponents are "
                f"{len(others) + 2}"
            )
        models = [
            ModelPlayer(solve, batch_size=1, seed=seed + seat)
            for seat in range(players - 1 - len(others))
        ]
        talk = functools.partial(
            play_domino, console, [*models, *others], drawing=not self.passing, seed=seed
        )
        converse(console, talk)

    def _measure(self, console: Console, solve: Callable[[Array], Array], seed: int) -> None:
        matches = strength(
            solve,
            self.games or 1,
            opponents=self.opponents or tuple(OPPONENTS),
            players=self.players or 2,
            drawing=[self.drawing] if self.drawing or self.passing else [True, False],
            seed=seed,
        )
        console.say(TITLES)
        rows = []
        for match in matches:
            console.say(summary(match))
            rows.append(dataclasses.asdict(match))
        console.say(
            "scores, gives: points a game for its wins and for those of the others; legal: moves "
            "for which it predicted a legal one\n" + json.dumps({"matches": rows})
        )
        if self.output:
            write_json(self.output, {"matches": rows})


def play_domino(
    console: Console, others: Sequence[Player], *, drawing: bool = True, seed: int = 0
) -> Game:
    """Plays a game of a person against one to three others, as they sit, to its end.

    Raises `Leave` when the person leaves.
    """
    random = Random(f"play/{seed}")
    names = ["you"]
    for other in others:
        same = sum(name.split()[0] == other.name for name in names)
        names.append(f"{other.name} {same + 1}" if same else other.name)
    seats: list[tuple[str, Player | None]] = list(zip(names, [None, *others], strict=True))
    first = random.randrange(len(seats))
    seats = seats[first:] + seats[:first]
    game = Game(len(seats), random, drawing=drawing)
    names = [name for name, _ in seats]
    console.say(
        f"Dominoes with {', '.join(name for name in names if name != 'you')}: who cannot lay a "
        f"tile {'draws' if drawing else 'passes'}. Type help for help."
    )
    console.say(f"{_subject(names[0])} open{'' if names[0] == 'you' else 's'}.")
    while not game.over:
        mover, held = game.turn, [len(hand) for hand in game.hands]
        player = seats[mover][1]
        guesses = player.illegal if player else 0
        move = player.choose([game.position()])[0] if player else _ask_move(console, game, names)
        game.play(move)
        held[mover] -= 1
        laid = move_text(encode_move(move))
        said = f"{_subject(names[mover])} {'lays' if player else 'lay'} {laid}."
        if player and player.illegal > guesses:
            said += " (What it predicted is not legal, so this is a random move.)"
        console.say(said)
        _tell_passes(console, game, names, mover, held)
    console.say(_score(game, names))
    return game


def _tell_passes(
    console: Console, game: Game, names: Sequence[str], mover: int, held: Sequence[int]
) -> None:
    """Says who drew and passed after `mover` moved, when each seat `held` so many tiles; the person
    has to do it by hand."""
    if game.over and not game.blocked:
        return
    for place in range(1, len(names) + 1):
        seat = (mover + place) % len(names)
        drawn = game.hands[seat][held[seat] :]
        moves_next = seat == game.turn and not game.over
        if names[seat] == "you" and (drawn or not moves_next):
            left, right = game.table[0][0], game.table[-1][1]
            console.say(f"None of your tiles fits the ends {left} and {right}.")
            for tile in drawn:
                _ask_word(console, "draw")
                console.say(f"You draw {_tile(tile)}.")
            if not moves_next:
                console.say("The boneyard is empty." if game.drawing else "You may not draw.")
                _ask_word(console, "pass")
        elif names[seat] != "you":
            if drawn:
                tiles = "a tile" if len(drawn) == 1 else f"{len(drawn)} tiles"
                console.say(f"{_subject(names[seat])} draws {tiles}.")
            if not moves_next:
                console.say(f"{_subject(names[seat])} passes.")
        if moves_next:
            return


def _ask_word(console: Console, word: str) -> None:
    while (typed := console.ask("> ", _HELP).strip().lower()) not in (word, word[0]):
        console.say(f"{typed!r} is not possible now: you can only {word}.")


def _ask_move(console: Console, game: Game, names: Sequence[str]) -> Move:
    """Shows the position and asks until the answer is a legal move."""
    position = game.position()
    moves = legal_moves(position)
    counts = [
        f"{name} {len(hand)}" for name, hand in zip(names, game.hands, strict=True) if name != "you"
    ]
    table = " ".join(f"{a}|{b}" for a, b in position.table) or "empty"
    fits = {move.tile for move in moves}
    hand = "   ".join(
        f"{number}) {_tile(tile)}{'*' if tuple(sorted(tile)) in fits else ''}"
        for number, tile in enumerate(position.hand, 1)
    )
    console.say(f"\nTable: {table}")
    console.say(f"Tiles: {', '.join(counts)}, boneyard {len(game.boneyard)}")
    console.say(f"Yours: {hand}")
    while True:
        try:
            return _parse_move(console, console.ask("> ", _HELP), position.hand, moves)
        except DataError as error:
            console.say(str(error))


def _parse_move(console: Console, text: str, hand: Sequence[Tile], moves: Sequence[Move]) -> Move:
    """Reads a move, and asks for the end if both would do; DataError says why it is not legal."""
    number, *sides = text.lower().split() or [""]
    if number in ("draw", "d", "pass", "p"):
        raise DataError("A tile of yours fits (those with a *), so you have to lay one.")
    ends = {"left": LEFT, "l": LEFT, "right": RIGHT, "r": RIGHT}
    if not number.isdecimal() or len(sides) > 1 or not set(sides) <= set(ends):
        raise DataError(
            f"{text.strip()!r}: expected the number of a tile and, if you like, left or right, as "
            f"in 3 or 3 left; help lists what you can type."
        )
    if not 1 <= int(number) <= len(hand):
        raise DataError(f"There is no tile {number}: yours are 1 to {len(hand)}.")
    tile = hand[int(number) - 1]
    possible = [move for move in moves if move.tile == tuple(sorted(tile))]
    if not possible:
        raise DataError(f"{_tile(tile)} does not fit either end.")
    if sides and possible[0].end != FIRST:
        possible = [move for move in possible if move.end == ends[sides[0]]]
        if not possible:
            raise DataError(f"{_tile(tile)} does not fit the {END_NAMES[ends[sides[0]]]} end.")
    while len(possible) > 1:
        side = console.ask("At which end, left or right? ", _HELP).strip().lower()
        if side in ends:
            return next(move for move in possible if move.end == ends[side])
        console.say(f"{side!r}: expected left or right.")
    return possible[0]


def _score(game: Game, names: Sequence[str]) -> str:
    winner, pips = game.winner(), game.pips()
    lines = [
        "",
        "Nobody can lay a tile: the game is blocked." if game.blocked else "The game ends.",
    ]
    for name, hand, held in zip(names, game.hands, pips, strict=True):
        tiles = " ".join(map(_tile, hand)) or "no tile"
        lines.append(f"  {name:10} {held:3} pips   {tiles}")
    if winner is None:
        lines.append("The fewest pips are held twice: nobody wins.")
    else:
        verb = "win" if names[winner] == "you" else "wins"
        points = sum(pips) - pips[winner]
        lines.append(f"{_subject(names[winner])} {verb} and score{verb[3:]} {points}.")
    return "\n".join(lines)


def _subject(name: str) -> str:
    return "You" if name == "you" else f"The {name} player"


def _tile(tile: Tile) -> str:
    return f"{tile[0]}-{tile[1]}"

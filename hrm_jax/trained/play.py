"""A person at a terminal who plays dominoes against a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.domino.game import END_NAMES, FIRST, LEFT, RIGHT, Game, Move, Tile, legal_moves
from hrm_jax.puzzles.domino.players import ModelPlayer
from hrm_jax.puzzles.domino.text import move_text

_DOMINO_HELP = """\
  3          lay your tile number 3 (* marks tiles that fit)
  3 left     lay it at the left end; 3 right at the right end
  draw       take a tile from the boneyard, when none of yours fits
  pass       when none fits and there is none to draw
  quit       leave the game"""


class Leave(Exception):
    """The person wants to leave, or there is no more input."""


@dataclasses.dataclass
class Console:
    """Where a person reads and types.

    Attributes:
        input, output: Streams of text.
        ansi: Whether the output is a terminal that understands ANSI codes.
    """

    input: Any
    output: Any
    ansi: bool = False

    def say(self, text: str = "") -> None:
        """Writes a line, or lines."""
        print(text, file=self.output, flush=True)

    def ask(self, prompt: str, help_text: str) -> str:
        """Reads a line; answers `help` by itself.

        Raises:
            Leave: At `quit` and at the end of the input.
        """
        while True:
            print(prompt, end="", file=self.output, flush=True)
            line = self.input.readline()
            word = line.strip().lower()
            if not line or word in ("quit", "q", "exit"):
                raise Leave
            if word not in ("help", "h", "?"):
                return line.rstrip("\r\n")
            self.say(help_text)


def converse(console: Console, talk: Callable[[], object]) -> None:
    """Runs `talk`, and ends politely where the person leaves or presses Ctrl-C."""
    try:
        talk()
    except (Leave, KeyboardInterrupt):
        console.say("\nBye.")


def play_domino(
    console: Console, others: Sequence[Any], *, drawing: bool = True, seed: int = 0
) -> Game:
    """Plays a game: a person against one to three players.

    Args:
        console: Where the person is.
        others: The other players, of `hrm_jax.puzzles.domino.players`, in the order of their seats.
        drawing: Whether who cannot lay a tile draws, or passes.
        seed: Seed of the deal and of who opens.

    Returns:
        The game, which is over.

    Raises:
        Leave: The person leaves.
        DataError: Another number of players.
    """
    random = Random(f"play/{seed}")
    names = ["you"]
    for player in others:
        same = sum(name.split()[0] == player.name for name in names)
        names.append(f"{player.name} {same + 1}" if same else player.name)
    seats: list[tuple[str, Any]] = list(zip(names, [None, *others], strict=True))
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
        if player is None:
            move, remark = _ask_move(console, game, names), ""
        else:
            move, remark = _choose(player, game)
        game.play(move)
        held[mover] -= 1
        verb = "lay" if player is None else "lays"
        console.say(f"{_subject(names[mover])} {verb} {_move_words(move)}.{remark}")
        _tell_passes(console, game, names, mover, held)
    console.say(_score(game, names))
    return game


def _choose(player: Any, game: Game) -> tuple[Move, str]:
    """The move of a player that is no person, and a remark on it."""
    before = player.illegal if isinstance(player, ModelPlayer) else 0
    move = player.choose(game.position())
    guessed = isinstance(player, ModelPlayer) and player.illegal > before
    return move, " (What it predicted is not legal, so this is a random move.)" if guessed else ""


def _tell_passes(
    console: Console, game: Game, names: Sequence[str], mover: int, held: Sequence[int]
) -> None:
    """Says who drew and who passed after a move; the person has to do it by hand.

    Args:
        mover: Seat that moved.
        held: Tiles of each seat after the move, before anybody drew.
    """
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
    while (typed := console.ask("> ", _DOMINO_HELP).strip().lower()) not in (word, word[0]):
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
            return _parse_move(console, console.ask("> ", _DOMINO_HELP), position.hand, moves)
        except DataError as error:
            console.say(str(error))


def _parse_move(console: Console, text: str, hand: Sequence[Tile], moves: Sequence[Move]) -> Move:
    """Reads a move; asks for the end if both would do.

    Raises:
        DataError: It is none, or not a legal one; says why.
    """
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
        side = console.ask("At which end, left or right? ", _DOMINO_HELP).strip().lower()
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


def _move_words(move: Move) -> str:
    return move_text(np.array([move.a + 1, move.b + 1, move.end]))

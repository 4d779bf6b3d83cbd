"""Domino positions as one line of text, for people to type: `table 2|5 5|3; hand 2|3 0|2`."""

from __future__ import annotations

import re

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.domino.encoding import check
from hrm_jax.puzzles.domino.game import END_NAMES, FIRST, TILES, Position, Tile, legal_moves

_FORM = "expected a position like 'table 2|5 5|3; hand 2|3 0|2'"


def parse(text: str) -> Position:
    """Reads a position.

    The text is `table`, its tiles from left to right as they lie, a semicolon, `hand` and its tiles
    in any order and direction. A tile is two numbers of pips with `|` or `-` between; a table
    without tiles may be left out. DataError where it has another form, is no position, or no tile
    of the hand fits.
    """
    parts: dict[str, tuple[Tile, ...]] = {"table": (), "hand": ()}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, *tiles = part.split()
        if name not in parts or parts[name]:
            raise DataError(f"{text!r}: {part!r}: {_FORM}")
        parts[name] = tuple(_tile(tile, text) for tile in tiles)
    position = Position(**parts)
    if not position.hand:
        raise DataError(f"{text!r}: no tile in the hand; {_FORM}")
    check(position)
    if not legal_moves(position):
        raise DataError(f"{text!r}: no tile of the hand fits the table")
    return position


def to_text(position: Position) -> str:
    """A position as one line; `parse` inverts it."""
    table, hand = (" ".join(f"{a}|{b}" for a, b in tiles) for tiles in position)
    return f"table {table}; hand {hand}" if table else f"hand {hand}"


def move_text(move: Array) -> str:
    """A move such as `6|4 at the right end` or `1|2 first`; `?` for what is no pip or end."""
    where = "first" if move[2] == FIRST else f"at the {END_NAMES.get(int(move[2]), '?')} end"
    return f"{pip(move[0])}|{pip(move[1])} {where}"


def pip(token: int) -> str:
    """The pips that a token stands for; `?` for what is none."""
    return str(int(token) - 1) if 1 <= token <= 7 else "?"


def _tile(text: str, where: str) -> Tile:
    found = re.fullmatch(r"(\d)[|-](\d)", text)
    if found is None or tuple(sorted(map(int, found.groups()))) not in TILES:
        raise DataError(f"{where!r}: {text!r} is no tile 0|0 to 6|6; {_FORM}")
    return int(found[1]), int(found[2])

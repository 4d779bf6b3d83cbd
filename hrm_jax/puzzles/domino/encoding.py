"""Domino positions and moves as 72 tokens: 0 is nothing, pips + 1 a half of a tile.

| tokens | inputs | labels |
|---|---|---|
| 0 to 55 | 28 tiles of the table from left to right, (A + 1, B + 1) as they lie | 0 to 2 below |
| 56 to 69 | 7 tiles of the hand, (A + 1, B + 1) in any direction, tiles before empty places | 0 |
| 70, 71 | pips + 1 at the left and right end, 0 on an empty table | 0 |

Labels 0 to 2 are (A + 1, B + 1, end): the tile as it will lie, that is, B touches the left end or A
the right end; the first tile has A ≤ B. The end is 1 left, 2 right, 3 first tile. The other labels
are 0, which is ignored. The layout is that of the fork github.com/GS-JAL/HRM (`domino_dataset.md`).
"""

from __future__ import annotations

import itertools

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.domino.game import HAND_SIZE, Move, Position, Tile, legal_moves

SEQ_LEN = 72
VOCAB_SIZE = 8
TABLE = slice(0, 56)
HAND = slice(56, 70)
LEFT_END, RIGHT_END = 70, 71


def encode(position: Position) -> Array:
    """A position as tokens, uint8 [72].

    A hand of more than seven tiles (after drawing) has no true encoding: the tokens then show the
    seven that come first among tiles that fit before tiles that do not, heavier ones first, so
    that the best move is always among them. Data sets have no such positions.
    """
    hand = position.hand
    if len(hand) > HAND_SIZE:
        fits = {move.tile for move in legal_moves(position)}
        ranks = {tile: (tile in fits, sum(tile), max(tile)) for tile in hand}
        hand = tuple(sorted(hand, key=ranks.__getitem__, reverse=True)[:HAND_SIZE])
    tokens = np.zeros(SEQ_LEN, np.uint8)
    if position.table:
        halves = np.array(position.table, np.uint8).reshape(-1) + 1
        tokens[: len(halves)] = halves
        tokens[LEFT_END], tokens[RIGHT_END] = halves[0], halves[-1]
    if hand:
        tokens[HAND.start : HAND.start + 2 * len(hand)] = np.array(hand, np.uint8).reshape(-1) + 1
    return tokens


def decode(tokens: Array) -> Position:
    """The position that `encode` makes these tokens [72] of; DataError if there is none."""
    tokens = np.asarray(tokens)
    if tokens.shape != (SEQ_LEN,) or tokens.dtype.kind not in "iu":
        raise DataError(f"tokens are {tokens.dtype} {tokens.shape}, expected integers [{SEQ_LEN}]")
    if tokens.min() < 0 or tokens.max() >= VOCAB_SIZE:
        raise DataError(f"tokens run from {tokens.min()} to {tokens.max()}, expected 0 to 7")
    table = _tiles(tokens[TABLE], "table")
    hand = _tiles(tokens[HAND], "hand")
    ends = (int(tokens[LEFT_END]) - 1, int(tokens[RIGHT_END]) - 1)
    if ends != ((table[0][0], table[-1][1]) if table else (-1, -1)):
        raise DataError(f"ends {ends} are not those of the table {table}")
    return check(Position(table, hand))


def check(position: Position) -> Position:
    """The position; DataError if neighbours do not match, or a tile stands twice."""
    if any(left[1] != right[0] for left, right in itertools.pairwise(position.table)):
        raise DataError(f"table {position.table}: neighbours do not match")
    tiles = [tuple(sorted(tile)) for tile in (*position.table, *position.hand)]
    for tile in tiles:
        if tiles.count(tile) > 1:
            raise DataError(f"{position}: the tile {tile[0]}|{tile[1]} stands twice")
    return position


def encode_move(move: Move) -> Array:
    """A move as labels, uint8 [72]."""
    labels = np.zeros(SEQ_LEN, np.uint8)
    labels[:3] = (move.a + 1, move.b + 1, move.end)
    return labels


def decode_move(prediction: Array, position: Position) -> Move | None:
    """The legal move that a prediction [72] (or [3]) shows, None if it shows none.

    The tile may be written in either direction: the end says how it will lie.
    """
    a, b, end = (int(token) for token in prediction[:3])
    for move in legal_moves(position):
        if move.end == end and {move.a + 1, move.b + 1} == {a, b}:
            return move
    return None


def _tiles(tokens: Array, name: str) -> tuple[Tile, ...]:
    pairs = tokens.reshape(-1, 2)
    count = int((pairs > 0).any(1).sum())
    if (pairs[:count] == 0).any():
        raise DataError(f"{name}: half a tile, or an empty place before a tile: {tokens.tolist()}")
    return tuple((int(a) - 1, int(b) - 1) for a, b in pairs[:count])

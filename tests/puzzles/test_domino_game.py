"""The rules of dominoes, and positions as tokens."""

import itertools
from collections import deque
from random import Random

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.domino.encoding import decode, decode_move, encode, encode_move
from hrm_jax.puzzles.domino.game import (
    FIRST,
    LEFT,
    RIGHT,
    TILES,
    Game,
    Move,
    Position,
    best_move,
    legal_moves,
)


def fits(tile, position):
    """Every way to lay a tile, tried out on the table."""
    found = set()
    for a, b in {tile, tile[::-1]}:
        if not position.table:
            found.add(Move(*sorted(tile), FIRST))
        else:
            if b == position.table[0][0]:
                found.add(Move(a, b, LEFT))
            if a == position.table[-1][1]:
                found.add(Move(a, b, RIGHT))
    return found


@pytest.mark.parametrize("drawing", [True, False])
@pytest.mark.parametrize("players", [2, 3, 4])
def test_games_keep_the_rules(players, drawing):
    ends = {"domino": 0, "block": 0}
    most = 0
    for seed in range(60):
        random = Random(seed)
        game = Game(players, random, drawing=drawing)
        laid = set()
        assert [len(hand) for hand in game.hands] == [7] * players
        while not game.over:
            position = game.position()
            moves = legal_moves(position)
            assert moves
            assert set(moves) == set().union(*(fits(tile, position) for tile in position.hand))
            most = max(most, len(position.hand))
            laid.add(game.turn)
            game.play(random.choice(moves))
            table = list(game.table)
            everything = [*table, *game.boneyard, *(tile for hand in game.hands for tile in hand)]
            assert sorted(tuple(sorted(tile)) for tile in everything) == sorted(TILES)
            assert all(x[1] == y[0] for x, y in itertools.pairwise(table))
        assert len(laid) == players or len(table) < 8
        ends["block" if game.blocked else "domino"] += 1
        if game.blocked:
            sides = {game.table[0][0], game.table[-1][1]}
            held = [tile for hand in game.hands for tile in hand]
            assert not any(sides & set(tile) for tile in held)
            assert not (drawing and game.boneyard)
            least = min(game.pips())
            tied = game.pips().count(least) > 1
            assert game.winner() == (None if tied else game.pips().index(least))
        else:
            assert game.hands[game.winner()] == []
        if not drawing:
            assert len(game.boneyard) == 28 - 7 * players
    assert min(ends.values()) > 0
    assert (most > 7) == (drawing and players < 4)


def test_best_move_is_the_heaviest_that_fits_and_left_goes_first():
    table = ((2, 5), (5, 3))
    assert best_move(Position(table, ((6, 6), (2, 6), (3, 5)))) == Move(6, 2, LEFT)
    assert best_move(Position(table, ((1, 3), (0, 3)))) == Move(3, 1, RIGHT)
    assert best_move(Position(table, ((3, 4), (2, 5)))) == Move(5, 2, LEFT)  # both of seven pips
    assert best_move(Position(table, ((2, 3),))) == Move(3, 2, LEFT)  # one tile, both ends
    assert best_move(Position((), ((4, 4), (5, 3), (2, 6), (0, 1)))) == Move(2, 6, FIRST)
    with pytest.raises(DataError, match="no tile of the hand"):
        best_move(Position(table, ((6, 6),)))


def _game(hands, table, boneyard=(), drawing=True):
    game = Game(len(hands), Random(0), drawing=drawing)
    game.hands = [list(hand) for hand in hands]
    game.boneyard, game.table = list(boneyard), deque(table)
    return game


def test_drawing_goes_on_until_a_tile_fits():
    hands = [[(2, 6), (0, 0)], [(1, 1)]]
    boneyard = [(5, 5), (3, 6), (4, 4), (1, 4)]
    game = _game(hands, [(3, 2)], boneyard)
    game.play(Move(2, 6, RIGHT))
    assert game.turn == 1
    assert game.hands[1] == [(1, 1), (1, 4), (4, 4), (3, 6)]
    assert game.boneyard == [(5, 5)]
    game = _game(hands, [(3, 2)], boneyard, drawing=False)
    game.play(Move(2, 6, RIGHT))
    assert game.over  # neither 0-0 nor 1-1 fits
    assert (game.blocked, game.winner()) == (True, 0)


def test_a_block_with_a_tie_has_no_winner():
    game = _game([[(2, 6), (0, 2)], [(1, 1)]], [(3, 2)], drawing=False)
    game.play(Move(2, 6, RIGHT))
    assert (game.blocked, game.pips(), game.winner()) == (True, [2, 2], None)


def test_game_errors():
    with pytest.raises(DataError, match="players is 5, expected 2 to 4"):
        Game(5, Random(0))
    game = Game(2, Random(0))
    with pytest.raises(DataError, match="not over"):
        game.winner()
    tile = next(tile for tile in TILES if tile not in game.hands[0])
    with pytest.raises(DataError, match="is not legal"):
        game.play(Move(*tile, FIRST))
    game = _game([[(2, 6)], [(1, 1)]], [(3, 2)])
    with pytest.raises(DataError, match="is not legal"):
        game.play(Move(6, 2, RIGHT))
    game.play(Move(2, 6, RIGHT))
    with pytest.raises(DataError, match="is over"):
        game.play(Move(2, 6, RIGHT))


def test_tokens_are_those_of_the_format():
    position = Position(((3, 5), (5, 5)), ((0, 3), (6, 1)))
    tokens = encode(position)
    assert (tokens.dtype, tokens.shape) == (np.uint8, (72,))
    assert tokens[:5].tolist() == [4, 6, 6, 6, 0]
    assert tokens[54:61].tolist() == [0, 0, 1, 4, 7, 2, 0]
    assert tokens[70:].tolist() == [4, 6]
    assert decode(tokens) == position
    labels = encode_move(best_move(position))
    assert labels[:4].tolist() == [1, 4, 1, 0]
    assert not labels[3:].any()
    assert decode_move(labels, position) == Move(0, 3, LEFT)
    turned = np.array([4, 1, LEFT])
    assert decode_move(turned, position) == Move(0, 3, LEFT)
    for nonsense in ([4, 1, RIGHT], [1, 4, FIRST], [7, 2, LEFT], [0, 0, 0], [200, -3, 9]):
        assert decode_move(np.array(nonsense), position) is None


def test_whole_games_survive_encoding_and_decoding():
    random = Random(1)
    for _ in range(20):
        game = Game(3, random)
        while not game.over:
            position = game.position()
            shown = decode(encode(position))
            if len(position.hand) <= 7:
                assert shown == position
            else:
                assert set(shown.hand) < set(position.hand)
            assert best_move(shown) == best_move(position)
            game.play(random.choice(legal_moves(position)))


def test_of_a_long_hand_the_playable_and_then_the_heavy_tiles_are_shown():
    hand = ((6, 6), (5, 6), (4, 6), (3, 6), (5, 5), (4, 5), (0, 1), (0, 2), (0, 3))
    shown = decode(encode(Position(((1, 2),), hand))).hand
    assert shown == ((0, 2), (0, 1), (6, 6), (5, 6), (4, 6), (5, 5), (3, 6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: 0}, "half a tile"),
        ({4: 1, 5: 1, 2: 0, 3: 0}, "an empty place"),
        ({2: 1}, "neighbours do not match"),
        ({70: 1}, "ends"),
        ({71: 0}, "ends"),
        ({56: 4, 57: 6}, "stands twice"),
        ({0: 8}, "expected 0 to 7"),
    ],
)
def test_decode_errors(change, message):
    tokens = encode(Position(((3, 5), (5, 5)), ((0, 3), (6, 1))))
    for place, value in change.items():
        tokens[place] = value
    with pytest.raises(DataError, match=message):
        decode(tokens)
    with pytest.raises(DataError, match=r"expected integers \[72\]"):
        decode(tokens[:-1])

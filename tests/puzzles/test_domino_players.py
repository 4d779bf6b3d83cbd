"""Players of dominoes and tournaments between them."""

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.domino.encoding import decode, encode_move
from hrm_jax.puzzles.domino.game import best_move
from hrm_jax.puzzles.domino.players import (
    GreedyPlayer,
    ModelPlayer,
    RandomPlayer,
    tournament,
    wilson,
)


def perfect(tokens):
    """A model that has learnt the labels, and nothing of rows that are fillers."""
    return np.stack([encode_move(best_move(decode(x))) if x.any() else x for x in tokens])


def test_greedy_beats_random():
    result = tournament([GreedyPlayer(), RandomPlayer()], 2000, drawing=False)
    greedy, random = result.players
    assert greedy.low > random.high
    assert greedy.low < greedy.win_rate == greedy.wins / 2000 < greedy.high
    assert greedy.wins + random.wins + result.ties == 2000
    assert 0 < result.ties < result.blocked < 2000
    assert greedy.illegal == random.illegal == 0


def test_equal_players_win_alike_because_seats_rotate():
    result = tournament([RandomPlayer(seed, str(seed)) for seed in range(4)], 2000)
    for player in result.players:
        assert player.low < 0.25 < player.high + 0.03
        assert abs(player.win_rate - 0.24) < 0.04
        assert player.points > 0


def test_a_tournament_is_a_function_of_its_seeds():
    def play(seed, lockstep=1024):
        players = [GreedyPlayer("a"), GreedyPlayer("b"), GreedyPlayer("c")]
        return tournament(players, 50, seed=seed, lockstep=lockstep)

    assert play(0) == play(0) == play(0, lockstep=7)
    assert play(0) != play(1)


def test_a_model_that_knows_the_labels_plays_like_greedy_in_few_batches():
    shapes = []

    def solve(tokens):
        shapes.append((tokens.dtype, tokens.shape))
        return perfect(tokens)

    model = ModelPlayer(solve, batch_size=128)
    got = tournament([model, GreedyPlayer("other")], 100)
    want = tournament([GreedyPlayer("model"), GreedyPlayer("other")], 100)
    assert got == want
    assert got.players[0].moves > 500
    assert len(shapes) < 60
    assert set(shapes) == {(np.dtype(np.uint8), (128, 72))}


def test_batches_of_one_size():
    shapes = set()

    def solve(tokens):
        shapes.add(tokens.shape)
        return np.concatenate([perfect(tokens[:1]), np.zeros((len(tokens) - 1, 72), int)])

    model = ModelPlayer(solve, batch_size=16)
    result = tournament([model, RandomPlayer()], 40)
    assert shapes == {(16, 72)}
    assert 0 < result.players[0].illegal == model.illegal < result.players[0].moves
    assert model.choose([]) == []


@pytest.mark.parametrize("token", [0, 7, -1, 1000])
def test_illegal_predictions_fall_back_to_random_moves_and_are_counted(token):
    model = ModelPlayer(lambda tokens: np.full(tokens.shape, token), seed=3)
    result = tournament([RandomPlayer(), model], 30)
    assert result.players[1].illegal == result.players[1].moves == model.illegal
    again = tournament([RandomPlayer(), model], 30)
    assert again.players[1].illegal == again.players[1].moves  # of this tournament alone


def test_errors():
    player = RandomPlayer()
    with pytest.raises(DataError, match="1 players"):
        tournament([player])
    with pytest.raises(DataError, match="2 to 4 different"):
        tournament([player, player])
    with pytest.raises(DataError, match="games is 0"):
        tournament([player, GreedyPlayer()], 0)
    with pytest.raises(DataError, match="batch_size is 0"):
        ModelPlayer(perfect, batch_size=0)
    with pytest.raises(DataError, match=r"solve returned \(72,\), expected"):
        tournament([player, ModelPlayer(lambda tokens: tokens[0])], 2)


def test_wilson_interval():
    assert wilson(50, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.16113), abs=1e-5)
    assert wilson(20, 20)[1] == 1.0

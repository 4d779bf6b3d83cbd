"""The domino table: a person against players, and how strong a model plays."""

import functools
import io
import json
import re

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.console import Console, Leave, converse
from hrm_jax.puzzles.domino.encoding import decode, encode_move
from hrm_jax.puzzles.domino.game import TILES, Move, best_move
from hrm_jax.puzzles.domino.players import GreedyPlayer, RandomPlayer, strength
from hrm_jax.puzzles.domino.table import Table, play_domino


def _console(*lines):
    return Console(io.StringIO("".join(f"{line}\n" for line in lines)), io.StringIO())


def _perfect(tokens):
    """A model that has learnt the labels, and nothing of what is no position."""
    return np.stack([encode_move(best_move(decode(x))) if x.any() else x for x in tokens])


def _clueless(tokens):
    return np.stack([encode_move(Move(0, 0, 7))] * len(tokens))


class _Typist(io.StringIO):
    """Reads what the game has written and types the first move that fits."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def readline(self):
        text = self.output.getvalue().rstrip("> ")
        if text.endswith("left or right?"):
            return "right\n"
        last = text.splitlines()[-1]
        if last.startswith("Yours:"):
            return re.search(r"(\d+)\) \d-\d\*", last)[1] + "\n"
        passes = last in ("The boneyard is empty.", "You may not draw.")
        return "pass\n" if passes else "draw\n"


@pytest.mark.parametrize("drawing", [True, False])
@pytest.mark.parametrize("players", [2, 3, 4])
def test_a_game_is_played_to_its_end(players, drawing):
    words = set()
    for seed in range(8):
        output = io.StringIO()
        others = [GreedyPlayer(), RandomPlayer(seed), RandomPlayer(seed + 1)][: players - 1]
        game = play_domino(Console(_Typist(output), output), others, drawing=drawing, seed=seed)
        text = output.getvalue()
        assert game.over
        laid = len(re.findall(r" lays? \d\|\d ", text))
        assert laid == len(game.table)
        assert laid + sum(map(len, game.hands)) + len(game.boneyard) == len(TILES)
        # The person ends with the tiles first shown and those drawn since, less those laid.
        shown = text.partition("Yours: ")[2]
        if shown:
            left = re.findall(r"\d-\d", shown.splitlines()[0])
            left += re.findall(r"You draw (\d-\d)", shown)
            for a, b in re.findall(r"You lay (\d)\|(\d)", shown):
                left.remove(f"{a}-{b}" if f"{a}-{b}" in left else f"{b}-{a}")
            final = re.search(r"  you +(\d+) pips   (.*)", text)
            assert sorted(re.findall(r"\d-\d", final[2])) == sorted(left)
            assert int(final[1]) == sum(int(pip) for tile in left for pip in tile.split("-"))
        assert "not possible" not in text
        winner = game.winner()
        assert ("Nobody can lay" in text) == game.blocked
        points = sum(game.pips()) - min(game.pips())
        if winner is None:
            assert "nobody wins" in text
        else:
            assert re.search(rf"wins? and scores? {points}\.", text)
        words |= set(re.findall("draws|passes|You draw|None of your tiles", text))
    if drawing and players < 4:
        assert {"draws", "You draw", "None of your tiles"} <= words
    if not drawing:
        assert {"passes", "None of your tiles"} <= words
        assert not words & {"draws", "You draw"}


def test_illegal_input_is_explained_and_asked_again():
    lines = ["", "hello", "9", "0", "3 up", "3 left right", "draw", "pass", "HELP", "1"]
    console = _console(*lines)
    with pytest.raises(Leave):
        play_domino(console, [RandomPlayer()], seed=_seed_where_i_open())
    text = console.output.getvalue()
    assert "You open." in text
    assert text.count("expected the number of a tile") == 4
    assert "There is no tile 9: yours are 1 to 7." in text
    assert "There is no tile 0" in text
    assert text.count("so you have to lay one") == 2
    assert "pass       when none fits" in text
    assert re.search(r"You lay \d\|\d first\.", text)


def _seed_where_i_open():
    for seed in range(50):
        console = _console()
        with pytest.raises(Leave):
            play_domino(console, [RandomPlayer()], seed=seed)
        if "You open." in console.output.getvalue():
            return seed
    raise AssertionError("nobody opens")


def test_the_end_is_asked_for_where_both_would_do():
    """Over many deals: a tile that fits both ends, one that fits the other, one that fits none."""
    seen = set()
    for seed in range(60):
        console = _console("1 left", "2 left", "3 left", "4 right", "5", "6", "7", "up", "l")
        with pytest.raises(Leave):
            play_domino(console, [GreedyPlayer("fixed")], seed=seed)
        seen |= set(
            re.findall(
                "does not fit the left end|does not fit either end|At which end|expected left or|"
                "You lay .* at the left end",
                re.sub(r"\d\|\d", "x", console.output.getvalue()),
            )
        )
    assert seen == {
        "does not fit the left end",
        "does not fit either end",
        "At which end",
        "expected left or",
        "You lay x at the left end",
    }


def test_a_random_move_of_the_model_is_owned_up_to():
    output = io.StringIO()
    Table(players=3).play(Console(_Typist(output), output), _clueless, seed=1)
    text = output.getvalue()
    assert text.count("is not legal, so this is a random move") == len(re.findall(" lays ", text))
    assert "The model 2 player lays" in text


@pytest.mark.parametrize("number", [0, 4])
def test_there_are_two_to_four_players(number):
    with pytest.raises(DataError, match="expected 2 to 4"):
        play_domino(_console(), [RandomPlayer() for _ in range(number)])


def test_leaving_is_polite():
    for console in (_console("quit"), _console()):
        converse(console, functools.partial(play_domino, console, [GreedyPlayer()]))
        assert console.output.getvalue().endswith("\nBye.\n")

    class _Interrupted(io.StringIO):
        def readline(self):
            raise KeyboardInterrupt

    console = Console(_Interrupted(), io.StringIO())
    converse(console, functools.partial(play_domino, console, [GreedyPlayer()]))
    assert console.output.getvalue().endswith("\nBye.\n")


# --- playing strength -----------------------------------------------------------------------------


def test_strength():
    matches = list(strength(_perfect, games=6, drawing=[False], seed=1))
    assert [(m.player, m.opponent, m.drawing) for m in matches] == [
        ("model", "random", False),
        ("model", "greedy", False),
        ("greedy", "random", False),
    ]
    for match in matches:
        result = match.result
        assert sum(player.wins for player in result.players) + result.ties == result.games == 6
        assert result.players[0].low <= result.players[0].win_rate <= result.players[0].high
        assert result.players[0].illegal == 0
    assert matches[0].result.players[0].wins == matches[2].result.players[0].wins
    three = list(strength(_clueless, games=3, opponents=("random",), players=3, drawing=[True]))
    assert [player.name for player in three[0].result.players] == ["model", "random", "random"]
    assert three[0].result.players[0].illegal == three[0].result.players[0].moves
    assert list(strength(_perfect, games=6, drawing=[False], seed=1)) == matches


def test_strength_is_told_and_kept(tmp_path):
    console = _console()
    path = tmp_path / "strength.json"
    table = Table(games=5, passing=True, opponents=("greedy",), output=str(path))
    table.play(console, _perfect, None)
    title, *rows, legend, found = console.output.getvalue().splitlines()
    assert title.split()[:3] == ["player", "against", "rule"]
    assert json.loads(found) == json.loads(path.read_text())
    assert "scores, gives" in legend
    model = json.loads(found)["matches"][0]["result"]["players"][0]
    assert re.match(rf"model +greedy +passing +5 +{model['win_rate']:.1%} +", rows[0])
    assert [row.split()[:3] for row in rows] == [
        ["model", "greedy", "passing"],
        ["greedy", "random", "passing"],
    ]
    both = _console()
    Table(games=1).play(both, _perfect, 0)
    assert len(re.findall(" drawing | passing ", both.output.getvalue())) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"players": 5}, "--players: expected 2 to 4, got 5"),
        ({"games": 0}, "--games: expected at least 1, got 0"),
        ({"drawing": True, "passing": True}, "give one of them"),
        ({"opponents": ("best",)}, "'best': expected some of random, greedy"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(DataError, match=message):
        Table(**options)

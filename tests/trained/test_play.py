"""A person at a terminal: dominoes against players, Sudokus and mazes that are watched."""

import functools
import io
import re
from random import Random

import jax
import numpy as np
import pytest

import hrm_jax
from hrm_jax.data.errors import DataError
from hrm_jax.models import puzzle_models
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.puzzles.domino.encoding import encode_move
from hrm_jax.puzzles.domino.game import TILES, Move, Position, best_move
from hrm_jax.puzzles.domino.players import GreedyPlayer, ModelPlayer, RandomPlayer
from hrm_jax.puzzles.drawing.traces import trace_frames
from hrm_jax.puzzles.maze.board import MazeShape
from hrm_jax.puzzles.maze.board import parse as parse_maze
from hrm_jax.puzzles.painters import PAINTERS
from hrm_jax.puzzles.sudoku.board import parse as parse_sudoku
from hrm_jax.puzzles.sudoku.board import to_tokens
from hrm_jax.tasks.puzzles.model import PuzzleModel, Solution
from hrm_jax.trained.play import Console, Leave, converse, play_domino
from hrm_jax.trained.strength import model_player, strength
from hrm_jax.trained.watch import Boards, held_out_puzzle, read_board, watch, watch_puzzles

PUZZLE = "1...........2..."


def _console(*lines, ansi=False):
    return Console(io.StringIO("".join(f"{line}\n" for line in lines)), io.StringIO(), ansi)


def _fresh(seq_len, vocab_size):
    """An untrained model."""
    config = HRMConfig(
        seq_len=seq_len, vocab_size=vocab_size, num_puzzle_identifiers=1, hidden_size=16,
        num_heads=2, H_layers=1, L_layers=1, H_cycles=1, L_cycles=1, expansion=1.0,
        puzzle_emb_ndim=16, halt_max_steps=3, forward_dtype="float32",
    )  # fmt: skip
    return PuzzleModel(config, puzzle_models.init(config, jax.random.key(0)))


@pytest.fixture(scope="module")
def domino_model():
    return _fresh(72, 8)


@pytest.fixture(scope="module")
def maze_model():
    return _fresh(25, 6)


@pytest.fixture(scope="module")
def sudoku_model(trained):
    return hrm_jax.load(trained)


# --- dominoes -------------------------------------------------------------------------------------


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


class _Lays:
    """Opens with the tile that fits most of the person's hand."""

    name = "fixed"

    def choose(self, position):
        return best_move(position)


def test_the_end_is_asked_for_where_both_would_do():
    """Over many deals: a tile that fits both ends, one that fits the other, one that fits none."""
    seen = set()
    for seed in range(60):
        console = _console("1 left", "2 left", "3 left", "4 right", "5", "6", "7", "up", "l")
        with pytest.raises(Leave):
            play_domino(console, [_Lays()], seed=seed)
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
    def solve(tokens):
        return np.stack([encode_move(Move(0, 0, 7))] * len(tokens))

    console = _console()
    output = io.StringIO()
    play_domino(Console(_Typist(output), output), [ModelPlayer(solve), ModelPlayer(solve)], seed=1)
    text = output.getvalue()
    assert text.count("is not legal, so this is a random move") == len(re.findall(" lays ", text))
    assert "The model 2 player lays" in text
    assert console.output.getvalue() == ""


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


def test_strength(domino_model):
    matches = list(strength(domino_model, games=6, drawing=[False], seed=1))
    assert [(m.player, m.opponent, m.drawing) for m in matches] == [
        ("model", "random", False),
        ("model", "greedy", False),
        ("greedy", "random", False),
    ]
    for match in matches:
        result = match.result
        assert sum(player.wins for player in result.players) + result.ties == result.games == 6
        assert result.players[0].low <= result.players[0].win_rate <= result.players[0].high
    assert matches[2].result.players[0].illegal == 0
    three = list(strength(domino_model, games=3, opponents=("random",), players=3, drawing=[True]))
    assert [player.name for player in three[0].result.players] == ["model", "random", "random"]
    again = list(strength(domino_model, games=6, drawing=[False], seed=1))
    assert again == matches


def test_the_player_lays_what_the_model_answers(domino_model):
    position = Position(((6, 4), (4, 2)), ((2, 5), (6, 1), (0, 0)))
    player = model_player(domino_model, batch_size=2)
    solved = []
    real = player._solve
    player._solve = lambda tokens: solved.append((tokens, real(tokens))) or solved[-1][1]
    assert player.choose(position).tile in {(2, 5), (1, 6)}
    (tokens, answers), = solved  # fmt: skip
    expected = [solution.tokens for solution in domino_model.solve_tokens(tokens)]
    np.testing.assert_array_equal(answers, expected)


def test_strength_errors(domino_model, maze_model):
    with pytest.raises(ValueError, match="opponent 'best': expected one of random, greedy"):
        strength(domino_model, opponents=["best"])
    with pytest.raises(ValueError, match="a model of maze puzzles plays no dominoes"):
        strength(maze_model)


# --- Sudoku and mazes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        [PUZZLE],
        ["1...", "....", "....", "2..."],
        ["1 0 | . .", "", "--+--", "0000", "....", "2000"],
        ["1...", "12345", "x...", "CLEAR", "help", "1...", "....", "....", "2..."],
        ["11..............", PUZZLE],
    ],
)
def test_a_sudoku_is_read(lines, sudoku_model):
    console = _console(*lines)
    assert read_board(console, Boards.of(sudoku_model), lambda: "none") == PUZZLE


def test_what_is_wrong_with_a_sudoku_is_said(sudoku_model):
    console = _console("x...", "12343", "11..............", "help")
    with pytest.raises(Leave):
        read_board(console, Boards.of(sudoku_model), lambda: "none")
    text = console.output.getvalue()
    assert "'x' does not belong there; expected a 4×4 Sudoku (. for a blank)" in text
    assert "5 cells; expected 4 for a row, or 16 for the board" in text
    assert "That is no puzzle: digit 1 stands twice in row 1" in text
    assert "Type or paste a 4×4 Sudoku" in text


def test_a_maze_is_read(maze_model):
    boards = Boards.of(maze_model)
    expected = "S    #### " + " " * 10 + "G    "
    for lines in (["S....", "####.", "     ", ".....", "G...."], [expected]):
        assert read_board(_console(*lines), boards, lambda: "none") == expected
    walled = "S    #####" + " " * 10 + "G    "
    console = _console(walled, "S....", "o....", "example")
    assert read_board(console, boards, lambda: expected) == expected
    text = console.output.getvalue()
    assert "there is no way from S to G" in text
    assert "'o' does not belong there" in text
    assert "> S    \n#### \n" in text
    console = _console("S" + " " * 24)
    with pytest.raises(Leave):
        read_board(console, boards, lambda: "none")
    assert "there is no G" in console.output.getvalue()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Soooo####o     " + "     G    ", "What it marks is no path"),
        ("Soooo####ooooooo    G    ", "A path of 12 moves, and none is shorter."),
        ("Soooo####oooo oo o oG ooo", "A path of 16 moves; the shortest has 12."),
    ],
)
def test_verdict_on_a_maze(answer, said, maze_model):
    question = "S    #### " + " " * 10 + "G    "
    tokens = parse_maze(answer, MazeShape(5, 5))
    solution = Solution(tokens, 1, 0.0, np.zeros((0, 25), np.uint8))
    assert said in Boards.of(maze_model).verdict(question, solution)


def test_puzzles_are_watched(sudoku_model, maze_model, trained):
    def frames(question, boards):
        return trace_frames(PAINTERS["sudoku"], to_tokens(parse_sudoku(question)), boards)

    console = _console(PUZZLE, "example", "quit")
    with pytest.raises(Leave):
        watch_puzzles(
            console, sudoku_model, frames,
            lambda: held_out_puzzle(trained, sudoku_model, Random(0)),
            legend="the legend", halting="fixed", max_steps=3,
        )  # fmt: skip
    text = console.output.getvalue()
    for step in (1, 2, 3):
        assert text.count(f"ACT step {step}/3") == 2
    assert text.count("the legend\nAfter 3 ACT steps: The board ") == 2
    maze = "S    #### " + " " * 10 + "G    "
    console = _console(maze)
    with pytest.raises(Leave):
        watch_puzzles(
            console, maze_model,
            lambda text, boards: trace_frames(PAINTERS["maze"], parse_maze(text), boards),
            lambda: maze, max_steps=1,
        )  # fmt: skip
    assert "ACT step 1/1" in console.output.getvalue()
    assert "After 1 ACT step: What it marks is no path" in console.output.getvalue()


def test_on_a_terminal_each_board_takes_the_place_of_the_one_before():
    console = _console(ansi=True)
    watch(console, ["a\nb", "c\nd", "e\nf"])
    assert console.output.getvalue() == "a\nb\n\x1b[2Fc\nd\n\x1b[2Fe\nf\n"
    console = _console()
    watch(console, ["a\nb", "c\nd"])
    assert console.output.getvalue() == "a\nb\n\nc\nd\n\n"


def test_other_puzzles_cannot_be_typed(domino_model):
    with pytest.raises(ValueError, match="expected a run on Sudoku, mazes or dominoes"):
        Boards.of(domino_model)

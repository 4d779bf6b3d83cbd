"""Plays with a model: python launch/play.py --workdir=runs/domino (or runs/sudoku, runs/maze).

Dominoes are played against it; with --games it plays by itself, and how strong it is, is measured.
Sudokus and mazes are typed, and the board is shown after each ACT step.
"""

import argparse
import dataclasses
import functools
import json
import random
import sys

import hrm_jax
from hrm_jax.files import write_json
from hrm_jax.puzzles.domino.players import Player
from hrm_jax.puzzles.drawing.traces import trace_frames
from hrm_jax.puzzles.maze import board as maze
from hrm_jax.puzzles.painters import PAINTERS
from hrm_jax.puzzles.sudoku import board as sudoku
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.trained.play import Console, converse, play_domino
from hrm_jax.trained.strength import OPPONENTS, Match, model_player, strength
from hrm_jax.trained.watch import held_out_puzzle, watch_puzzles
from hrm_jax.training.checkpoints import CheckpointError

_COLUMNS = "{:8} {:8} {:8} {:>6} {:>6} {:>16} {:>6} {:>6} {:>7} {:>7} {:>7}"

_TITLES = (
    *("player", "against", "rule", "games", "wins", "95% interval", "loses", "ties"),
    *("scores", "gives", "legal"),
)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in OPPONENTS:
            raise argparse.ArgumentTypeError(f"{name!r}: expected some of {', '.join(OPPONENTS)}")
    return names


def _row(match: Match) -> str:
    result, player = match.result, match.result.players[0]
    others = result.players[1:]
    legal = 1 - player.illegal / player.moves if player.moves else 1.0
    return _COLUMNS.format(
        match.player,
        match.opponent,
        "drawing" if match.drawing else "passing",
        result.games,
        f"{player.win_rate:.1%}",
        f"{player.low:.1%} to {player.high:.1%}",
        f"{sum(other.wins for other in others) / result.games:.1%}",
        f"{result.ties / result.games:.1%}",
        f"{player.points / result.games:.1f}",
        f"{sum(other.points for other in others) / result.games:.1f}",
        f"{legal:.1%}",
    )


def _measure(model: PuzzleModel, args: argparse.Namespace) -> None:
    matches = strength(
        model,
        args.games,
        opponents=args.opponents or tuple(OPPONENTS),
        players=args.players or 2,
        drawing=[True, False] if args.drawing is None else [args.drawing],
        seed=args.seed or 0,
    )
    print(_COLUMNS.format(*_TITLES))
    rows = []
    for match in matches:
        print(_row(match), flush=True)
        rows.append(dataclasses.asdict(match))
    print(
        "scores, gives: points a game for its wins and for those of the others; legal: moves for "
        "which it predicted a legal one\n" + json.dumps({"matches": rows})
    )
    if args.output:
        write_json(args.output, {"matches": rows})


def _play(model: PuzzleModel, args: argparse.Namespace, console: Console) -> None:
    seed = random.randrange(2**31) if args.seed is None else args.seed
    others: list[Player] = [OPPONENTS[name](seed) for name in args.opponents or []]
    players = args.players or len(others) + 2
    if players < len(others) + 2:
        raise ValueError(
            f"--players={players}: you, the model and {len(others)} opponents are {len(others) + 2}"
        )
    models = [model_player(model, seed=seed + seat) for seat in range(players - 1 - len(others))]
    drawing = args.drawing is not False
    talk = functools.partial(play_domino, console, [*models, *others], drawing=drawing, seed=seed)
    converse(console, talk)


def _watch(model: PuzzleModel, args: argparse.Namespace, console: Console) -> None:
    draws = random.Random(args.seed)
    painter = PAINTERS.get(model.puzzle or "", PAINTERS["sudoku"])

    def frames(text: str, boards: sudoku.Array) -> list[str]:
        is_maze = model.puzzle == "maze"
        question = maze.parse(text) if is_maze else sudoku.to_tokens(sudoku.parse(text))
        return trace_frames(painter, question, boards, colour=console.ansi)

    talk = functools.partial(
        watch_puzzles,
        console,
        model,
        frames,
        lambda: held_out_puzzle(args.workdir, model, draws),
        legend=painter.marks(console.ansi),
        delay=args.delay if console.ansi else 0.0,
        max_steps=args.max_steps,
        halting=args.halting,
    )
    converse(console, talk)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--checkpoint", default="last", help="last, best or a step")
    parser.add_argument("--max_steps", type=int, help="most ACT steps; may exceed that of training")
    parser.add_argument(
        "--halting", choices=("q", "fixed"), default="q", help="of Sudoku and mazes"
    )
    parser.add_argument("--delay", type=float, default=0.5, help="seconds between boards")
    parser.add_argument(
        "--seed", type=int, help="of deals and examples; default: another each time"
    )
    domino = parser.add_argument_group("dominoes")
    domino.add_argument("--players", type=int, choices=(2, 3, 4), help="at the table")
    domino.add_argument(
        "--opponents", type=_names, help="some of random,greedy: more players beside the model"
    )
    rule = domino.add_mutually_exclusive_group()
    rule.add_argument("--drawing", action="store_true", default=None, help="the default")
    rule.add_argument("--passing", dest="drawing", action="store_false")
    domino.add_argument(
        "--games", type=int, help="play so many games against each opponent, without you"
    )
    domino.add_argument("--output", help="JSON file for the results of --games")
    args = parser.parse_args(argv)
    try:
        for name in ("max_steps", "games"):
            if (value := getattr(args, name)) is not None and value < 1:
                raise ValueError(f"--{name}: expected at least 1, got {value}")
        if not 0 <= args.delay <= 60:
            raise ValueError(f"--delay: expected 0 to 60 seconds, got {args.delay}")
        which = args.checkpoint if args.checkpoint in ("last", "best") else int(args.checkpoint)
        model = hrm_jax.load(args.workdir, which)
        model.max_steps = args.max_steps or model.max_steps
        console = Console(sys.stdin, sys.stdout, ansi=sys.stdout.isatty())
        if args.games:
            _measure(model, args)
        elif model.puzzle == "domino":
            _play(model, args, console)
        else:
            _watch(model, args, console)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

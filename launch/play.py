"""Plays with a model: python launch/play.py --workdir=runs/domino (or runs/sudoku, runs/ppo).

Dominoes are played against it; with --games it plays by itself, and how strong it is, is measured.
Sudokus and mazes are typed, and the board is shown after each ACT step. An agent plays an episode,
which is shown step by step, or drawn with --gif=episode.gif.
"""

import argparse
import functools
import random
import sys
import time

import jax
import numpy as np

import hrm_jax
from hrm_jax.flags import add_fields, from_flags
from hrm_jax.paths import expanded
from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.console import Console, converse
from hrm_jax.rl.film import write_gif
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.tasks.rl.policy import Policy
from hrm_jax.trained.watch import held_out_puzzle, watch_puzzles
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import checkpoint


def _play(model: PuzzleModel, game: type, args: argparse.Namespace, console: Console) -> None:
    def solve(tokens: np.ndarray) -> np.ndarray:
        answers = model.answers(tokens, max_steps=model.max_steps, halting=args.halting)
        return np.asarray(answers.predictions)

    from_flags(game, args).play(console, solve, args.seed)


def _watch(model: PuzzleModel, args: argparse.Namespace, console: Console) -> None:
    draws = random.Random(args.seed)
    talk = functools.partial(
        watch_puzzles,
        console,
        model,
        lambda: held_out_puzzle(args.workdir, model, draws),
        delay=args.delay if console.ansi else 0.0,
        max_steps=args.max_steps,
        halting=args.halting,
    )
    converse(console, talk)


def _watch_agent(policy: Policy, args: argparse.Namespace, console: Console) -> None:
    seed = random.Random(args.seed).randrange(2**31)
    most = args.max_steps or 1000
    if args.gif:
        if not args.gif.endswith(".gif"):
            raise ValueError(f"--gif={args.gif}: expected a name ending in .gif")
        if not write_gif(args.gif, policy, seed, most):
            raise ValueError(f"{policy.environment.name} has no pictures; leave --gif out")
        print(f"Drawn: {args.gif}")
        return
    total = 0.0
    for number, moment in enumerate(policy.watch(seed, most)):
        text = policy.environment.text(jax.tree.map(np.asarray, moment.state))
        if number and console.ansi:
            print(f"\x1b[{len(text.splitlines()) + 1}F", end="")
        total += moment.reward
        print(
            f"step {number}, return {total:.1f}\x1b[K\n{text}"
            if console.ansi
            else f"step {number}, return {total:.1f}\n{text}"
        )
        if console.ansi:
            time.sleep(args.delay / 10)
    print(f"{number} steps, return {total:.1f}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=expanded, required=True)
    parser.add_argument(
        "--checkpoint", type=checkpoint, default="last", help="last, best or a step"
    )
    parser.add_argument("--max_steps", type=int, help="most ACT steps; may exceed that of training")
    parser.add_argument("--halting", choices=("q", "fixed"), default="q")
    parser.add_argument("--delay", type=float, default=0.5, help="seconds between boards")
    parser.add_argument(
        "--seed", type=int, help="of deals and examples; default: another each time"
    )
    parser.add_argument("--gif", type=expanded, help="file to draw an agent's episode into")
    games = {puzzle.game for puzzle in PUZZLES.values() if puzzle.game}
    for name, puzzle in PUZZLES.items():
        if puzzle.game:
            add_fields(parser.add_argument_group(name), puzzle.game)
    args = parser.parse_args(argv)
    try:
        if args.max_steps is not None and args.max_steps < 1:
            raise ValueError(f"--max_steps: expected at least 1, got {args.max_steps}")
        if not 0 <= args.delay <= 60:
            raise ValueError(f"--delay: expected 0 to 60 seconds, got {args.delay}")
        model = hrm_jax.load(args.workdir, args.checkpoint)
        console = Console(sys.stdin, sys.stdout, ansi=sys.stdout.isatty())
        if isinstance(model, Policy):
            _watch_agent(model, args, console)
            return 0
        if args.gif:
            raise ValueError("--gif: for agents only")
        model.max_steps = args.max_steps or model.max_steps
        puzzle = model.known()
        for other in games - {puzzle.game}:
            if from_flags(other, args) != other():
                raise ValueError(f"{puzzle.name} puzzles have no such game")
        if puzzle.game:
            _play(model, puzzle.game, args, console)
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

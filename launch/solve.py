r"""Solves puzzles of any run: python launch/solve.py --workdir=runs/sudoku "53..7...." | file | -.

One puzzle a line, as text: a Sudoku (. or 0 is a blank), a maze of `# SG` with its rows joined
(blanks are cells, at both ends too), or a domino position, "table 2|5 5|3; hand 2|3 0|2".
"""

import argparse
import os
import pathlib
import sys

import hrm_jax
from hrm_jax.paths import expanded
from hrm_jax.puzzles.drawing.traces import trace_gif, trace_png, trace_text
from hrm_jax.tasks.puzzles.model import PuzzleModel, Solution
from hrm_jax.trained.load import load_last
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import checkpoint


def _read(source: str) -> list[str]:
    """Puzzles from a file, from stdin, or the argument itself; one a line, its blanks kept."""
    if source == "-":
        lines = sys.stdin.read().splitlines()
    elif os.path.isfile(source):  # unlike pathlib's, it takes names that are too long for files
        lines = pathlib.Path(source).read_text(encoding="utf-8").splitlines()
    else:
        lines = [source]
    puzzles = [line for line in lines if line.strip()]
    if not puzzles:
        raise ValueError(f"{source}: no puzzles in it; expected one a line")
    return puzzles


def _load(args: argparse.Namespace) -> list[PuzzleModel]:
    """The models that answer: one, or those of the newest checkpoints."""
    if args.last != 1 and args.checkpoint != "last":
        raise ValueError(f"--last={args.last} and --checkpoint={args.checkpoint}: give one of them")
    if args.last != 1:
        return load_last(args.workdir, args.last)
    return [hrm_jax.load(args.workdir, args.checkpoint)]


def _verdict(solution: Solution, votes: int) -> str:
    counts = f"  votes={solution.votes}/{votes}  passes={solution.total_steps}" if votes > 1 else ""
    rules = "satisfies the rules" if solution.valid else "BREAKS the rules"
    return f"{solution.text}  steps={solution.steps}{counts}  {rules}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "puzzle", type=expanded, nargs="?", default="-", help="text, a file, or - for stdin"
    )
    parser.add_argument("--workdir", type=expanded, required=True)
    parser.add_argument(
        "--checkpoint", type=checkpoint, default="last", help="last, best or a step"
    )
    parser.add_argument("--max_steps", type=int, help="most ACT steps; may exceed that of training")
    parser.add_argument("--halting", choices=("q", "fixed"), default="q")
    parser.add_argument(
        "--votes", type=int, default=1, help="answers a puzzle, all but one under symmetries"
    )
    parser.add_argument("--verify", action="store_true", help="count only votes obeying the rules")
    parser.add_argument(
        "--last", type=int, default=1, help="so many of the newest checkpoints vote together"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the symmetries")
    parser.add_argument(
        "--trace",
        type=expanded,
        nargs="?",
        const="",
        help="show the board after each step; with a name ending in .png or .gif, draw it there",
    )
    args = parser.parse_args(argv)
    if args.puzzle == "-" and args.trace and not args.trace.endswith((".png", ".gif")):
        args.puzzle, args.trace = args.trace, ""  # it is the puzzle that follows the flag
    try:
        model, *others = _load(args)
        texts = _read(args.puzzle)
        tracing = args.trace is not None
        if args.trace and not args.trace.endswith((".png", ".gif")):
            raise ValueError(f"--trace={args.trace}: expected a name ending in .png or .gif")
        questions = model.parse(texts)
        solutions = model.solve(
            questions,
            max_steps=args.max_steps,
            halting=args.halting,
            trace=tracing,
            votes=args.votes,
            verify=args.verify,
            others=others,
            seed=args.seed,
        )
        painter = model.known().painter
        for number, (question, solution) in enumerate(zip(questions, solutions, strict=True)):
            print(_verdict(solution, args.votes * args.last))
            if tracing and not args.trace:
                colour = sys.stdout.isatty()
                print(trace_text(painter, question, solution.trace, colour=colour))
            elif tracing:
                path = pathlib.Path(args.trace)
                if len(texts) > 1:
                    path = path.with_stem(f"{path.stem}-{number + 1}")
                draw = trace_gif if path.suffix == ".gif" else trace_png
                draw(path, painter, question, solution.trace)
                print(f"  drawn: {path}")
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if all(solution.valid for solution in solutions) else 1


if __name__ == "__main__":
    sys.exit(main())

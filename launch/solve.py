r"""Solves puzzles of any run: python launch/solve.py --workdir=runs/sudoku "53..7...." | file | -.

One puzzle a line, as text: a Sudoku (. or 0 is a blank), a maze of `# SG` with its rows joined
(blanks are cells, at both ends too), or a domino position, "table 2|5 5|3; hand 2|3 0|2". Boards
may also stand row by row, and a file may have `# comments`, something behind each puzzle (a name,
or `puzzle:rating:solution`) or a CSV header (`question`, `quizzes,solutions`). Lines that are no
puzzle are named, and the others solved.

Exit code 0: all answers satisfy the rules; 1: some do not; 2: an error, or lines are no puzzles.
"""

import argparse
import os
import pathlib
import re
import sys

import numpy as np

import hrm_jax
from hrm_jax.data.errors import reading
from hrm_jax.paths import expanded
from hrm_jax.puzzles.drawing.traces import trace_gif, trace_png, trace_text
from hrm_jax.puzzles.text_files import read_questions, read_text
from hrm_jax.tasks.puzzles.model import PuzzleModel, Solution
from hrm_jax.trained.load import load_last
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import checkpoint

_MOST_ERRORS = 20


def _read(source: str, model: PuzzleModel) -> tuple[list[np.ndarray], list[str]]:
    """Puzzles from a file, from stdin, or the argument itself, and what is wrong with others."""
    if os.path.isdir(source):
        raise ValueError(f"{source}: is a folder, expected a file of puzzles")
    is_file = os.path.isfile(source)  # unlike pathlib's, it takes names that are too long for files
    if source == "-":
        with reading(source, "puzzles as text in UTF-8"):
            text = sys.stdin.read()
    else:
        text = read_text(source) if is_file else source
    puzzles, wrong = read_questions(text, model.known(), model.config.seq_len)
    if not puzzles and not wrong:
        raise ValueError(f"{source}: no puzzles in it; expected one a line")
    if is_file or source == "-" or "\n" in source:
        name = source if is_file else "stdin" if source == "-" else "puzzle"
        return puzzles, [f"{name}:{line}: {why}" for line, why in wrong]
    if os.sep in source or re.search(r"\.[A-Za-z]\w*$", source):
        return puzzles, [
            f"{source}: there is no such file, and as a puzzle: {x.why}" for x in wrong
        ]
    return puzzles, [f"{x.why}; nor is there a file of that name" for x in wrong]


def _load(args: argparse.Namespace) -> list[PuzzleModel]:
    """The models that answer: one, or those of the newest checkpoints."""
    if args.last != 1 and args.checkpoint != "last":
        raise ValueError(f"--last={args.last} and --checkpoint={args.checkpoint}: give one of them")
    if args.last != 1:
        return load_last(args.workdir, args.last)
    return [hrm_jax.load(args.workdir, args.checkpoint)]


def _verdict(solution: Solution, votes: int, search: int) -> str:
    counts = f"  votes={solution.votes}/{votes}" if votes > 1 else ""
    counts += f"  questions={solution.questions}" if search else ""
    counts += f"  passes={solution.total_steps}" if counts else ""
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
        "--votes",
        type=int,
        default=1,
        help="answers a puzzle, all but one under symmetries or from other first states",
    )
    parser.add_argument("--verify", action="store_true", help="count only votes obeying the rules")
    parser.add_argument(
        "--last", type=int, default=1, help="so many of the newest checkpoints vote together"
    )
    parser.add_argument("--seed", type=int, help="seed of the symmetries, default 0")
    parser.add_argument(
        "--search",
        type=int,
        default=0,
        help="guess where the answer breaks the rules, asking so many times at most",
    )
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
        tracing = args.trace is not None
        if args.seed is not None and args.votes == 1:
            raise ValueError(f"--seed={args.seed} has no effect: it draws symmetries, --votes is 1")
        if args.trace and not args.trace.endswith((".png", ".gif")):
            raise ValueError(f"--trace={args.trace}: expected a name ending in .png or .gif")
        questions, wrong = _read(args.puzzle, model)
        for line in wrong[:_MOST_ERRORS]:
            print(f"error: {line}", file=sys.stderr)
        if len(wrong) > _MOST_ERRORS:
            print(f"error: … and {len(wrong) - _MOST_ERRORS} more", file=sys.stderr)
        if not questions:
            return 2
        solutions = model.solve(
            np.stack(questions),
            max_steps=args.max_steps,
            halting=args.halting,
            trace=tracing,
            votes=args.votes,
            verify=args.verify,
            others=others,
            seed=args.seed or 0,
            search=args.search,
        )
        painter = model.known().painter
        for number, (question, solution) in enumerate(zip(questions, solutions, strict=True)):
            print(_verdict(solution, args.votes * args.last, args.search))
            if tracing and not args.trace:
                colour = sys.stdout.isatty()
                print(trace_text(painter, question, solution.trace, colour=colour))
            elif tracing:
                path = pathlib.Path(args.trace)
                if len(questions) > 1:
                    path = path.with_stem(f"{path.stem}-{number + 1}")
                draw = trace_gif if path.suffix == ".gif" else trace_png
                draw(path, painter, question, solution.trace)
                print(f"  drawn: {path}")
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if wrong:
        return 2
    return 0 if all(solution.valid for solution in solutions) else 1


if __name__ == "__main__":
    sys.exit(main())

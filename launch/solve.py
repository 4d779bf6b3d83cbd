"""Solves puzzles: python launch/solve.py --workdir=runs/sudoku "53..7...." | file | - (stdin)."""

import argparse
import pathlib
import sys

import hrm_jax
from hrm_jax.data.sudoku.board import SudokuShape
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.viz.sudoku_boards import trace_gif, trace_png, trace_text


def _read(source: str) -> list[str]:
    """Puzzles from a file, from stdin, or the argument itself; one a line."""
    if source == "-":
        lines = sys.stdin.read().splitlines()
    elif len(source) < 1000 and pathlib.Path(source).is_file():
        lines = pathlib.Path(source).read_text(encoding="utf-8").splitlines()
    else:
        lines = [source]
    puzzles = [line.strip() for line in lines if line.strip()]
    if not puzzles:
        raise ValueError(f"{source}: no puzzles in it; expected one a line")
    return puzzles


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("puzzle", nargs="?", default="-", help="text, a file, or - for stdin")
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--checkpoint", default="last", help="last, best or a step")
    parser.add_argument("--max_steps", type=int, help="most ACT steps; may exceed that of training")
    parser.add_argument("--halting", choices=("q", "fixed"), default="q")
    parser.add_argument(
        "--trace",
        nargs="?",
        const="",
        help="show the board after each step; with a name ending in .png or .gif, draw it there",
    )
    args = parser.parse_args(argv)
    try:
        which = args.checkpoint if args.checkpoint in ("last", "best") else int(args.checkpoint)
        model = hrm_jax.load(args.workdir, which)
        puzzles = _read(args.puzzle)
        tracing = args.trace is not None
        if tracing and args.trace not in ("",) and not args.trace.endswith((".png", ".gif")):
            raise ValueError(f"--trace={args.trace}: expected a name ending in .png or .gif")
        solutions = model.solve(
            puzzles, max_steps=args.max_steps, halting=args.halting, trace=tracing
        )
        for number, (puzzle, solution) in enumerate(zip(puzzles, solutions, strict=True)):
            print(
                f"{solution.text}  steps={solution.steps}  "
                f"{'satisfies the rules' if solution.valid else 'BREAKS the rules'}"
            )
            size = SudokuShape.for_cells(len(puzzle)).size
            if tracing and not args.trace:
                print(trace_text(puzzle, solution.trace_text, size, colour=sys.stdout.isatty()))
            elif tracing:
                path = pathlib.Path(args.trace)
                if len(puzzles) > 1:
                    path = path.with_stem(f"{path.stem}-{number + 1}")
                draw = trace_gif if path.suffix == ".gif" else trace_png
                draw(path, puzzle, solution.trace_text, size)
                print(f"  drawn: {path}")
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if all(solution.valid for solution in solutions) else 1


if __name__ == "__main__":
    sys.exit(main())

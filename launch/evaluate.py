"""Evaluates a trained model: python launch/evaluate.py --workdir=runs/sudoku [--data=test.csv]."""

import argparse
import json
import sys

from hrm_jax.files import write_json
from hrm_jax.paths import expanded
from hrm_jax.trained.evaluate import evaluate
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import checkpoint


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=expanded, required=True)
    parser.add_argument(
        "--data", type=expanded, help="CSV file or data set folder; default: the run's test puzzles"
    )
    parser.add_argument(
        "--checkpoint", type=checkpoint, default="last", help="last, best or a step"
    )
    parser.add_argument("--max_steps", type=int, help="most ACT steps; may exceed that of training")
    parser.add_argument("--halting", choices=("q", "fixed"), help="default: q")
    parser.add_argument("--slots", type=int, help="puzzles that think at a time, default 64")
    parser.add_argument("--limit", type=int, help="only the first so many puzzles")
    parser.add_argument(
        "--output", type=expanded, help="JSON file for the figures, beside the table"
    )
    parser.add_argument(
        "--save_outputs", type=expanded, help=".npz file for inputs, labels, answers, steps, q_halt"
    )
    parser.add_argument("--save_logits", action="store_true", help="and the answers' logits")
    parser.add_argument(
        "--submission", type=expanded, help="JSON file for Kaggle, of an ARC run's answers"
    )
    parser.add_argument(
        "--votes",
        type=int,
        default=1,
        help="answers a puzzle, all but one under symmetries or from other first states",
    )
    parser.add_argument(
        "--verify", action="store_true", help="count only votes that obey the rules, too"
    )
    parser.add_argument(
        "--last", type=int, default=1, help="so many of the newest checkpoints vote together"
    )
    parser.add_argument("--seed", type=int, help="seed of the symmetries, default 0")
    parser.add_argument(
        "--search",
        type=int,
        default=0,
        help="guess where an answer breaks the rules, asking so many times at most",
    )
    args = parser.parse_args(argv)
    options = {k: v for k, v in vars(args).items() if k not in ("workdir", "data", "output")}
    try:
        figures = evaluate(args.workdir, args.data, **options)
        if args.output:
            write_json(args.output, figures)
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, value in figures.items():
        if isinstance(value, list):
            for step, share in enumerate(value, 1):
                print(f"{'  after step ' + str(step):28} {share:10.4f}")
        else:
            print(
                f"{name:28} {value:10.4f}" if isinstance(value, float) else f"{name:28} {value:10}"
            )
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())

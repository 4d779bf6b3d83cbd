"""Makes a page to browse puzzles and a model's steps: launch/view.py --workdir=runs/sudoku."""

import argparse
import sys

from hrm_jax.paths import expanded
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import checkpoint
from hrm_jax.viz.page import KINDS
from hrm_jax.viz.view import WITH_MODEL, write_view


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=expanded, help="a run: shows what its model thinks")
    parser.add_argument(
        "--dataset",
        type=expanded,
        help="data set folder or CSV file; default: the run's own puzzles",
    )
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument(
        "--num", type=int, help=f"the first so many; default {WITH_MODEL}, or all without a run"
    )
    parser.add_argument(
        "--checkpoint", type=checkpoint, default="last", help="last, best or a step"
    )
    parser.add_argument("--max_steps", type=int, help="ACT steps; may exceed that of training")
    parser.add_argument("--halting", choices=("q", "fixed"), default="q")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        help="what the tokens mean; default: guessed from length and vocabulary",
    )
    parser.add_argument("--title", help="heading of the page")
    parser.add_argument("--output", type=expanded, default="view.html")
    args = parser.parse_args(argv)
    try:
        path = write_view(**vars(args)).resolve()
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path)
    print(f"Open it in a browser: {path.as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

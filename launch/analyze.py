"""Tells what a scheduler's run has come to: python launch/analyze.py --workdir=runs/scheduler

Mean, spread and range of each evaluation, the best one, how steady they are, the first half against
the second; and what the policy does by time and by Φ, on a few unseen orders of the text. Draws
plots/analysis.png.
"""

import argparse
import sys

from hrm_jax.paths import expanded
from hrm_jax.trained.analysis import analyze
from hrm_jax.training.checkpoints import CheckpointError


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=expanded, required=True, help="folder of the run")
    parser.add_argument(
        "--orders", type=int, default=4, help="unseen orders to play; 0 for evaluations alone"
    )
    args = parser.parse_args(argv)
    try:
        found = analyze(args.workdir, args.orders)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(found.lines()))
    print(f"Drawn: {args.workdir}/plots/analysis.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

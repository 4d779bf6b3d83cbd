"""Tells how far a run has come: python launch/progress.py --workdir=runs/sudoku [--follow]."""

import argparse
import sys
import time

from hrm_jax.paths import expanded
from hrm_jax.trained.progress import progress


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=expanded, required=True, help="folder of the run")
    parser.add_argument("--metric", default="", help="figure to follow, for instance eval/loss")
    parser.add_argument("--follow", action="store_true", help="tell again until the run is done")
    parser.add_argument("--every", type=float, default=10.0, help="with --follow: seconds between")
    args = parser.parse_args(argv)
    told: list[str] = []
    try:
        if args.every != 10.0 and not args.follow:
            raise ValueError("--every: has no effect without --follow")
        while True:
            found = progress(args.workdir, args.metric)
            lines = found.lines()
            if lines != told:
                print("\n".join(lines), flush=True)
            told = lines
            if found.done or not args.follow:
                return 0
            time.sleep(args.every)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

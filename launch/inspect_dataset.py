"""Shows and checks a data set: `python launch/inspect_dataset.py data/mine --split train --num 3`.

Exit code 0 for a sound data set, 1 if anything is wrong with it, 2 for bad input.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from hrm_jax.data.errors import DataError
from hrm_jax.paths import expanded
from hrm_jax.puzzles.inspect import Inspection, inspect
from hrm_jax.tasks.relational.inspect import KINDS, inspect_worlds


def _print(found: Inspection) -> None:
    sizes = ", ".join(f"{number:,} {name}" for name, number in found.sizes.items())
    print(f"{found.kind or 'puzzles of an unknown kind: only the format is checked'}: {sizes}")
    for name, value in found.metadata.items():
        print(f"  {name:24} {value}")
    for number, text in enumerate(found.examples):
        print(f"\nExample {number}\n{text}")
    print()
    for violation in found.violations:
        print(violation)
    if found.total > len(found.violations):
        print(f"... and {found.total - len(found.violations):,} more; see --max_reports")
    print(f"{found.total:,} violations" if found.total else "No violations.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "dataset",
        type=expanded,
        help=f"data set folder, npy or TFDS; or what is drawn: {', '.join(KINDS)}",
    )
    parser.add_argument("--split", default="train", help="train or test")
    parser.add_argument("--num", type=int, default=3, help="examples to show")
    parser.add_argument("--max_reports", type=int, default=20, help="violations to describe")
    parser.add_argument("--output", help="PNG file for a page of what is drawn")
    args = parser.parse_args(argv)
    options = {"num": args.num, "max_reports": args.max_reports}
    try:
        if args.dataset in KINDS and not pathlib.Path(args.dataset).exists():
            found = inspect_worlds(args.dataset, args.split, output=args.output, **options)
        elif args.output:
            raise DataError(f"--output={args.output}: only what is drawn has such a page")
        else:
            found = inspect(args.dataset, args.split, **options)
    except (DataError, OSError) as error:
        print(f"inspect_dataset: error: {error}", file=sys.stderr)
        return 2
    _print(found)
    return 1 if found.total else 0


if __name__ == "__main__":
    sys.exit(main())

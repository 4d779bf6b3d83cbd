"""Builds a data set folder: `python launch/build_dataset.py maze --output=data/maze10`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from hrm_jax.flags import add_fields, from_flags
from hrm_jax.paths import expanded
from hrm_jax.puzzles import PUZZLES


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="puzzle", required=True)
    for name, puzzle in PUZZLES.items():
        command = commands.add_parser(name, help=puzzle.about)
        command.add_argument("--output", type=expanded, required=True, help="folder to make")
        command.add_argument("--overwrite", action="store_true", help="replace a data set of ours")
        command.add_argument("--format", choices=puzzle.formats, default=puzzle.formats[0])
        of_training = [
            field.name
            for field in dataclasses.fields(puzzle.data)
            if field.metadata.get("only") == "train"
        ]
        add_fields(command, puzzle.data, without=of_training)
    args = parser.parse_args(argv)
    puzzle = PUZZLES[args.puzzle]
    try:
        data = from_flags(puzzle.data, args)
        identity = puzzle.build(args.output, data, args.format, overwrite=args.overwrite)
    except (ValueError, OSError) as error:
        print(f"build_dataset: error: {error}", file=sys.stderr)
        return 2
    print(identity.to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())

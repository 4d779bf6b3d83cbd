"""Builds a data set folder: `python launch/build_dataset.py sudoku --output=data/sudoku6`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from hrm_jax.data.errors import DataError
from hrm_jax.data.sudoku.build import FORMATS, SudokuSource, build_sudoku


def _range(text: str) -> tuple[int, int]:
    low, high = text.split(",")
    return int(low), int(high)


def _add_sudoku(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("sudoku", help="generated Sudokus, or CSV files of them")
    default = SudokuSource()
    parser.add_argument("--output", required=True, help="folder to make")
    parser.add_argument("--format", choices=FORMATS, default="npy")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set of ours")
    parser.add_argument("--size", type=int, default=default.size, help="4, 6 or 9")
    parser.add_argument("--num_train", type=int, default=default.num_train)
    parser.add_argument("--num_test", type=int, default=default.num_test)
    parser.add_argument("--givens", type=_range, metavar="LOW,HIGH", help="such as 14,20")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--train_csv", help="with --test_csv: read puzzles, generate none")
    parser.add_argument("--test_csv")
    parser.add_argument("--subsample", type=int, help="keep so many training puzzles")
    parser.add_argument("--num_aug", type=int, default=default.num_aug, help="stored per puzzle")
    parser.add_argument("--check_symmetry", action="store_true", help="compare up to symmetry")
    parser.set_defaults(run=_build_sudoku)


def _build_sudoku(args: argparse.Namespace) -> str:
    fields = [field.name for field in dataclasses.fields(SudokuSource)]
    source = SudokuSource(**{name: getattr(args, name) for name in fields})
    return build_sudoku(args.output, args.format, source, overwrite=args.overwrite).to_json()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    _add_sudoku(parser.add_subparsers(dest="builder", required=True))
    args = parser.parse_args(argv)
    try:
        print(args.run(args))
    except (DataError, OSError) as error:
        print(f"build_dataset: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

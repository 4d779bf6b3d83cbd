"""Builds a data set folder: `python launch/build_dataset.py maze --output=data/maze10`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.puzzles.arc.build import ArcSource, build_arc
from hrm_jax.puzzles.domino.build import DominoSource, build_domino
from hrm_jax.puzzles.maze.build import FORMATS as MAZE_FORMATS
from hrm_jax.puzzles.maze.build import MazeSource, build_maze
from hrm_jax.puzzles.sudoku.build import FORMATS, SudokuSource, build_sudoku


def _range(text: str) -> tuple[int, int]:
    low, high = text.split(",")
    return int(low), int(high)


def _shares(text: str) -> tuple[float, float]:
    low, high = text.split(",")
    return float(low), float(high)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


Commands = argparse._SubParsersAction


def _command(commands: Commands, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about)
    parser.add_argument("--output", required=True, help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set of ours")
    return parser


def _source(kind: type, args: argparse.Namespace) -> Any:
    return kind(**{field.name: getattr(args, field.name) for field in dataclasses.fields(kind)})


def _add_sudoku(commands: Commands) -> None:
    parser = _command(commands, "sudoku", "generated Sudokus, or CSV files of them")
    default = SudokuSource()
    parser.add_argument("--format", choices=FORMATS, default="npy")
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
    parser.set_defaults(
        run=lambda args: build_sudoku(
            args.output, args.format, _source(SudokuSource, args), overwrite=args.overwrite
        )
    )


def _add_maze(commands: Commands) -> None:
    parser = _command(commands, "maze", "generated mazes, or CSV files of them")
    default = MazeSource()
    parser.add_argument("--format", choices=MAZE_FORMATS, default="npy")
    parser.add_argument("--size", type=int, default=default.size, help="rows")
    parser.add_argument("--width", type=int, help="columns; default: as many as rows")
    parser.add_argument("--num_train", type=int, default=default.num_train)
    parser.add_argument("--num_test", type=int, default=default.num_test)
    parser.add_argument("--min_path", type=int, help="moves that a shortest path must exceed")
    parser.add_argument("--walls", type=_shares, default=default.walls, metavar="LOW,HIGH")
    parser.add_argument("--unique", action="store_true", help="only one shortest path")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--train_csv", help="with --test_csv: read mazes, generate none")
    parser.add_argument("--test_csv")
    parser.add_argument("--subsample", type=int, help="keep so many training mazes")
    parser.add_argument("--num_aug", type=int, default=default.num_aug, help="stored per maze")
    parser.set_defaults(
        run=lambda args: build_maze(
            args.output, args.format, _source(MazeSource, args), overwrite=args.overwrite
        )
    )


def _add_arc(commands: Commands) -> None:
    parser = _command(commands, "arc", "ARC tasks from files, or small made-up ones")
    default = ArcSource()
    parser.add_argument(
        "--training",
        action="append",
        default=[],
        metavar="PATH",
        help="folder, archive or Kaggle file of training tasks; may be given again",
    )
    parser.add_argument("--evaluation", default=default.evaluation, metavar="PATH")
    parser.add_argument("--num_aug", type=int, default=default.num_aug, help="per task")
    parser.add_argument("--test_aug", type=int, help="how many of them are evaluated")
    parser.add_argument("--canvas", type=int, help="rows and columns of the canvas")
    parser.add_argument("--max_grid", type=int, help="leave out tasks with a longer side")
    parser.add_argument("--num_train", type=int, default=default.num_train, help="made-up tasks")
    parser.add_argument("--num_test", type=int, default=default.num_test, help="made-up tasks")
    parser.add_argument("--side", type=int, default=default.side, help="of made-up grids")
    parser.add_argument("--demonstrations", type=int, default=default.demonstrations)
    parser.add_argument("--families", type=_names, default=default.families, metavar="A,B,…")
    parser.add_argument("--seed", type=int, default=default.seed)

    def build(args: argparse.Namespace) -> Identity:
        args.training = tuple(args.training)
        return build_arc(args.output, _source(ArcSource, args), overwrite=args.overwrite)

    parser.set_defaults(run=build)


def _add_domino(commands: Commands) -> None:
    parser = _command(commands, "domino", "positions of games that are played for it")
    default = DominoSource()
    parser.add_argument("--num_train", type=int, default=default.num_train)
    parser.add_argument("--num_test", type=int, default=default.num_test)
    parser.add_argument("--players", type=_numbers, default=default.players, metavar="2,3,4")
    parser.add_argument("--drawing", type=float, default=default.drawing, help="share of games")
    parser.add_argument("--greedy", type=float, default=default.greedy, help="share of seats")
    parser.add_argument("--choice", type=float, default=default.choice)
    parser.add_argument("--per_game", type=int, default=default.per_game)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.set_defaults(
        run=lambda args: build_domino(
            args.output, _source(DominoSource, args), overwrite=args.overwrite
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="builder", required=True)
    for add in (_add_sudoku, _add_maze, _add_arc, _add_domino):
        add(commands)
    args = parser.parse_args(argv)
    try:
        print(args.run(args).to_json())
    except (DataError, OSError) as error:
        print(f"build_dataset: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Random mazes whose shortest path is long, and splits that share no maze."""

from __future__ import annotations

import concurrent.futures
import functools
import os
from typing import Any

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.boards import Accept, BoardPuzzles, apart, distinct
from hrm_jax.puzzles.maze.board import WALL, MazeShape
from hrm_jax.puzzles.maze.search import SHARES, generate_board
from hrm_jax.puzzles.maze.symmetry import canonical

_ATTEMPTS = 20_000_000  # boards per maze before giving up
_BATCH = 64  # mazes per call: between calls Ctrl-C is heard


def generate(
    shape: MazeShape,
    count: int,
    min_path: int,
    seed: int,
    *,
    walls: tuple[float, float] = (0.3, 0.5),
    unique: bool = False,
    stream: int = 0,
    accept: Accept = None,
) -> BoardPuzzles:
    """Generates distinct mazes.

    Each board draws its share of walls uniformly from `walls` (in steps of 1/65536), start and
    goal uniformly from the pairs of cells, and makes each other cell a wall with that share as
    probability. It is kept if the shortest path has more than `min_path` moves, else drawn anew
    as a whole; long paths are likeliest near 40% of walls, so few boards kept have 30% or 50%.

    Maze number i is drawn from (seed, stream, i) with our own generator, so the same arguments
    give the same mazes on every machine and with every library version, and fewer mazes are the
    first ones of more. With `unique`, boards with several shortest paths are drawn anew too. The
    ratings are the moves of the shortest paths: the `o` cells of the answer and one more.
    """
    if not 0 <= walls[0] <= walls[1] <= 1:
        raise DataError(f"walls are {walls[0]} to {walls[1]}, expected a range inside 0 to 1")
    if not 0 <= min_path < shape.cells - 1:
        raise DataError(
            f"min_path is {min_path}, expected 0 to {shape.cells - 2} for a maze of {shape}"
        )
    shares = (round(walls[0] * SHARES), round(walls[1] * SHARES))
    what = (
        f"{shape} mazes with {walls[0]} to {walls[1]} of walls and a shortest "
        f"path of more than {min_path} moves{', the only one' if unique else ''}"
    )

    def draw(first: int, batch: int) -> BoardPuzzles:
        mixed = np.uint64((seed << 31) | stream)
        questions, answers = np.zeros((2, batch, shape.cells), np.uint8)
        part = BoardPuzzles(questions, answers, np.zeros(batch, np.int32), shape=shape)

        def fill(row: int) -> bool:
            part.ratings[row] = generate_board(
                first + row, shape.height, shape.width, shares, min_path, unique, _ATTEMPTS, mixed,
                part.questions[row], part.answers[row],
            )  # fmt: skip
            return bool(part.ratings[row] > 0)

        # One by one, since some take far longer than others. `all` ends at the first one that
        # cannot be found, and `map` then cancels those that were not begun.
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            if not all(pool.map(fill, range(batch))):
                raise DataError(
                    f"found none in {_ATTEMPTS} boards: {what}; allow shorter paths or other walls"
                )
        return part

    return distinct(
        *(count, seed, stream, draw, accept),
        at_a_time=(1, _BATCH),
        patience=20_000,
        wanted=f"{what}; allow shorter paths, other walls or larger mazes",
    )


def generate_split(
    shape: MazeShape, num_train: int, num_test: int, min_path: int, seed: int, **options: Any
) -> tuple[BoardPuzzles, BoardPuzzles]:
    """Generates training and test mazes that share no layout of walls, up to symmetry.

    So neither augmentation nor other ends in the same walls can make a test maze of a training
    maze. The options are those of `generate`.
    """
    some = functools.partial(generate, shape, min_path=min_path, seed=seed, **options)
    return apart(some, layouts, num_train, num_test)


def layouts(mazes: BoardPuzzles) -> list[bytes]:
    """What identifies the walls of each maze up to rotation and reflection."""
    return [walls.tobytes() for walls in canonical(mazes.questions == WALL, mazes.shape)]

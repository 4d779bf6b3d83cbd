"""Random mazes whose shortest path is long, and splits that share no maze."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.boards import BoardPuzzles, check_draws, distinct
from hrm_jax.puzzles.maze.board import WALL, MazeShape
from hrm_jax.puzzles.maze.search import SHARES, generate_boards
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
    accept: Callable[[Array], Array] | None = None,
) -> BoardPuzzles:
    """Generates distinct mazes.

    Each board draws its share of walls uniformly from `walls` (in steps of 1/65536), start and
    goal uniformly from the pairs of cells, and makes each other cell a wall with that share as
    probability. It is kept if the shortest path has more than `min_path` moves, else drawn anew
    as a whole; long paths are likeliest near 40% of walls, so few boards kept have 30% or 50%.

    Maze number i is drawn from (seed, stream, i) with our own generator, so the same arguments
    give the same mazes on every machine and with every library version, and fewer mazes are the
    first ones of more.

    Args:
        shape: Shape of the boards.
        count: Number of mazes.
        min_path: Moves that the shortest path from S to G must exceed. Moves are the `o` cells of
            the answer and one more.
        seed, stream: The stream is an independent sequence under the same seed.
        walls: Least and greatest share of walls.
        unique: Whether boards with several shortest paths are drawn anew too.
        accept: Says of mazes, uint8 tokens [n, cells], which ones may be used, bool [n].

    Returns:
        Tokens, uint8; the ratings are the moves of the shortest paths.

    Raises:
        DataError: Impossible arguments, or too few distinct mazes with such a path found.
    """
    check_draws("maze", count, seed, stream)
    if not 0 <= walls[0] <= walls[1] <= 1:
        raise DataError(f"walls are {walls[0]} to {walls[1]}, expected a range inside 0 to 1")
    if not 0 <= min_path < shape.cells - 1:
        raise DataError(
            f"min_path is {min_path}, expected 0 to {shape.cells - 2} for a maze of {shape}"
        )
    shares = (round(walls[0] * SHARES), round(walls[1] * SHARES))
    mixed = np.uint64((seed << 31) | stream)
    what = (
        f"{shape} mazes with {walls[0]} to {walls[1]} of walls and a shortest "
        f"path of more than {min_path} moves{', the only one' if unique else ''}"
    )

    def draw(first: int, batch: int) -> BoardPuzzles:
        part = _draw(first, batch, shape, shares, min_path, unique, mixed)
        if part is None:
            raise DataError(
                f"found none in {_ATTEMPTS} boards: {what}; allow shorter paths or other walls"
            )
        return part

    return distinct(
        count,
        draw,
        None if accept is None else lambda part: accept(part.questions),
        least=1,
        most=_BATCH,
        patience=20_000,
        give_up=lambda found: (
            f"found only {found} distinct ones of the {count} wanted: {what}; allow shorter "
            f"paths, other walls or larger mazes"
        ),
    )


def _draw(
    first: int,
    count: int,
    shape: MazeShape,
    shares: tuple[int, int],
    min_path: int,
    unique: bool,
    seed: Any,
) -> BoardPuzzles | None:
    """Draws the mazes numbered from `first` on, or returns None if one ran out of attempts."""
    questions = np.zeros((count, shape.cells), np.uint8)
    answers = np.zeros_like(questions)
    moves = np.zeros(count, np.int32)

    def fill(row: int) -> bool:
        one = slice(row, row + 1)
        made = generate_boards(
            first + row, shape.height, shape.width, shares, min_path, unique, _ATTEMPTS, seed,
            questions[one], answers[one], moves[one],
        )  # fmt: skip
        return bool(made == 1)

    # One by one, since some take far longer than others. `all` ends at the first one that cannot
    # be found, and `map` then cancels those that were not begun.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        complete = all(pool.map(fill, range(count)))
    return BoardPuzzles(questions, answers, moves, shape=shape) if complete else None


def generate_split(
    shape: MazeShape,
    num_train: int,
    num_test: int,
    min_path: int,
    seed: int,
    *,
    walls: tuple[float, float] = (0.3, 0.5),
    unique: bool = False,
) -> tuple[BoardPuzzles, BoardPuzzles]:
    """Generates training and test mazes that share no layout of walls, up to symmetry.

    So neither augmentation nor other ends in the same walls can make a test maze of a training
    maze.

    Raises:
        DataError: See `generate`.
    """
    train = generate(shape, num_train, min_path, seed, walls=walls, unique=unique)
    taken = set(layouts(train.questions, shape))

    def accept(questions: Array) -> Array:
        return np.array([layout not in taken for layout in layouts(questions, shape)], bool)

    test = generate(
        shape, num_test, min_path, seed, walls=walls, unique=unique, stream=1, accept=accept
    )
    return train, test


def layouts(questions: Array, shape: MazeShape) -> list[bytes]:
    """Returns what identifies the walls of each maze [E, cells] up to rotation and reflection."""
    return [walls.tobytes() for walls in canonical(questions == WALL, shape)]

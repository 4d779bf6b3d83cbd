"""Random mazes whose shortest path is long, and splits that share no maze."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.data.maze.board import WALL, Array, MazeShape
from hrm_jax.data.maze.search import SHARES, generate_boards
from hrm_jax.data.maze.symmetry import canonical

_ATTEMPTS = 20_000_000  # boards per maze before giving up
_BATCH = 64  # mazes per call: between calls Ctrl-C is heard


@dataclasses.dataclass(frozen=True)
class MazePuzzles:
    """Mazes of one shape.

    Attributes:
        shape: Shape of the boards.
        questions: Tokens, uint8 [E, cells].
        answers: Tokens with a shortest path marked, uint8 [E, cells].
        ratings: Difficulty, int32 [E]; moves of the shortest path unless a file says otherwise.
        sources: Where each maze is from, or None.
    """

    shape: MazeShape
    questions: Array
    answers: Array
    ratings: Array
    sources: list[str] | None = None

    def __len__(self) -> int:
        """Number of mazes, E."""
        return len(self.questions)

    def take(self, rows: npt.ArrayLike) -> MazePuzzles:
        """Returns the mazes with the given row numbers, in that order."""
        rows = np.asarray(rows, np.int64)
        sources = None if self.sources is None else [self.sources[row] for row in rows]
        return MazePuzzles(
            self.shape, self.questions[rows], self.answers[rows], self.ratings[rows], sources
        )


def generate(
    shape: MazeShape,
    count: int,
    min_path: int,
    seed: int,
    *,
    walls: tuple[float, float] = (0.3, 0.5),
    stream: int = 0,
    accept: Callable[[Array], Array] | None = None,
) -> MazePuzzles:
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
        seed: Any integer in [0, 2**32).
        walls: Least and greatest share of walls.
        stream: Independent sequence under the same seed, in [0, 2**31).
        accept: Says of mazes, uint8 tokens [n, cells], which ones may be used, bool [n].

    Raises:
        DataError: Impossible arguments, or too few distinct mazes with such a path found.
    """
    if count < 1 or not 0 <= seed < 2**32 or not 0 <= stream < 2**31:
        raise DataError(
            f"count is {count}, seed {seed}, stream {stream}; expected at least 1 maze, a seed "
            f"in [0, 2**32) and a stream in [0, 2**31)"
        )
    if not 0 <= walls[0] <= walls[1] <= 1:
        raise DataError(f"walls are {walls[0]} to {walls[1]}, expected a range inside 0 to 1")
    if not 0 <= min_path < shape.cells - 1:
        raise DataError(
            f"min_path is {min_path}, expected 0 to {shape.cells - 2} for a maze of "
            f"{shape.height}×{shape.width}"
        )
    shares = (round(walls[0] * SHARES), round(walls[1] * SHARES))
    mixed = np.uint64((seed << 31) | stream)
    what = (
        f"{shape.height}×{shape.width} mazes with {walls[0]} to {walls[1]} of walls and a shortest "
        f"path of more than {min_path} moves"
    )
    found: list[MazePuzzles] = []
    seen: set[bytes] = set()
    number, idle = 0, 0
    while len(seen) < count:
        batch = min(_BATCH, count - len(seen) + idle)
        part = _draw(number, batch, shape, shares, min_path, mixed)
        if part is None:
            raise DataError(
                f"found none in {_ATTEMPTS} boards: {what}; allow shorter paths or other walls"
            )
        number += batch
        allowed = np.ones(batch, bool) if accept is None else accept(part.questions)
        rows = []
        for row in np.flatnonzero(allowed):
            text = part.questions[row].tobytes()
            if text not in seen and len(seen) < count:
                seen.add(text)
                rows.append(row)
        idle = 0 if rows else idle + batch
        if idle > 20_000:
            raise DataError(
                f"found only {len(seen)} distinct ones of the {count} wanted: {what}; allow "
                f"shorter paths, other walls or larger mazes"
            )
        found.append(part.take(rows))
    return MazePuzzles(
        shape,
        np.concatenate([part.questions for part in found]),
        np.concatenate([part.answers for part in found]),
        np.concatenate([part.ratings for part in found]),
    )


def _draw(
    first: int, count: int, shape: MazeShape, shares: tuple[int, int], min_path: int, seed: Any
) -> MazePuzzles | None:
    """Draws the mazes numbered from `first` on, or returns None if one ran out of attempts."""
    questions = np.zeros((count, shape.cells), np.uint8)
    answers = np.zeros_like(questions)
    moves = np.zeros(count, np.int32)
    workers = min(count, os.cpu_count() or 1)
    bounds = [count * worker // workers for worker in range(workers + 1)]

    def fill(start: int, stop: int) -> bool:
        made = generate_boards(
            first + start, shape.height, shape.width, shares, min_path, _ATTEMPTS, seed,
            questions[start:stop], answers[start:stop], moves[start:stop],
        )  # fmt: skip
        return bool(made == stop - start)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        complete = all(list(pool.map(fill, bounds[:-1], bounds[1:])))
    return MazePuzzles(shape, questions, answers, moves) if complete else None


def generate_split(
    shape: MazeShape,
    num_train: int,
    num_test: int,
    min_path: int,
    seed: int,
    *,
    walls: tuple[float, float] = (0.3, 0.5),
) -> tuple[MazePuzzles, MazePuzzles]:
    """Generates training and test mazes that share no layout of walls, up to symmetry.

    So neither augmentation nor other ends in the same walls can make a test maze of a training
    maze.

    Returns:
        Train and test mazes, each distinct.

    Raises:
        DataError: See `generate`.
    """
    train = generate(shape, num_train, min_path, seed, walls=walls)
    taken = set(layouts(train.questions, shape))

    def accept(questions: Array) -> Array:
        return np.array([layout not in taken for layout in layouts(questions, shape)], bool)

    test = generate(shape, num_test, min_path, seed, walls=walls, stream=1, accept=accept)
    return train, test


def layouts(questions: Array, shape: MazeShape) -> list[bytes]:
    """Returns what identifies the walls of each maze [E, cells] up to rotation and reflection."""
    return [walls.tobytes() for walls in canonical(questions == WALL, shape)]

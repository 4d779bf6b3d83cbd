"""Shortest paths of mazes by breadth-first search, and what paths predictions mark."""

from __future__ import annotations

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.maze.board import PATH, MazeShape, is_question, problem
from hrm_jax.puzzles.maze.search import follow_paths, solve_boards


def solve_many(boards: Array, shape: MazeShape) -> tuple[Array, Array]:
    """Marks the shortest paths of mazes, tokens of questions [E, cells].

    Of several, it is the one that breadth-first search from S finds when it looks at the
    neighbours in the order down, left, right, up: the first one in alphabetical order, if moves
    are letters in this order. The published mazes agree with it.

    Returns:
        The answers, uint8 [E, cells], where there is no path equal to the question; and the moves
        from S to G, int32 [E], which are the `o` cells and one more, -1 where there is no path.
    """
    boards = np.asarray(boards)
    if boards.ndim != 2 or boards.shape[1] != shape.cells or boards.dtype.kind not in "iu":
        raise DataError(
            f"boards are {boards.dtype} {boards.shape}, expected integers [E, {shape.cells}]"
        )
    legal = is_question(boards)
    if not legal.all():
        row = int(np.argmin(legal))
        raise DataError(f"boards, row {row}: {problem(boards[row], shape)}")
    return search_any(boards, shape)


def search_any(boards: Array, shape: MazeShape) -> tuple[Array, Array]:
    """As `solve_many`, of boards that may hold anything: what is no wall is free, and of several
    S or G the last one counts; without one the result means nothing."""
    boards = np.ascontiguousarray(np.clip(boards, 0, PATH), np.uint8)
    answers, moves = boards.copy(), np.empty(len(boards), np.int32)
    solve_boards(boards, *shape.sides(), answers, moves)
    return answers, moves


def path_moves(predictions: Array, inputs: Array, shape: MazeShape) -> Array:
    """Counts the moves of the paths that predictions [N, cells] mark on questions, int32 [N]; -1
    where walls, S or G were not kept, or the `o` cells are not one path.

    The `o` cells with S and G are one path where S and G touch (above, below, left or right) one
    of these cells each, every `o` touches two, and all are connected. So a path that touches
    itself is none: it is not clear which way it goes, and it is never a shortest one.
    """
    predictions, inputs = np.asarray(predictions), np.asarray(inputs)
    if predictions.shape != inputs.shape or inputs.shape[1:] != (shape.cells,):
        raise DataError(
            f"predictions are {predictions.shape}, inputs {inputs.shape}, expected both "
            f"[N, {shape.cells}]"
        )
    moves = np.empty(len(predictions), np.int32)
    wide = (np.ascontiguousarray(x, np.int64) for x in (predictions, inputs))
    follow_paths(*wide, *shape.sides(), moves)
    return moves


def optimal(predictions: Array, inputs: Array, shape: MazeShape) -> tuple[Array, Array]:
    """Which predictions [N, cells] mark a path, and which of these a shortest one; bool [N] each.

    A maze may have several shortest paths, of which a label is one: this is what a solver should
    be judged by.
    """
    moves = path_moves(predictions, inputs, shape)
    _, shortest = solve_many(inputs, shape)
    return moves >= 0, (moves >= 0) & (moves == shortest)

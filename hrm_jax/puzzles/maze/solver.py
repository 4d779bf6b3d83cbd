"""Shortest paths of mazes by breadth-first search."""

from __future__ import annotations

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.maze.board import START, Array, MazeShape, is_question, problem
from hrm_jax.puzzles.maze.search import load, solve_boards, spread


def distances(board: Array, shape: MazeShape, cell: int) -> Array:
    """Counts the moves (down, left, right, up) from one cell to every other.

    Args:
        board: Tokens of a question [cells].
        shape: Shape of the board.
        cell: Where to start; a wall reaches its neighbours too.

    Returns:
        int32 [cells], -1 for walls and for what cannot be reached.

    Raises:
        DataError: The board is no question, or there is no such cell.
    """
    boards = _checked(np.asarray(board)[None], shape)
    if not 0 <= cell < shape.cells:
        raise DataError(f"cell is {cell}, expected 0 to {shape.cells - 1}")
    stride = shape.width + 2
    distance = np.empty((shape.height + 2) * stride, np.int32)
    load(boards[0], shape.width, distance)
    source = (cell // shape.width + 1) * stride + cell % shape.width + 1
    spread(distance, stride, source, 0, np.empty(distance.size, np.int64))
    inner = distance.reshape(shape.height + 2, stride)[1:-1, 1:-1]
    return np.maximum(inner, -1).reshape(-1)


def shortest_path(board: Array, shape: MazeShape) -> Array:
    """Returns the cells of the shortest path from S to G, both included.

    Of several, it is the one that breadth-first search from S finds when it looks at the
    neighbours in the order down, left, right, up: the first one in alphabetical order, if moves
    are letters in this order. The published mazes agree with it.

    Args:
        board: Tokens of a question [cells].
        shape: Shape of the board.

    Returns:
        int64 [moves + 1].

    Raises:
        DataError: The board is no question, or there is no path.
    """
    answer = solve(board, shape)
    cell, path = int(np.argmax(answer == START)), []
    on_path = np.pad((answer >= START).reshape(shape.height, shape.width), 1)
    while True:
        path.append(cell)
        row, column = divmod(cell, shape.width)
        on_path[row + 1, column + 1] = False
        # A shortest path has no shortcuts: the cell after is the only one that touches.
        for down, right in ((1, 0), (0, -1), (0, 1), (-1, 0)):
            if on_path[row + down + 1, column + right + 1]:
                cell += down * shape.width + right
                break
        else:
            return np.array(path, np.int64)


def solve(board: Array, shape: MazeShape) -> Array:
    """Marks the shortest path of one maze; see `shortest_path`.

    Returns:
        The tokens with `PATH` between S and G, uint8 [cells].

    Raises:
        DataError: The board is no question, or there is no path.
    """
    answers, moves = solve_many(np.asarray(board)[None], shape)
    if moves[0] < 0:
        raise DataError("unsolvable maze: there is no path from S to G")
    return np.asarray(answers[0])


def solve_many(boards: Array, shape: MazeShape) -> tuple[Array, Array]:
    """Marks the shortest paths of mazes.

    Args:
        boards: Tokens of questions [E, cells].
        shape: Shape of the boards.

    Returns:
        The answers, uint8 [E, cells], where there is no path equal to the question; and the moves
        from S to G, int32 [E], which are the `o` cells and one more, -1 where there is no path.

    Raises:
        DataError: Wrong shape or dtype, or a board that is no question; names the row and why.
    """
    boards = _checked(boards, shape)
    answers = boards.copy()
    moves = np.empty(len(boards), np.int32)
    solve_boards(boards, shape.height, shape.width, answers, moves)
    return answers, moves


def _checked(boards: Array, shape: MazeShape) -> Array:
    boards = np.asarray(boards)
    if boards.ndim != 2 or boards.shape[1] != shape.cells or boards.dtype.kind not in "iu":
        raise DataError(
            f"boards are {boards.dtype} {boards.shape}, expected integers [E, {shape.cells}]"
        )
    legal = is_question(boards)
    if not legal.all():
        row = int(np.argmin(legal))
        raise DataError(f"boards, row {row}: {problem(boards[row], shape)}")
    return np.ascontiguousarray(boards, np.uint8)

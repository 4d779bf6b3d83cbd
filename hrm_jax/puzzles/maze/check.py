"""What is wrong with examples of mazes, and what they look like."""

from __future__ import annotations

import math

import numpy as np

from hrm_jax.puzzles.checks import Array, Checks, letters, lines, side_by_side
from hrm_jax.puzzles.maze.board import CHARACTERS, FREE, GOAL, PAD, PATH, START, WALL


def check_examples(inputs: Array, labels: Array, width: int) -> Checks:
    """Checks mazes and answers against the rules.

    Args:
        inputs: Integers [N, cells], any values.
        labels: Integers [N, cells], 0 where ignored.
        width: Columns of the boards.
    """
    marked = labels == PATH
    kept = np.where(marked, FREE, labels) == inputs
    ends = ((inputs == START).sum(1) == 1) & ((inputs == GOAL).sum(1) == 1)
    shape = (len(inputs), inputs.shape[1] // width, width)
    grid, path = inputs.reshape(shape), marked.reshape(shape)
    shortest = _distances(grid != WALL, grid == START, grid == GOAL)
    along = _distances(path | (grid >= START), grid == START, grid == GOAL)
    connected = along == marked.sum(1) + 1
    comparable = ends & kept.all(1) & (shortest > 0)
    return [
        *(
            (name, (array == token).sum(1) != 1, f"{letter} stands there not exactly once")
            for name, array in (("inputs", inputs), ("labels", labels))
            for token, letter in ((START, "S"), (GOAL, "G"))
        ),
        ("inputs", (inputs == PAD).any(1), "a cell of the question is pad"),
        ("inputs", (inputs == PATH).any(1), "the question shows path cells (o)"),
        ("labels", ~kept.all(1), "the answer changes the question, not only free cells to path"),
        ("inputs", ends & (shortest < 0), "no way leads from S to G"),
        (
            "labels",
            comparable & ~connected,
            "the path cells are not one path from S to G without detours",
        ),
        ("labels", comparable & connected & (along > shortest), "the path is not a shortest one"),
    ]


def find_width(inputs: Array, labels: Array) -> int:
    """Returns the width of boards [N, cells], which is stored nowhere.

    It is the one with which most of the first paths are whole; of equally good ones, that of the
    board nearest to a square.
    """
    x, y = inputs[:64].astype(np.int64), labels[:64].astype(np.int64)
    length = inputs.shape[1]
    widths = [width for width in range(1, length + 1) if length % width == 0]
    best, fewest = 0, math.inf
    for width in sorted(widths, key=lambda width: abs(math.log(width * width / length))):
        wrong = sum(int(bad.sum()) for _, bad, _ in check_examples(x, y, width))
        if wrong < fewest:
            best, fewest = width, wrong
        if not wrong:
            break
    return best


def render(inputs: Array, labels: Array, width: int) -> str:
    """Formats one example, [cells] and [cells], as lines for people; `?` for illegal tokens."""
    characters = "?" + CHARACTERS
    return side_by_side(*(lines(letters(x, characters), width) for x in (inputs, labels)))


def _distances(free: Array, start: Array, goal: Array) -> Array:
    """Steps from start to goal by breadth-first search, bool [N, h, w] each; -1 without a way."""
    distances = np.full(len(free), -1, np.int64)
    reached, edge = start.copy(), start
    for step in range(1, free[0].size + 1):
        grown = np.zeros_like(edge)
        grown[:, 1:] |= edge[:, :-1]
        grown[:, :-1] |= edge[:, 1:]
        grown[:, :, 1:] |= edge[:, :, :-1]
        grown[:, :, :-1] |= edge[:, :, 1:]
        edge = grown & free & ~reached
        reached |= edge
        distances[(edge & goal).any((1, 2))] = step
        if not edge.any() or (distances > 0).all():
            break
    return distances

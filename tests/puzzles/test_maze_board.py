"""Maze boards and shortest paths, against a plain breadth-first search in Python."""

import collections

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.maze.board import (
    FREE,
    GOAL,
    START,
    WALL,
    MazeShape,
    is_question,
    parse,
    problem,
)
from hrm_jax.puzzles.maze.puzzle import MAZE
from hrm_jax.puzzles.maze.solver import solve_many


def first_found(text: str, height: int, width: int) -> list[int] | None:
    """The path that a queue finds first from S, neighbours down, left, right, up."""
    start, goal = text.index("S"), text.index("G")
    parent = {start: start}
    queue = collections.deque([start])
    while queue:
        cell = queue.popleft()
        row, column = divmod(cell, width)
        for r, c in ((row + 1, column), (row, column - 1), (row, column + 1), (row - 1, column)):
            other = r * width + c
            if 0 <= r < height and 0 <= c < width and text[other] != "#" and other not in parent:
                parent[other] = cell
                queue.append(other)
    if goal not in parent:
        return None
    path = [goal]
    while path[-1] != start:
        path.append(parent[path[-1]])
    return path[::-1]


def random_mazes(count: int):
    """Text and shape of small mazes of all kinds, many of them without a path."""
    random = np.random.default_rng(0)
    for _ in range(count):
        shape = MazeShape(int(random.integers(1, 8)), int(random.integers(2, 8)))
        walls = random.random(shape.cells) < random.uniform(0, 0.5)
        cells = ["#" if wall else " " for wall in walls]
        start, goal = random.permutation(shape.cells)[:2]
        cells[start], cells[goal] = "S", "G"
        yield "".join(cells), shape


def test_shortest_path_is_what_a_queue_finds_first():
    for text, shape in random_mazes(200):
        _agrees_with_a_queue(text, shape)


def _agrees_with_a_queue(text, shape):
    board = parse(text, shape)
    assert MAZE.to_text(board) == text
    path = first_found(text, shape.height, shape.width)
    answers, moves = solve_many(board[None], shape)
    if path is None:
        assert moves.tolist() == [-1]
        np.testing.assert_array_equal(answers[0], board)
        return
    assert moves.tolist() == [len(path) - 1]
    wanted = list(text)
    for cell in path[1:-1]:
        wanted[cell] = "o"
    assert MAZE.to_text(answers[0]) == "".join(wanted)


def test_text_tokens_and_blanks_at_the_ends():
    board = parse("  S#oG#  ")
    assert board.dtype == np.uint8
    assert board.tolist() == [2, 2, 3, 1, 5, 4, 1, 2, 2]
    assert MAZE.to_text(np.array([0, 1])) == "?#"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("S      G ", "S  o  oG "),
        ("  S   G  ", "  S  oGoo"),
        ("  G   S  ", "  G  oSoo"),
        ("G       S", "G  o  ooS"),
        ("SG##", "SG##"),
    ],
)
def test_the_order_of_neighbours_decides(question, answer):
    shape = MazeShape.for_cells(len(question))
    assert MAZE.to_text(solve_many(parse(question)[None], shape)[0][0]) == answer


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("S   ", "there is no G"),
        ("SGG ", "there are 2 cells G"),
        ("SSG ", "there are 2 cells S"),
        ("SoG ", r"row 1, column 2: a path cell \(o\)"),
    ],
)
def test_bad_questions_are_refused_with_the_reason(text, why):
    board = parse(text)
    assert not is_question(board)
    with pytest.raises(DataError, match=f"row 1: {why}"):
        solve_many(np.stack([parse("SG  "), board]), MazeShape(2, 2))


def test_problem_names_tokens_and_is_silent_about_questions():
    shape = MazeShape(2, 2)
    assert problem(np.array([START, GOAL, WALL, FREE]), shape) is None
    assert problem(np.array([START, GOAL, 0, FREE]), shape) == (
        "row 2, column 1: pad, expected a wall, a free cell, S or G"
    )
    assert "token 9" in str(problem(np.array([START, GOAL, 9, FREE]), shape))


def test_wrong_shapes_and_characters_are_refused():
    with pytest.raises(DataError, match="5 cells make no square maze"):
        parse("S   G")
    with pytest.raises(DataError, match="has 5 characters, expected 6"):
        parse("S   G", MazeShape(2, 3))
    with pytest.raises(DataError, match="row 2, column 1: 's' is illegal"):
        parse("  s ")
    with pytest.raises(DataError, match="room for start and goal"):
        MazeShape(1, 1)
    with pytest.raises(DataError, match=r"float64 \(1, 4\), expected integers \[E, 4\]"):
        solve_many(np.ones((1, 4)), MazeShape(2, 2))

"""Scores of maze answers: a path, a shortest one."""

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.maze.board import FREE, PATH, START, MazeShape, parse
from hrm_jax.puzzles.maze.generator import generate
from hrm_jax.puzzles.maze.puzzle import MAZE
from hrm_jax.puzzles.maze.solver import optimal, path_moves

SHAPE = MazeShape(4, 4)
QUESTION = "S   " + "# # " + "    " + "#G  "
ANSWER = "So  " + "#o# " + " o  " + "#G  "


@pytest.mark.parametrize(
    ("prediction", "valid", "shortest"),
    [
        (ANSWER, True, True),
        ("Sooo" + "# #o" + " ooo" + "#G  ", True, False),  # the long way round
        ("So  " + "#o# " + "oo  " + "#G  ", False, False),  # a dead end
        ("So  " + "#o# " + " o o" + "#G  ", False, False),  # a cell elsewhere
        ("So  " + "#o# " + "    " + "#G  ", False, False),  # a gap
        ("So  " + "#o# " + " o  " + "#   ", False, False),  # the goal is gone
        ("So  " + "#o# " + " o  " + " G  ", False, False),  # a wall is gone
        ("So #" + "#o# " + " o  " + "#G  ", False, False),  # a wall was added
        ("S   " + "oo# " + " o  " + "#G  ", False, False),  # through a wall
        ("So  " + "#o# " + " oo " + "#Go ", False, False),  # the path touches itself
        (QUESTION, False, False),
    ],
)
def test_two_senses_of_right(prediction, valid, shortest):
    found = optimal(parse(prediction)[None], parse(QUESTION)[None], SHAPE)
    assert [verdict.tolist() for verdict in found] == [[valid], [shortest]]


def test_another_shortest_path_is_optimal():
    question, other = map(parse, ("S       G", "So  oo  G"))
    assert optimal(other[None], question[None], MazeShape(3, 3))[1].tolist() == [True]


def test_a_ring_beside_the_path_does_not_count():
    shape = MazeShape(5, 3)
    question, ring = parse("SG " + " " * 12, shape), parse("SG    ooo" + "o o" + "ooo", shape)
    assert path_moves(ring[None], question[None], shape).tolist() == [-1]
    assert path_moves(question[None], question[None], shape).tolist() == [1]


def test_tokens_that_are_none_and_wide_integers():
    question, answer = parse(QUESTION)[None], parse(ANSWER)[None]
    assert path_moves(answer.astype(np.int64), question.astype(np.int32), SHAPE).tolist() == [4]
    for token in (0, 256 + 5, -1, 6):
        wrong = np.where(answer == PATH, token, answer.astype(np.int32))
        assert path_moves(wrong, question, SHAPE).tolist() == [-1]


@pytest.mark.parametrize("flips", range(4))
def test_paths_are_trees_without_branches(flips):
    shape = MazeShape(6, 5)
    mazes = generate(shape, 200, 3, flips, walls=(0.0, 0.3))
    random = np.random.default_rng(flips)
    predictions = mazes.answers.copy()
    for board in predictions:
        for cell in random.integers(0, shape.cells, flips):
            board[cell] = {FREE: PATH, PATH: FREE}.get(int(board[cell]), board[cell])
    paths, shortest = optimal(predictions, mazes.questions, shape)
    for row, board in enumerate(predictions):
        marked = [divmod(int(cell), shape.width) for cell in np.flatnonzero(board >= START)]
        touching = {
            (r, c): [n for n in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)) if n in marked]
            for r, c in marked
        }
        reached, todo = set(), [marked[0]]
        while todo:
            cell = todo.pop()
            if cell not in reached:
                reached.add(cell)
                todo.extend(touching[cell])
        ends = [cell for cell in marked if board.reshape(6, 5)[cell] != PATH]
        degrees = {cell: len(some) for cell, some in touching.items()}
        valid = (
            len(reached) == len(marked)
            and all(degrees[cell] == 1 for cell in ends)
            and all(degrees[cell] == 2 for cell in marked if cell not in ends)
        )
        assert paths[row] == valid
        assert shortest[row] == (valid and len(marked) - 1 == mazes.ratings[row])


def test_wrong_shapes_are_refused():
    question, answer = parse(QUESTION)[None], parse(ANSWER)[None]
    with pytest.raises(DataError, match=r"expected both \[N, 20\]"):
        optimal(answer, question, MazeShape(4, 5))
    with pytest.raises(DataError, match="row 0: there is no S"):
        optimal(answer, np.full_like(question, FREE), SHAPE)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Soooo####o     " + "     G    ", "What it marks is no path from S to G."),
        ("Soooo####ooooooo    G    ", "A path of 12 moves, and none is shorter."),
        ("Soooo####oooo oo o oG ooo", "A path of 16 moves; the shortest has 12."),
    ],
)
def test_verdict_for_people(answer, said):
    question = "S    #### " + " " * 10 + "G    "
    assert MAZE.verdict(parse(question), parse(answer)) == said

"""Generated mazes: long paths, repeatable, and no maze of training in the test."""

import dataclasses
import hashlib

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.maze import generator
from hrm_jax.puzzles.maze.board import GOAL, START, WALL, MazeShape, is_question
from hrm_jax.puzzles.maze.generator import generate, generate_split, layouts
from hrm_jax.puzzles.maze.solver import solve_many
from hrm_jax.puzzles.maze.symmetry import places


@pytest.mark.parametrize(
    ("shape", "min_path"), [(MazeShape(5, 5), 5), (MazeShape(10, 10), 12), (MazeShape(6, 11), 14)]
)
def test_mazes_are_distinct_solved_and_long(shape, min_path):
    mazes = generate(shape, 150, min_path, 7)
    assert len(mazes) == 150
    assert mazes.questions.dtype == mazes.answers.dtype == np.uint8
    assert len(np.unique(mazes.questions, axis=0)) == 150
    assert is_question(mazes.questions).all()
    answers, moves = solve_many(mazes.questions, shape)
    np.testing.assert_array_equal(answers, mazes.answers)
    np.testing.assert_array_equal(moves, mazes.ratings)
    assert moves.min() == min_path + 1


def shortest_paths(question, size):
    """Number of shortest paths from S to G, by adding up ways in numpy."""
    free = np.pad((question != WALL).reshape(size, size), 1)
    start, goal = (np.pad((question == token).reshape(size, size), 1) for token in (START, GOAL))
    ways, seen = start.astype(int), start.copy()
    while not ways[goal].any():
        nearer = sum(np.roll(ways, turn, axis) for turn in (1, -1) for axis in (0, 1))
        ways = np.where(free & ~seen, nearer, 0)
        seen |= ways > 0
    return int(ways[goal].sum())


def test_unique_mazes_have_one_shortest_path():
    shape = MazeShape(8, 8)
    several = [shortest_paths(q, 8) for q in generate(shape, 100, 9, 5).questions]
    assert max(several) > 1
    mazes = generate(shape, 100, 9, 5, unique=True)
    assert {shortest_paths(q, 8) for q in mazes.questions} == {1}
    assert mazes.ratings.min() > 9


def test_share_of_walls_and_ends_are_uniform():
    # Nearly every board without walls to speak of is kept, so the draws can be seen.
    shape = MazeShape(8, 8)
    mazes = generate(shape, 6400, 0, 3, walls=(0.0, 0.1))
    for token in (3, 4):
        counts = (mazes.questions == token).sum(0)
        assert (abs(counts - 100) < 5 * np.sqrt(100)).all()
    large = generate(MazeShape(40, 40), 400, 0, 3, walls=(0.1, 0.3))
    shares = np.sort((large.questions == WALL).mean(1))
    np.testing.assert_allclose(shares, np.linspace(0.1, 0.3, 400), atol=0.03)
    assert (large.questions == WALL).mean(0).min() > 0.05  # no cell is always free
    assert generate(shape, 5, 0, 3, walls=(0.8, 0.8)).ratings.min() >= 1


def test_same_arguments_same_mazes_and_fewer_are_the_first():
    shape = MazeShape(8, 8)
    mazes = generate(shape, 100, 9, 5)
    # Pinned: the same on every machine and with every library version.
    digest = hashlib.sha256(mazes.answers.tobytes()).hexdigest()
    assert digest[:16] == "d3c2ae8e9174cc63"
    np.testing.assert_array_equal(generate(shape, 30, 9, 5).questions, mazes.questions[:30])
    for other in (generate(shape, 100, 9, 6), generate(shape, 100, 9, 5, stream=1)):
        assert not {q.tobytes() for q in mazes.questions} & {q.tobytes() for q in other.questions}


def test_train_and_test_share_no_walls_even_turned():
    shape = MazeShape(3, 3)  # so small that most layouts are drawn again and again
    train, test = generate_split(shape, 20, 20, 2, 0, walls=(0.2, 0.4))
    known = set()
    for turn in places(shape):
        known |= {walls[turn].tobytes() for walls in train.questions == WALL}
    assert not known & {walls.tobytes() for walls in test.questions == WALL}
    turned = dataclasses.replace(train, questions=train.questions[:, places(shape)[3]])
    assert layouts(train) == layouts(turned)
    assert len(test) == len(train) == 20


def test_full_size_mazes():
    mazes = generate(MazeShape(30, 30), 2, 110, 0)
    assert (mazes.ratings > 110).all()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"count": 0}, "count is 0"),
        ({"seed": -1}, "seed -1"),
        ({"walls": (0.5, 0.3)}, "walls are 0.5 to 0.3"),
        ({"min_path": 8}, "min_path is 8, expected 0 to 7"),
        ({"walls": (1.0, 1.0)}, "found none in 20000 boards: 3×3 mazes with 1.0 to 1.0"),
        (
            {"shape": MazeShape(2, 2), "min_path": 0, "count": 100},
            r"found only \d+ distinct ones of",
        ),
    ],
)
def test_what_is_impossible_is_refused(arguments, why, monkeypatch):
    monkeypatch.setattr(generator, "_ATTEMPTS", 20_000)
    arguments = {"shape": MazeShape(3, 3), "count": 1, "min_path": 2, "seed": 0} | arguments
    with pytest.raises(DataError, match=why):
        generate(**arguments)

"""CSV files of mazes: what is read, what is refused and how it is named."""

import dataclasses
import pathlib

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.maze.board import MazeShape
from hrm_jax.puzzles.maze.generator import generate
from hrm_jax.puzzles.maze.puzzle import MAZE, MazeData
from hrm_jax.puzzles.maze.solver import optimal, solve_many
from hrm_jax.puzzles.maze.symmetry import places

QUESTION = "S   " + "# # " + "    " + "#G  "
ANSWER = "So  " + "#o# " + " o  " + "#G  "
GOOD = f"a,{QUESTION},{ANSWER},4"


def written(folder, *lines, header="source,question,answer,rating") -> pathlib.Path:
    path = folder / "mazes.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["mazes.csv", "mazes.csv.gz"])
def test_round_trip(tmp_path, name):
    shape = MazeShape(6, 8)
    mazes = generate(shape, 30, 5, 0)
    sources = [f"from, {row}" for row in range(30)]
    mazes = dataclasses.replace(mazes, ratings=np.arange(30, dtype=np.int32), sources=sources)
    MAZE.write_csv(tmp_path / name, mazes)
    again = MAZE.read_boards(tmp_path / name, shape)
    np.testing.assert_array_equal(again.questions, mazes.questions)
    np.testing.assert_array_equal(again.answers, mazes.answers)
    assert again.ratings.tolist() == list(range(30))
    assert again.sources == sources
    first = (tmp_path / name).read_bytes()
    MAZE.write_csv(tmp_path / name, again)
    assert (tmp_path / name).read_bytes() == first


def test_answer_and_rating_are_computed_and_blanks_kept(tmp_path):
    mazes = MAZE.read_boards(
        written(tmp_path, QUESTION, "   S" + " " * 11 + "G", header="question")
    )
    assert mazes.shape == MazeShape(4, 4)
    assert [MAZE.to_text(board) for board in mazes.answers] == [ANSWER, "   S   o   o   G"]
    assert mazes.ratings.tolist() == [4, 3]
    assert mazes.sources is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"a,{QUESTION[1:]},{ANSWER},4", "question has 15 characters, expected 16 for 4×4; blanks"),
        (f"a,{QUESTION},{ANSWER} ,4", "answer has 17 characters, expected 16"),
        (f"a,{QUESTION[:-1]}x,{ANSWER},4", "question, character 16: 'x' is illegal"),
        (f"a,{QUESTION[:-1]}é,{ANSWER},4", "question, character 16: 'é' is illegal"),
        (f"a,{ANSWER},{ANSWER},4", "question, character 2: 'o' is illegal, expected one of '# SG'"),
        (f"a,{QUESTION},{ANSWER[:-1]}g,4", "answer, character 16: 'g' is illegal"),
        (f"a,{QUESTION.replace('S', ' ')},{ANSWER},4", "question: there is no S"),
        (f"a,{QUESTION[:-1]}G,{ANSWER},4", "question: there are 2 cells G"),
        (
            f"a,{QUESTION},{ANSWER[:-1]}#,4",
            "answer does not fit the question: row 4, column 4 is '#', the question has ' '",
        ),
        (f"a,{QUESTION},{QUESTION},4", "answer is no path"),
        (f"a,{QUESTION},{ANSWER[:-1]}o,4", "answer is no path"),
        (
            f"a,{QUESTION},Sooo# #o ooo#G  ,4",
            "answer is not the shortest path: it has 8 moves, 4 are enough",
        ),
        (f"a,S# {'#' * 11} G,{ANSWER},4", "unsolvable maze: there is no path from S to G"),
        (f"a,{QUESTION},{ANSWER},four", "rating is 'four', expected a whole number"),
        (f"a,{QUESTION},{ANSWER}", "3 fields, expected 4"),
    ],
)
def test_bad_lines_are_refused_with_file_and_line(tmp_path, line, why):
    path = written(tmp_path, GOOD, "", GOOD, line, GOOD)
    with pytest.raises(DataError) as caught:
        MAZE.read_boards(path)
    assert str(caught.value).startswith(f"{path}:5: {why}")


def test_first_question_must_be_square_unless_the_shape_is_given(tmp_path):
    path = written(tmp_path, "S    G", header="question")
    with pytest.raises(DataError, match=r"mazes\.csv:2: question: 6 cells make no square maze"):
        MAZE.read_boards(path)
    assert MAZE.read_boards(path, MazeShape(2, 3)).ratings.tolist() == [3]


def test_overlap_is_found_in_turned_walls_with_other_ends(tmp_path):
    train = generate(MazeShape(8, 8), 20, 5, 0)
    test = generate(MazeShape(8, 8), 10, 5, 1)
    MAZE.refuse_overlap(train, test, MazeData())
    test.questions[4] = train.questions[7][places(train.shape)[5]]
    ends = np.flatnonzero(test.questions[4] >= 3)
    test.questions[4][ends] = test.questions[4][ends[::-1]]  # start and goal change places
    with pytest.raises(DataError) as caught:
        MAZE.refuse_overlap(train, test, MazeData(), "a.csv", "b.csv")
    assert str(caught.value) == (
        "b.csv, puzzle 5: its walls are, up to rotation and reflection, those of a.csv, puzzle 8; "
        "1 of 10 test puzzles are in training like this"
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_published_answers_are_reproduced(data, split):
    mazes = MAZE.read_boards(data / "maze" / f"{split}.csv.gz")
    assert mazes.shape == MazeShape(30, 30)
    answers, moves = solve_many(mazes.questions, mazes.shape)
    np.testing.assert_array_equal(answers, mazes.answers)
    np.testing.assert_array_equal(moves, mazes.ratings)
    assert moves.min() > 110
    assert optimal(mazes.answers, mazes.questions, mazes.shape)[1].all()
    # Of the eight turns the order of directions fits the published answers in one only.
    quarter = places(mazes.shape)[1]
    turned, _ = solve_many(mazes.questions[:, quarter], mazes.shape)
    assert (turned != mazes.answers[:, quarter]).any()


def test_shared_splits_do_not_overlap(data):
    files = (data / "maze" / f"{split}.csv.gz" for split in ("train", "test"))
    MAZE.refuse_overlap(*map(MAZE.read_boards, files), MazeData())

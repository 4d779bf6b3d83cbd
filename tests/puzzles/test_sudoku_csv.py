"""CSV files of Sudokus: what is read, what is refused and how it is named."""

import dataclasses
import gzip
import itertools
import pathlib

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.digits.board import is_solution
from hrm_jax.puzzles.digits.solver import solve_many
from hrm_jax.puzzles.sudoku.board import SudokuShape, from_tokens, parse, to_text, to_tokens
from hrm_jax.puzzles.sudoku.generator import generate
from hrm_jax.puzzles.sudoku.puzzle import SUDOKU, SudokuData
from hrm_jax.puzzles.sudoku.symmetry import canonical

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "sudoku"
SHAPE = SudokuShape.of(4)
GOOD = "a,1.34.41.21.3432.,1234341221434321,0"
ANSWER = "1234341221434321"


def written(folder, *lines, header="source,question,answer,rating") -> pathlib.Path:
    path = folder / "puzzles.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["puzzles.csv", "puzzles.csv.gz"])
def test_round_trip(tmp_path, name):
    puzzles = generate(SudokuShape.of(6), 30, (14, 20), 0)
    sources = [f"from, {row}" for row in range(30)]
    puzzles = dataclasses.replace(puzzles, ratings=np.arange(30, dtype=np.int32), sources=sources)
    SUDOKU.write_csv(tmp_path / name, puzzles)
    again = SUDOKU.read_boards(tmp_path / name)
    np.testing.assert_array_equal(again.questions, puzzles.questions)
    np.testing.assert_array_equal(again.answers, puzzles.answers)
    assert again.ratings.tolist() == list(range(30))
    assert again.sources == sources
    first = (tmp_path / name).read_bytes()
    SUDOKU.write_csv(tmp_path / name, again)
    assert (tmp_path / name).read_bytes() == first


def test_answer_rating_and_source_are_optional(tmp_path):
    path = written(tmp_path, "1.34341221434321", "", "1034041021034320", header="question")
    puzzles = SUDOKU.read_boards(path)
    assert to_text(puzzles.answers[0]) == ANSWER
    _, solutions, guesses = solve_many(puzzles.questions, SHAPE)
    np.testing.assert_array_equal(puzzles.answers, solutions)
    np.testing.assert_array_equal(puzzles.ratings, guesses)
    assert puzzles.sources is None
    assert to_text(puzzles.questions[1]) == "1.34.41.21.3432."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b,1.3.,1234341221434321,0", r"csv:3: question has 4 characters, expected 16"),
        (f"b,{'.' * 36},{'1' * 36},0", "csv:3: question has 36 characters"),
        ("b,1.3..4.22...4.2.,123434122143432,0", "csv:3: answer has 15 characters"),
        ("b,1.3..4.22...4.5.,1234341221434321,0", "csv:3: question, character 15: '5' is illegal"),
        ("b,1.3..4.22...4.é.,1234341221434321,0", "csv:3: question, character 15: 'é' is illegal"),
        ("b,1.3..4.22...4.2.,123434122143432.,0", r"csv:3: answer, character 16: '\.' is illegal"),
        ("b,1.31.4.22...4.2.,1234341221434321,0", "csv:3: contradictory puzzle: digit 1 .* row 1"),
        ("b,1.3..4.22...4.2.,1234341221434322,0", "csv:3: answer breaks the rules: digit 2"),
        (
            "b,4.............2.,1234341221434321,0",
            "csv:3: answer does not fit the question: row 1, column 1 is '1', the question has '4'",
        ),
        ("b,1...............,1234341221434321,0", "csv:3: puzzle with more than one solution"),
        ("b,1.3..4.22...4.2.,1234341221434321,easy", "csv:3: rating is 'easy'"),
        ("b,1.3..4.22...4.2.,1234341221434321,-1", "csv:3: rating is '-1'"),
        ("b,1.3..4.22...4.2.", "csv:3: 2 fields, expected 4"),
    ],
)
def test_bad_lines_are_refused_by_number(tmp_path, line, message):
    with pytest.raises(DataError, match=message):
        SUDOKU.read_boards(written(tmp_path, GOOD, line, GOOD))


def test_unsolvable_puzzles_are_refused(tmp_path):
    path = written(tmp_path, "123....4........", header="question")
    with pytest.raises(DataError, match=r"csv:2: unsolvable puzzle"):
        SUDOKU.read_boards(path)


@pytest.mark.parametrize("header", ["quizzes,solutions", "Puzzle, Solution", "quiz,answer"])
def test_columns_may_be_called_as_elsewhere(tmp_path, header):
    puzzles = SUDOKU.read_boards(written(tmp_path, "1034041021034320," + ANSWER, header=header))
    assert to_text(puzzles.questions[0]) == "1.34.41.21.3432."
    assert to_text(puzzles.answers[0]) == ANSWER


def test_ratings_may_be_decimal(tmp_path):
    header = "id,puzzle,solution,clues,difficulty"
    line = f"7,1.34.41.21.3432.,{ANSWER},11,"
    puzzles = SUDOKU.read_boards(written(tmp_path, line + "2.5", line + "3", header=header))
    assert puzzles.ratings.tolist() == [2.5, 3.0]
    np.testing.assert_array_equal(SUDOKU.puzzle_set(puzzles).ratings, [2.5, 3.0])
    SUDOKU.write_csv(tmp_path / "again.csv", puzzles)
    assert SUDOKU.read_boards(tmp_path / "again.csv").ratings.tolist() == [2.5, 3.0]
    for bad in ("nan", "inf", "1e99", "", "0x1", "1_0", "²"):
        with pytest.raises(DataError, match=rf"csv:2: rating is {bad!r}"):
            SUDOKU.read_boards(written(tmp_path, line + bad, header=header))


def test_what_packed_files_may_hold_is_limited(tmp_path, monkeypatch):
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"question\n" + b"1" * 2_000_000))
    with pytest.raises(DataError, match=r"gz:2: expected a line of less than 1048576"):
        SUDOKU.read_boards(path)
    path.write_bytes(gzip.compress(b"question\n" + b"1.34341221434321\n" * 2000))
    assert len(SUDOKU.read_boards(path)) == 2000
    monkeypatch.setenv("HRM_JAX_MAX_UNPACKED", "30000")
    with pytest.raises(DataError, match=r"gz: unpacks to more than 30000 bytes; .* HRM_JAX_MAX"):
        SUDOKU.read_boards(path)
    monkeypatch.setenv("HRM_JAX_MAX_UNPACKED", "much")
    with pytest.raises(
        DataError, match="HRM_JAX_MAX_UNPACKED: expected a number of bytes, got 'much'"
    ):
        SUDOKU.read_boards(path)


def test_line_numbers_count_empty_and_quoted_lines(tmp_path):
    path = written(tmp_path, "", '"two\nlines",1.3..4.22...4.2.,1234341221434321,0', "b,1,1,0")
    with pytest.raises(DataError, match="csv:5: question has 1 char"):
        SUDOKU.read_boards(path)


def test_files_that_are_no_puzzles_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        SUDOKU.read_boards(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"csv:1: header is 'board,key', .* among them question"):
        SUDOKU.read_boards(written(tmp_path, header="board,key"))
    with pytest.raises(DataError, match=r"csv:1: header is 'puzzle,question'"):
        SUDOKU.read_boards(written(tmp_path, header="puzzle,question"))
    with pytest.raises(DataError, match=r"csv:1: header is 'question,question'"):
        SUDOKU.read_boards(written(tmp_path, header="question,question"))
    with pytest.raises(DataError, match="there are no puzzles"):
        SUDOKU.read_boards(written(tmp_path))
    with pytest.raises(DataError, match=r"csv:2: question: .* 16, 36, 81 cells, not 5"):
        SUDOKU.read_boards(written(tmp_path, "12345", header="question"))
    path = tmp_path / "empty.csv"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"csv:1: header is ''"):
        SUDOKU.read_boards(path)
    path.write_bytes(b"question\n\xff\xfe\n")
    with pytest.raises(DataError, match="cannot be read"):
        SUDOKU.read_boards(path)
    packed = tmp_path / "cut.csv.gz"
    packed.write_bytes(gzip.compress(("question\n" + "1" * 16).encode())[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        SUDOKU.read_boards(packed)
    packed.write_bytes(b"question\n")
    with pytest.raises(DataError, match="cannot be read"):
        SUDOKU.read_boards(packed)


def test_overlap_is_found_exactly_and_up_to_symmetry():
    shape = SudokuShape.of(9)
    train, test = generate(shape, 20, (30, 30), 0), generate(shape, 10, (30, 30), 1)
    exactly, up_to_symmetry = SudokuData(), SudokuData(check_symmetry=True)
    SUDOKU.refuse_overlap(train, test, exactly)
    SUDOKU.refuse_overlap(train, test, up_to_symmetry)
    answers = test.answers.copy()
    answers[4] = train.answers[7]
    leak = dataclasses.replace(test, answers=answers)
    message = r"b\.csv, puzzle 5: its solution grid is that of a\.csv, puzzle 8; 1 of 10"
    with pytest.raises(DataError, match=message):
        SUDOKU.refuse_overlap(train, leak, exactly, "a.csv", "b.csv")
    answers[4] = answers[4] % 9 + 1  # relabelled
    SUDOKU.refuse_overlap(train, leak, exactly)
    with pytest.raises(DataError, match=r"test, puzzle 5: .*, up to symmetry, .* train, puzzle 8"):
        SUDOKU.refuse_overlap(train, leak, up_to_symmetry)


def test_puzzle_set_has_the_reference_s_tokens():
    puzzles = generate(SudokuShape.of(9), 5, (30, 30), 0)
    data = SUDOKU.puzzle_set(puzzles)
    meta = data.metadata
    assert (meta.vocab_size, meta.pad_id, meta.ignore_label_id, meta.seq_len) == (11, 0, 0, 81)
    assert data.inputs.min() == 1
    np.testing.assert_array_equal(from_tokens(data.labels), puzzles.answers)
    np.testing.assert_array_equal(data.ratings, puzzles.ratings)


def test_augmented_set_groups_each_puzzle_with_its_augmentations():
    shape = SudokuShape.of(9)
    puzzles = generate(shape, 4, (28, 28), 0)
    data = SUDOKU.puzzle_set(puzzles, 6, seed=1)
    assert data.inputs.shape == (28, 81)
    assert data.group_indices.tolist() == [0, 7, 14, 21, 28]
    assert data.puzzle_indices.tolist() == list(range(29))
    np.testing.assert_array_equal(data.inputs[::7], to_tokens(puzzles.questions))
    grids = from_tokens(data.labels)
    assert is_solution(grids, shape).all()
    assert len(np.unique(grids, axis=0)) == 28
    forms = canonical(puzzles.answers, shape)
    np.testing.assert_array_equal(canonical(grids, shape), np.repeat(forms, 7, axis=0))
    assert data.digest() == SUDOKU.puzzle_set(puzzles, 6, seed=1).digest()
    assert data.digest() != SUDOKU.puzzle_set(puzzles, 6, seed=2).digest()
    with pytest.raises(DataError, match="num_aug is -1"):
        SUDOKU.puzzle_set(puzzles, -1, 0)


needs_shared = pytest.mark.skipif(
    not SHARED.exists(), reason="no shared/data beside the repository"
)


@needs_shared
def test_reads_published_puzzles():
    train, test = (
        SUDOKU.read_boards(SHARED / "hardest" / f"{split}.csv") for split in ("train", "test")
    )
    assert (len(train), len(test)) == (1000, 2000)
    assert train.ratings[0] == 63
    np.testing.assert_array_equal(
        train.questions[0],
        parse("..8...1..9...1..5..5...2..9.4.3.....5...7..937...6..1.....5.9....51.6.7.6....7..."),
    )
    SUDOKU.refuse_overlap(train, test, SudokuData(check_symmetry=True))


@needs_shared
@pytest.mark.slow
def test_reads_many_puzzles_of_the_pool(tmp_path):
    with gzip.open(SHARED / "pool_train.csv.gz", "rt") as file:
        lines = list(itertools.islice(file, 20_001))
    (tmp_path / "pool.csv").write_text("".join(lines))
    assert len(SUDOKU.read_boards(tmp_path / "pool.csv")) == 20_000

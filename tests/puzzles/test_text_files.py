"""Puzzles in text files as people have them."""

import gzip

import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.text_files import read_line, read_questions, read_text

SUDOKU, MAZE, DOMINO = (PUZZLES[name] for name in ("sudoku", "maze", "domino"))
BOARD = "16.453.43....3.6....4.3.4.6......5.6"
OTHER = "1" + "." * 35
ROWS = [BOARD[start : start + 6] for start in range(0, 36, 6)]
PARTS = "\n".join(ROWS[:2]), "\n".join(ROWS[2:4]), "\n".join(ROWS[4:])
RULED = "\n".join(f"| {' '.join(row[:3])} | {' '.join(row[3:])} |" for row in ROWS)
MAZE_ROWS = ["    S", "#### ", "     ", " ####", "    G"]


def read(text, puzzle=SUDOKU, seq_len=36):
    questions, wrong = read_questions(text, puzzle, seq_len)
    return [puzzle.to_text(tokens) for tokens in questions], [(x.line, x.why) for x in wrong]


@pytest.mark.parametrize(
    "text",
    [
        f"{BOARD}\n",
        f"\ufeff{BOARD}\r\n",
        f"# two puzzles\n\n{BOARD}\n  # the end",
        f"{BOARD}:1:{OTHER}",
        f"{BOARD} easy one",
        f"{BOARD}\t2.5\n",
        f"{BOARD},{OTHER}",
        f"{BOARD}#17",
        BOARD.replace(".", "0"),
        " ".join(ROWS),
        "\n".join(ROWS),
        "\n\n".join(PARTS),
        "\n------+------\n".join(PARTS),
        RULED,
        f"+---+---+\n{RULED}\n+---+---+",
        f"quizzes,solutions\n{BOARD},{OTHER}\n",
        f"id,Puzzle\n7,{BOARD}\n",
        f'# from elsewhere\nsource,question\n"a, b",{BOARD}\n',
    ],
)
def test_what_is_clear_is_read(text):
    assert read(text) == ([BOARD], [])


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        (f"{BOARD}\n{BOARD[1:]}\n{OTHER}", 2, "board has 35 characters, expected 36"),
        (f"{BOARD}\n{BOARD}1\n{OTHER}", 2, "board has 37 characters"),
        (f"{BOARD}\n\n7{BOARD[1:]}\n{OTHER}", 3, "row 1, column 1: '7' is illegal"),
        (f"{BOARD}\npuzzles.txt\n{OTHER}", 2, "board has 11 characters"),
        (f"{BOARD}\n1{BOARD[1:35]}\n{OTHER}", 2, "board has 35 characters"),
        ("\n".join([*ROWS, "#", *ROWS[1:], "#", OTHER]), 8, "5 rows of 6 cells, expected boards"),
        ("\n".join([*ROWS, "", *ROWS[1:], "", OTHER]), 8, "5 rows of 6 cells, expected boards"),
        (f"puzzle\n{BOARD}\n5\n{OTHER}", 3, "board has 1 char"),
        (f"id,puzzle\n1,{BOARD}\n2\n3,{OTHER}", 3, "1 fields, expected 2"),
    ],
)
def test_good_lines_are_read_beside_bad_ones(text, line, why):
    boards, ((number, reason),) = read(text)
    assert boards == [BOARD, OTHER]
    assert number == line
    assert reason.startswith(why)


def test_boards_one_below_the_other():
    assert read("\n".join(ROWS * 3)) == ([BOARD] * 3, [])
    assert read("\n".join(ROWS) + "\n\n" + "\n".join(ROWS)) == ([BOARD] * 2, [])
    assert read("\n\n".join(PARTS * 2)) == ([BOARD] * 2, [])


def test_no_board_is_made_of_parts_of_two():
    """A board that lacks a row or a box must not take it from the next one."""
    for lines in (
        [*ROWS[1:], "", *ROWS[:1]],
        [*ROWS[:2], "", *ROWS[2:3], "", *ROWS[4:], *ROWS[:1]],
    ):
        boards, wrong = read("\n".join(lines))
        assert boards == []
        assert [line for line, _ in wrong] == [1]


def test_blanks_and_hashes_of_mazes_are_cells():
    maze = "".join(MAZE_ROWS)
    for text in (maze, "\n".join(MAZE_ROWS), f"# two mazes\n{maze} a name", f"{maze}:7"):
        assert read(text, MAZE, 25) == ([maze], [])
    for bad in (maze[:-1], f"{maze} #", f"#{maze}"):
        (boards, ((line, why),)) = read(bad, MAZE, 25)
        assert (boards, line) == ([], 1)
        assert why.startswith(f"board has {len(bad)} characters, expected 25")


def test_dominoes_are_lines():
    text = "# positions\ntable 2|5 5|3; hand 2|3 0|2\n\nhand 9|9\n"
    boards, ((line, why),) = read(text, DOMINO, 72)
    assert boards == ["table 2|5 5|3; hand 2|3 0|2"]
    assert line == 4
    assert "'9|9' is no tile" in why


def test_one_line_is_read_as_in_a_file():
    assert SUDOKU.to_text(read_line(f"{BOARD}:1:x", SUDOKU, 36)) == BOARD
    with pytest.raises(DataError, match="board has 76 characters, expected 81"):
        read_line(f"{BOARD}:1:{OTHER}1", SUDOKU, 81)


def test_files(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    for data in (BOARD.encode("utf-8-sig"), BOARD.encode("utf-16"), BOARD.encode()):
        path.write_bytes(data)
        assert read_text(path) == BOARD
    (tmp_path / "a.gz").write_bytes(gzip.compress(BOARD.encode()))
    assert read_text(tmp_path / "a.gz") == BOARD
    monkeypatch.setenv("HRM_JAX_MAX_UNPACKED", "30")
    with pytest.raises(DataError, match=r"a\.gz: unpacks to more than 30 bytes"):
        read_text(tmp_path / "a.gz")
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"a\.txt: damaged, or not .* puzzles as text in UTF-8"):
        read_text(path)

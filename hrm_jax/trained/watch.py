"""A person at a terminal who types Sudokus or mazes and watches a model solve them."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from hrm_jax.puzzles.maze import board as maze
from hrm_jax.puzzles.maze.scores import path_moves
from hrm_jax.puzzles.maze.solver import solve_many
from hrm_jax.puzzles.sudoku import board as sudoku
from hrm_jax.tasks.puzzles.model import PuzzleModel, Solution
from hrm_jax.trained.evaluate import held_out
from hrm_jax.trained.play import Console

_BOARD_HELP = """\
  Type or paste {what}, row by row or all on one line.
  example    take one of the run's held-out puzzles
  clear      begin the puzzle anew
  quit       leave"""


@dataclasses.dataclass(frozen=True)
class Boards:
    """What a puzzle on a board looks like when it is typed.

    Attributes:
        height, width: Rows and columns.
        what: What to type, for people.
        legal: What each character that may be typed stands for.
        ignored: Characters that are left out.
        problem: Says what is wrong with a whole board, None if nothing is.
        verdict: Says how good an answer to a board is.
    """

    height: int
    width: int
    what: str
    legal: dict[str, str]
    ignored: str
    problem: Callable[[str], str | None]
    verdict: Callable[[str, Solution], str]

    @classmethod
    def of(cls, model: PuzzleModel) -> Boards:
        """The boards that a model was trained on.

        Raises:
            ValueError: They are neither Sudokus nor mazes.
        """
        if model.puzzle == "sudoku":
            return _sudokus(sudoku.SudokuShape.for_cells(model.config.seq_len))
        if model.puzzle == "maze":
            return _mazes(maze.MazeShape.for_cells(model.config.seq_len))
        raise ValueError(
            f"expected a run on Sudoku, mazes or dominoes, this one is on "
            f"{model.puzzle or 'unknown puzzles'}"
        )


def _sudokus(shape: sudoku.SudokuShape) -> Boards:
    def verdict(_: str, solution: Solution) -> str:
        return "The board keeps the rules." if solution.valid else "The board breaks the rules."

    return Boards(
        shape.size,
        shape.size,
        f"a {shape.size}×{shape.size} Sudoku (. for a blank)",
        {c: "." if c == "0" else c for c in sudoku.digits_of_text(shape)},
        " \t|+-",
        lambda text: sudoku.contradictions(sudoku.parse(text, shape), shape),
        verdict,
    )


def _mazes(shape: maze.MazeShape) -> Boards:
    def problem(text: str) -> str | None:
        board = maze.parse(text, shape)
        wrong = maze.problem(board, shape)
        if wrong is None and solve_many(board[None], shape)[1][0] < 0:
            wrong = "there is no way from S to G"
        return wrong

    def verdict(text: str, solution: Solution) -> str:
        board = maze.parse(text, shape)[None]
        shortest = int(solve_many(board, shape)[1][0])
        moves = int(path_moves(solution.tokens[None], board, shape)[0])
        if moves < 0:
            return "What it marks is no path from S to G."
        if moves > shortest:
            return f"A path of {moves} moves; the shortest has {shortest}."
        return f"A path of {moves} moves, and none is shorter."

    return Boards(
        shape.height,
        shape.width,
        f"a {shape.height}×{shape.width} maze (# wall, . or blank free, one S, one G)",
        {c: c for c in "# SG"} | {".": " "},
        "",
        problem,
        verdict,
    )


def held_out_puzzle(workdir: str | os.PathLike[str], model: PuzzleModel, random: Random) -> str:
    """One of the Sudokus or mazes that a run was tested on, as text.

    Raises:
        WorkdirError: There is no run, or the data have changed since.
    """
    puzzles = held_out(workdir)
    tokens = puzzles.inputs[random.randrange(len(puzzles))]
    if model.puzzle == "maze":
        return maze.to_text(tokens)
    return sudoku.to_text(sudoku.from_tokens(tokens))


def read_board(console: Console, boards: Boards, example: Callable[[], str]) -> str:
    """Reads one board, row by row or all at once, until it is a puzzle.

    Args:
        console: Where the person is.
        boards: What to read.
        example: Gives a puzzle for the command `example`.

    Returns:
        The board as text, row by row.

    Raises:
        Leave: The person leaves.
    """
    cells, text = boards.height * boards.width, ""
    help_text = _BOARD_HELP.format(what=boards.what)
    while True:
        line = console.ask(f"row {len(text) // boards.width + 1}> ", help_text)
        word = line.strip().lower()
        if word == "example":
            text = example()
            starts = range(0, cells, boards.width)
            console.say("\n".join(text[start : start + boards.width] for start in starts))
            return text
        if word == "clear":
            text = ""
            continue
        row = "".join(c for c in line if c not in boards.ignored)
        strange = next((c for c in row if c not in boards.legal), None)
        if strange is not None:
            console.say(f"{strange!r} does not belong there; expected {boards.what}. Again:")
        elif len(row) == boards.width or (len(row) == cells and not text):
            text += "".join(boards.legal[c] for c in row)
        elif row:
            console.say(
                f"{len(row)} cells; expected {boards.width} for a row, or {cells} for the board. "
                "Again:"
            )
        if len(text) == cells:
            wrong = boards.problem(text)
            if wrong is None:
                return text
            console.say(f"That is no puzzle: {wrong}. Begin anew:")
            text = ""


def watch(console: Console, frames: Sequence[str], *, delay: float = 0.0) -> None:
    """Shows boards one after the other, on a terminal each in the place of the one before.

    Args:
        console: Where to show them.
        frames: Lines of text, of the same number for all.
        delay: Seconds between them.
    """
    for number, frame in enumerate(frames):
        if number:
            time.sleep(delay)
        if number and console.ansi:
            console.output.write(f"\x1b[{frame.count(chr(10)) + 1}F")
        console.say(frame)
        if not console.ansi:
            console.say()


def watch_puzzles(
    console: Console,
    model: PuzzleModel,
    frames: Callable[[str, Any], list[str]],
    example: Callable[[], str],
    *,
    legend: str = "",
    delay: float = 0.0,
    **options: Any,
) -> None:
    """Asks for puzzles and shows how they are solved, until the person leaves.

    Args:
        console: Where the person is.
        model: Trained on Sudoku or mazes.
        frames: From a question as text and the boards after each ACT step, tokens [K, S], to what
            is shown.
        example: Gives a puzzle for the command `example`.
        legend: What the marks mean.
        delay: Seconds between boards.
        **options: For `PuzzleModel.solve`.

    Raises:
        Leave: The person leaves.
        ValueError: A model of other puzzles, or bad options.
    """
    boards = Boards.of(model)
    console.say(f"Type {boards.what}, or one of example, help, quit.")
    while True:
        question = read_board(console, boards, example)
        solution = model.solve(question, trace=True, **options)
        watch(console, frames(question, solution.trace), delay=delay)
        steps = f"{solution.steps} ACT step{'s' if solution.steps > 1 else ''}"
        console.say(f"{legend}\nAfter {steps}: {boards.verdict(question, solution)}\n")

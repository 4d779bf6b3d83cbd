"""A person at a terminal who types puzzles and watches a model solve them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.console import Console
from hrm_jax.puzzles.drawing.traces import trace_frames
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.trained.evaluate import held_out

_HELP = """\
  Type or paste {what}, row by row or all on one line.
  example    take one of the run's held-out puzzles
  clear      begin the puzzle anew
  quit       leave"""


def held_out_puzzle(workdir: str | os.PathLike[str], model: PuzzleModel, random: Random) -> str:
    """One of the puzzles that a run was tested on, as text."""
    puzzles = held_out(workdir)
    return model.known().to_text(puzzles.inputs[random.randrange(len(puzzles))])


def read_board(console: Console, model: PuzzleModel, example: Callable[[], str]) -> str:
    """Reads one board, row by row or all at once, until it is a puzzle; returns it as one line.

    `example` gives a puzzle for the command of that name. `Leave` is raised when the person leaves.
    """
    puzzle, cells = model.known(), model.config.seq_len
    typing, shape = puzzle.typing(cells), puzzle.shape(cells)
    if typing is None or shape is None:
        raise ValueError(f"{puzzle.name} puzzles are not typed row by row")
    width, text = shape[1], ""
    while True:
        prompt = f"row {len(text) // width + 1}> "
        line = console.ask(prompt, _HELP.format(what=typing.what))
        word = line.strip().lower()
        if word == "example":
            text = example()
            console.say("\n".join(text[start : start + width] for start in range(0, cells, width)))
            return text
        if word == "clear":
            text = ""
            continue
        strange = next((c for c in line if c not in typing.characters), None)
        row = "".join(typing.characters.get(c, "") for c in line)
        if strange is not None:
            console.say(f"{strange!r} does not belong there; expected {typing.what}. Again:")
        elif len(row) == width or (len(row) == cells and not text):
            text += row
        elif row:
            console.say(
                f"{len(row)} cells; expected {width} for a row, or {cells} for the board. Again:"
            )
        if len(text) == cells:
            try:
                puzzle.parse(text, cells)
                return text
            except DataError as error:
                console.say(f"That is no puzzle: {error}. Begin anew:")
                text = ""


def watch(console: Console, frames: Sequence[str], *, delay: float = 0.0) -> None:
    """Shows boards of as many lines one after the other, `delay` seconds apart.

    On a terminal each takes the place of the one before.
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
    example: Callable[[], str],
    *,
    delay: float = 0.0,
    **options: Any,
) -> None:
    """Asks for puzzles and shows how they are solved, until the person leaves.

    `options` are those of `PuzzleModel.solve`, the others as in `read_board` and `watch`.
    """
    puzzle, length = model.known(), model.config.seq_len
    if typing := puzzle.typing(length):
        console.say(f"Type {typing.what}, or one of example, help, quit.")
    while True:
        question = puzzle.parse(read_board(console, model, example), length)
        solution = model.solve(question, trace=True, **options)
        frames = trace_frames(puzzle.painter, question, solution.trace, colour=console.ansi)
        watch(console, frames, delay=delay)
        steps = f"{solution.steps} ACT step{'s' if solution.steps > 1 else ''}"
        verdict = puzzle.verdict(question, solution.tokens)
        console.say(f"{puzzle.painter.marks(console.ansi)}\nAfter {steps}: {verdict}\n")

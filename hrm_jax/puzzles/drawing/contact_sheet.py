"""A page of solved and failed puzzles: the question, the model's answer, the right one."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hrm_jax.files import atomic_path
from hrm_jax.puzzles.arc.tokens import FIRST_COLOUR, grid_sizes
from hrm_jax.puzzles.drawing.pen import DIM, GREEN, RED, Pen
from hrm_jax.puzzles.drawing.puzzle_pictures import (
    domino_height,
    draw_arc,
    draw_domino,
    draw_maze,
    draw_sudoku,
)

Array = npt.NDArray[Any]
Kind = Literal["sudoku", "maze", "domino", "arc"]

_SIDE = 168  # pixels of a board
_GAP, _CARD_GAP, _MARGIN = 10, 30, 26
_WIDTH = 2 * _MARGIN + 3 * (3 * _SIDE + 2 * _GAP) + 2 * _CARD_GAP
_HEADER, _SECTION, _TITLE, _CAPTION = 92, 40, 22, 18
_DOMINO = (_WIDTH - 2 * _MARGIN - 2 * _CARD_GAP) // 3


@dataclasses.dataclass(frozen=True)
class _Example:
    """One puzzle and how the model did."""

    number: int
    question: Array
    label: Array
    answer: Array
    steps: int
    solved: bool
    wrong: int
    verdicts: dict[str, bool]


_NAMES = {"sudoku": "Sudokus", "maze": "mazes", "domino": "domino positions", "arc": "ARC grids"}
_DRAW = {"sudoku": draw_sudoku, "maze": draw_maze, "arc": draw_arc}
_LEGENDS = {
    "sudoku": "Bold black: given. Blue: filled in. Red: not as in the right answer.",
    "maze": "Blue: the path. Green S, red G. Red frames: not as in the right answer. A path that "
    "is as short as the right answer's is solved too.",
    "domino": "Green edge: the tile of the right move. Red or blue edge: what the model chose "
    "instead; blue if it is as heavy, which is solved too.",
    "arc": "Crossed: not as in the right answer. Each augmentation is a puzzle of its own here; no "
    "votes.",
}


def contact_sheet(
    path: str | os.PathLike[str],
    kind: Kind,
    inputs: Array,
    labels: Array,
    predictions: Array,
    steps: Array,
    solved: Array,
    *,
    verdicts: Mapping[str, Array] | None = None,
    num: int = 24,
) -> pathlib.Path:
    """Draws some solved and some failed puzzles, half of each where there are as many.

    Solved ones run from few ACT steps to many, failed ones from few wrong cells to many.

    Args:
        path: PNG file to write, atomically.
        kind: What the tokens mean.
        inputs, labels, predictions: Tokens [N, S], N at least 1. Labels of 0 are not compared.
        steps: ACT steps taken [N].
        solved: Which answers are good, bool [N]; they may differ from the labels.
        verdicts: Further verdicts by name, bool [N]: "valid" of mazes, "legal" of dominoes.
        ignore: Label that is not compared.
        num: Puzzles to draw.

    Returns:
        `path`.

    Raises:
        ValueError: The arrays do not fit each other, or there are no puzzles.
        OSError: The file cannot be written.
    """
    count, verdicts = len(inputs), verdicts or {}
    if not count or num < 1:
        raise ValueError(f"expected at least 1 puzzle to draw, got num={num} of {count}")
    shapes = {"labels": (labels, inputs.shape), "predictions": (predictions, inputs.shape)}
    for name, array in {"steps": steps, "solved": solved, **verdicts}.items():
        shapes[name] = (array, (count,))
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    wrong = ((predictions != labels) & (labels != 0)).sum(1)
    good = np.flatnonzero(solved)[np.argsort(steps[solved], kind="stable")]
    bad = np.flatnonzero(~solved)[np.argsort(wrong[~solved], kind="stable")]
    failures = min(len(bad), max(num // 2, num - len(good)))
    sections = []
    for name, rows, some in (("Solved", good, num - failures), ("Failed", bad, failures)):
        examples = []
        for row in _spread(rows, some):
            question, label, answer = (x[row].astype(int) for x in (inputs, labels, predictions))
            said = {key: bool(value[row]) for key, value in verdicts.items()}
            examples.append(
                _Example(
                    row, question, label, answer, int(steps[row]), bool(solved[row]),
                    int(wrong[row]), said,
                )
            )  # fmt: skip
        if examples:
            sections.append((f"{name}: {len(rows):,} of {count:,}", examples))
    head = f"Held-out {_NAMES[kind]}: {solved.mean():.1%} of {count:,} solved"
    with atomic_path(path) as temporary:
        _draw(kind, head, sections).image().save(temporary, format="PNG")
    return pathlib.Path(path)


def _spread(rows: Array, num: int) -> list[int]:
    """Up to `num` of the rows, evenly spread over them, the first and the last among them."""
    places = np.linspace(0, len(rows) - 1, min(num, len(rows))).round().astype(int)
    return [int(row) for row in rows[places]]


def _draw(kind: Kind, head: str, sections: Sequence[tuple[str, list[_Example]]]) -> Pen:
    titles: list[tuple[int, str, str]] = []  # with where each goes
    cards: list[tuple[int, int, _Example]] = []
    y = _HEADER
    for title, examples in sections:
        solved = examples[0].solved
        titles.append((y, title, GREEN if solved else RED))
        y += _SECTION
        width = _DOMINO if kind == "domino" else (2 if solved else 3) * (_SIDE + _GAP) - _GAP
        beside = (_WIDTH - 2 * _MARGIN + _CARD_GAP) // (width + _CARD_GAP)
        for start in range(0, len(examples), beside):
            line = examples[start : start + beside]
            for place, example in enumerate(line):
                cards.append((_MARGIN + place * (width + _CARD_GAP), y, example))
            y += max(_card_height(kind, example) for example in line) + _CARD_GAP // 2
        y += _CARD_GAP // 2
    pen = Pen(_WIDTH, y)
    pen.text(_MARGIN, 22, head, 22, bold=True)
    pen.text(_MARGIN, 56, _LEGENDS[kind], ink=DIM)
    for y, title, ink in titles:
        pen.text(_MARGIN, y, title, 17, ink, bold=True)
    for x, y, example in cards:
        _draw_card(pen.at(x, y), kind, example)
    return pen


def _card_height(kind: Kind, example: _Example) -> int:
    if kind == "domino":
        return _TITLE + domino_height(_DOMINO, example.question)
    return _TITLE + _CAPTION + _SIDE


def _draw_card(pen: Pen, kind: Kind, example: _Example) -> None:
    steps = f"{example.steps} ACT step{'s' if example.steps > 1 else ''}"
    pen.text(0, 0, f"#{example.number}: {steps}; {_verdict(kind, example)}")
    question, answer, label = example.question, example.answer, example.label
    if kind == "domino":
        draw_domino(pen.at(0, _TITLE), _DOMINO, question, answer, label, example.solved)
        return
    panels = [("question", question, None), ("model", answer, None if example.solved else label)]
    if not example.solved:
        panels.append(("right answer", label, None))
    for place, (name, board, compared) in enumerate(panels):
        panel = pen.at(place * (_SIDE + _GAP), _TITLE)
        panel.text(0, 0, name, 11, DIM)
        _DRAW[kind](panel.at(0, _CAPTION), _SIDE, question, board, compared)


def _verdict(kind: Kind, example: _Example) -> str:
    """What to say of an answer."""
    number = example.wrong
    if example.solved:
        return "another good answer" if number else "right"
    if kind == "maze" and example.verdicts.get("valid"):
        return "a path, but not a shortest one"
    if kind == "domino":
        legal = example.verdicts.get("legal")
        return "legal, but a heavier tile fits" if legal else "not legal"
    if kind == "arc":
        found, right = (
            f"{height[0]}×{width[0]}"
            for height, width in map(grid_sizes, (example.answer[None], example.label[None]))
        )
        if found != right:
            return f"{found} instead of {right}"
        colours = example.label >= FIRST_COLOUR
        number = int((example.answer != example.label)[colours].sum())
        if not number:
            return "the grid is right, the marks of its end are not"
    wrong = f"{number} cell{'s' if number > 1 else ''} wrong"
    return f"not a path, {wrong}" if kind == "maze" else wrong

"""A page of solved and failed puzzles: the question, the model's answer, the right one."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from hrm_jax.files import atomic_path
from hrm_jax.puzzles.drawing.painter import Array, Painter, differs
from hrm_jax.puzzles.drawing.pen import DIM, GREEN, RED, Pen

_SIDE = 168  # pixels of a board
_GAP, _CARD_GAP, _MARGIN = 10, 30, 26
_CARD = 3 * _SIDE + 2 * _GAP
_WIDTH = 2 * _MARGIN + 3 * _CARD + 2 * _CARD_GAP
_HEADER, _SECTION, _TITLE, _CAPTION = 92, 40, 22, 18


class _Example(NamedTuple):
    question: Array
    answer: Array
    label: Array
    good: bool
    title: str


def contact_sheet(
    path: str | os.PathLike[str],
    painter: Painter,
    inputs: Array,
    labels: Array,
    predictions: Array,
    steps: Array,
    good: Array,
    verdicts: Mapping[str, Array] | None = None,
    *,
    num: int = 24,
) -> pathlib.Path:
    """Draws some solved and some failed puzzles, half of each where there are as many.

    Solved ones run from few ACT steps to many, failed ones from few wrong cells to many.

    Args:
        path: PNG file to write, atomically.
        painter: Of the puzzles.
        inputs, labels, predictions: Tokens [N, S], N at least 1. Labels of 0 are not compared.
        steps: ACT steps taken [N].
        good: Which answers are, bool [N]; they may differ from the labels.
        verdicts: Further scores by name, bool [N], for `Painter.verdict`.
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
    boards = {"labels": labels, "predictions": predictions}
    for name, array in {**boards, "steps": steps, "good": good, **verdicts}.items():
        shape = inputs.shape if name in boards else (count,)
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {shape}")

    def example(row: int) -> _Example:
        question, answer, label = (x[row].astype(int) for x in (inputs, predictions, labels))
        if good[row]:
            said = "another good answer" if differs(answer, label).any() else "right"
        else:
            said = painter.verdict(answer, label, {k: bool(x[row]) for k, x in verdicts.items()})
        title = f"#{row}: {steps[row]} ACT step{'s' if steps[row] > 1 else ''}; {said}"
        return _Example(question, answer, label, bool(good[row]), title)

    wrong = ((predictions != labels) & (labels != 0)).sum(1)
    solved = np.flatnonzero(good)[np.argsort(steps[good], kind="stable")]
    failed = np.flatnonzero(~good)[np.argsort(wrong[~good], kind="stable")]
    failures = min(len(failed), max(num // 2, num - len(solved)))
    sections = {
        f"{name}: {len(rows):,} of {count:,}": [example(row) for row in _spread(rows, some)]
        for name, rows, some in (("Solved", solved, num - failures), ("Failed", failed, failures))
    }
    head = f"Held-out {painter.plural}: {good.mean():.1%} of {count:,} solved"
    sheet = _draw(painter, head, sections)
    with atomic_path(path) as temporary:
        sheet.image().save(temporary, format="PNG")
    return pathlib.Path(path)


def _spread(rows: Array, num: int) -> list[int]:
    """Up to `num` of the rows, evenly spread over them, the first and the last among them."""
    places = np.linspace(0, len(rows) - 1, min(num, len(rows))).round().astype(int)
    return [int(row) for row in rows[places]]


def _draw(painter: Painter, head: str, sections: Mapping[str, list[_Example]]) -> Pen:
    cards: list[tuple[int, int, _Example]] = []  # and where each goes
    titles: list[tuple[int, str, str]] = []
    y = _HEADER
    for title, examples in sections.items():
        if not examples:
            continue
        good = examples[0].good
        titles.append((y, title, GREEN if good else RED))
        y += _SECTION
        width = 2 * _SIDE + _GAP if good and painter.panels else _CARD
        beside = (_WIDTH - 2 * _MARGIN + _CARD_GAP) // (width + _CARD_GAP)
        for start in range(0, len(examples), beside):
            line = examples[start : start + beside]
            for place, example in enumerate(line):
                cards.append((_MARGIN + place * (width + _CARD_GAP), y, example))
            y += max(_height(painter, example.question) for example in line) + _CARD_GAP // 2
        y += _CARD_GAP // 2
    pen = Pen(_WIDTH, y)
    pen.text(_MARGIN, 22, head, 22, bold=True)
    pen.text(_MARGIN, 56, painter.legend, ink=DIM)
    for y, title, ink in titles:
        pen.text(_MARGIN, y, title, 17, ink, bold=True)
    for x, y, example in cards:
        _draw_card(pen.at(x, y), painter, *example)
    return pen


def _height(painter: Painter, question: Array) -> int:
    if painter.panels:
        return _TITLE + _CAPTION + painter.height(_SIDE, question)
    return _TITLE + painter.height(_CARD, question)


def _draw_card(
    pen: Pen, painter: Painter, question: Array, answer: Array, label: Array, good: bool, title: str
) -> None:
    pen.text(0, 0, title)
    if not painter.panels:
        painter.draw(pen.at(0, _TITLE), _CARD, question, answer, label, good=good)
        return
    panels = {"question": question, "model": answer, "right answer": label}
    for place, (name, board) in enumerate(panels.items()):
        if place < 2 or not good:
            panel = pen.at(place * (_SIDE + _GAP), _TITLE)
            panel.text(0, 0, name, 11, DIM)
            compared = label if name == "model" and not good else None
            painter.draw(panel.at(0, _CAPTION), _SIDE, question, board, compared)

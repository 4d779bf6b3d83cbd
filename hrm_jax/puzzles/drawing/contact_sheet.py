"""A page of solved and failed puzzles: the question, the model's answer, the right one."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from hrm_jax.files import atomic_path
from hrm_jax.puzzles.drawing.painter import Array, Painter, Shown, differs
from hrm_jax.puzzles.drawing.pen import DIM, GREEN, RED, Pen

_SIDE = 168  # pixels of a board
_GAP, _CARD_GAP, _MARGIN = 10, 30, 26
_CARD = 3 * _SIDE + 2 * _GAP
_WIDTH = 2 * _MARGIN + 3 * _CARD + 2 * _CARD_GAP
_HEADER, _SECTION, _TITLE, _CAPTION = 92, 40, 22, 18


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
    """Draws `num` puzzles, solved and failed ones, half of each where there are as many, as PNG.

    Solved ones run from few ACT steps [N] to many, failed ones from few wrong cells to many. Which
    answers are `good`, bool [N], need not be those that equal the labels; labels of 0 are not
    compared. `verdicts` are further scores, bool [N], for `Painter.verdict`.

    Raises:
        ValueError: The arrays do not fit each other, or there are no puzzles.
    """
    count, verdicts = len(inputs), verdicts or {}
    if not count or num < 1:
        raise ValueError(f"expected at least 1 puzzle to draw, got num={num} of {count}")
    boards = {"labels": labels, "predictions": predictions}
    for name, array in {**boards, "steps": steps, "good": good, **verdicts}.items():
        shape = inputs.shape if name in boards else (count,)
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {shape}")

    wrong = ((predictions != labels) & (labels != 0)).sum(1)
    solved = np.flatnonzero(good)[np.argsort(steps[good], kind="stable")]
    failed = np.flatnonzero(~good)[np.argsort(wrong[~good], kind="stable")]
    failures = min(len(failed), max(num // 2, num - len(solved)))
    cards: list[tuple[int, int, int]] = []  # x, y and row of each puzzle
    titles: list[tuple[int, str, str]] = []
    y = _HEADER
    for name, rows, some, ink in (
        ("Solved", solved, num - failures, GREEN),
        ("Failed", failed, failures, RED),
    ):
        if not min(some, len(rows)):
            continue
        places = np.linspace(0, len(rows) - 1, min(some, len(rows))).round().astype(int)
        chosen = rows[places].tolist()
        titles.append((y, f"{name}: {len(rows):,} of {count:,}", ink))
        y += _SECTION
        width = 2 * _SIDE + _GAP if ink == GREEN and painter.panels else _CARD
        beside = (_WIDTH - 2 * _MARGIN + _CARD_GAP) // (width + _CARD_GAP)
        for start in range(0, len(chosen), beside):
            line = chosen[start : start + beside]
            cards += [(_MARGIN + k * (width + _CARD_GAP), y, row) for k, row in enumerate(line)]
            y += max(_height(painter, inputs[row]) for row in line) + _CARD_GAP // 2
        y += _CARD_GAP // 2

    pen = Pen(_WIDTH, y)
    head = f"Held-out {painter.plural}: {good.mean():.1%} of {count:,} solved"
    pen.text(_MARGIN, 22, head, 22, bold=True)
    pen.text(_MARGIN, 56, painter.legend, ink=DIM)
    for y, title, ink in titles:
        pen.text(_MARGIN, y, title, 17, ink, bold=True)
    for x, y, row in cards:
        question, answer, label = (a[row].astype(int) for a in (inputs, predictions, labels))
        shown = Shown(question, answer, label, good=bool(good[row]))
        if shown.good:
            said = "another good answer" if differs(answer, label).any() else "right"
        else:
            said = painter.verdict(answer, label, {k: bool(v[row]) for k, v in verdicts.items()})
        title = f"#{row}: {steps[row]} ACT step{'s' if steps[row] > 1 else ''}; {said}"
        _draw_card(pen.at(x, y), painter, title, shown)
    with atomic_path(path) as temporary:
        pen.image().save(temporary, format="PNG")
    return pathlib.Path(path)


def _height(painter: Painter, question: Array) -> int:
    if painter.panels:
        return _TITLE + _CAPTION + painter.height(_SIDE, question)
    return _TITLE + painter.height(_CARD, question)


def _draw_card(pen: Pen, painter: Painter, title: str, shown: Shown) -> None:
    pen.text(0, 0, title)
    if not painter.panels:
        painter.draw(pen.at(0, _TITLE), _CARD, shown)
        return
    panels = {"question": shown.question, "model": shown.board, "right answer": shown.label}
    for place, (name, board) in enumerate(panels.items()):
        if board is not None and (place < 2 or not shown.good):
            panel = pen.at(place * (_SIDE + _GAP), _TITLE)
            panel.text(0, 0, name, 11, DIM)
            compared = shown.label if name == "model" and not shown.good else None
            painter.draw(panel.at(0, _CAPTION), _SIDE, Shown(shown.question, board, compared))

"""A page of worlds with questions about them, and what was answered."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from hrm_jax.data.questions.base import Questions, Worlds
from hrm_jax.data.questions.sort_of_clevr import COLOURS, RADIUS, SHAPES, SIDE, Scenes
from hrm_jax.files import atomic_path
from hrm_jax.puzzles.drawing.pen import DIM, GREEN, GREY, RED, Pen
from hrm_jax.tasks.relational.evaluation import Answers

_SCALE = 2.4  # of a scene
_PICTURE = round(SIDE * _SCALE)
_LINE, _GAP, _MARGIN, _HEADER = 16, 24, 24, 64
_CARD = 470
_BESIDE = 3  # cards
_ASKED = 4  # questions in a card


def told(worlds: Worlds, questions: Questions, found: Answers, world: int) -> list[str]:
    """A world, a few questions about it with their answers, and the right ones of wrong ones."""
    right = worlds.answers()
    chosen = _chosen(questions, found, right, world)
    asked = [_answer(questions, found, right, world, k)[0] for k in chosen]
    return [*worlds.lines(world), *asked]


def contact_sheet(
    path: str | os.PathLike[str],
    worlds: Worlds,
    questions: Questions,
    found: Answers,
    title: str,
    *,
    num: int = 12,
) -> pathlib.Path:
    """Draws `num` worlds with what was `found` about them, [W, K], as PNG: half of them with wrong
    answers, where there are as many, and of each the wrong answers first."""
    right = worlds.answers()
    wrong = ((found != right) & (right >= 0)).sum(1)
    failed, solved = np.flatnonzero(wrong), np.flatnonzero(wrong == 0)
    failures = min(len(failed), max(num // 2, num - len(solved)))
    shown = [*failed[:failures].tolist(), *solved[: num - failures].tolist()]
    height = _PICTURE + (1 + _ASKED) * _LINE + _GAP
    down = -(-len(shown) // _BESIDE)
    pen = Pen(2 * _MARGIN + _BESIDE * _CARD + (_BESIDE - 1) * _GAP, _HEADER + down * height)
    pen.text(_MARGIN, 22, title, 22, bold=True)
    for number, world in enumerate(shown):
        row, column = divmod(number, _BESIDE)
        card = pen.at(_MARGIN + column * (_CARD + _GAP), _HEADER + row * height)
        card.text(0, 0, f"#{world}: {wrong[world]} wrong of {(right[world] >= 0).sum()}")
        _draw(card.at(0, _LINE + 4), worlds, world)
        for place, k in enumerate(_chosen(questions, found, right, world)):
            text, ink = _answer(questions, found, right, world, k)
            card.text(0, _PICTURE + (1.6 + place) * _LINE, text, 11, ink)
    with atomic_path(path) as temporary:
        pen.image().save(temporary, format="PNG")
    return pathlib.Path(path)


def _draw(pen: Pen, worlds: Worlds, world: int) -> None:
    if not isinstance(worlds, Scenes):
        for number, line in enumerate(worlds.lines(world)):
            pen.text(0, number * 0.9 * _LINE, line, 11, DIM)
        return
    pen.box(0, 0, _PICTURE, _PICTURE, edge=GREY)
    half = (RADIUS + 0.5) * _SCALE
    for k, colour in enumerate(COLOURS.values()):
        x, y = ((place + 0.5) * _SCALE for place in worlds.places[world, k].tolist())
        ink = "#" + bytes(colour).hex()
        if SHAPES[worlds.shapes[world, k]] == "circle":
            pen.dot(x, y, half, ink)
        else:
            pen.box(x - half, y - half, 2 * half, 2 * half, ink)


def _chosen(questions: Questions, found: Answers, right: Answers, world: int) -> list[int]:
    """A few questions about a world: wrong answers first, then relational ones, of all kinds."""
    asked = np.flatnonzero(right[world] >= 0)
    turn = (asked + world) % 7  # so that worlds have questions about different objects
    keys = (turn, ~questions.relational[asked], found[world, asked] == right[world, asked])
    ordered = asked[np.lexsort(keys)]
    return sorted(ordered[:_ASKED].tolist())


def _answer(
    questions: Questions, found: Answers, right: Answers, world: int, k: int
) -> tuple[str, str]:
    """A question with its answer, and the ink for it."""
    given, wanted = (questions.answers[x[world, k]] for x in (found, right))
    if given == wanted:
        return f"{questions.texts[k]} {given}", GREEN
    return f"{questions.texts[k]} {given}, not {wanted}", RED

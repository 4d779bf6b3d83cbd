"""How domino positions and moves are shown."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hrm_jax.puzzles.domino.encoding import HAND, LEFT_END, RIGHT_END, SEQ_LEN, TABLE, VOCAB_SIZE
from hrm_jax.puzzles.domino.game import END_NAMES
from hrm_jax.puzzles.domino.text import move_text, pip
from hrm_jax.puzzles.drawing.painter import Array, Painter, Shown
from hrm_jax.puzzles.drawing.pen import BLACK, BLUE, CHANGED, DIM, GREEN, GREY, RED, Pen

_HALF, _GAP, _NAME = 18, 3, 15  # pixels: half a domino tile, between tiles, a line of text


@dataclasses.dataclass(frozen=True, kw_only=True)
class DominoPainter(Painter):
    """Draws the table line by line, the hand, and the move in words.

    In the hand the tile of the right move has a green edge, another one that was chosen a red or,
    if it is good too or there is no right move to compare with, a blue one.
    """

    panels: ClassVar[bool] = False

    def width(self, question: Array) -> int:
        return 524

    def height(self, side: int, question: Array) -> int:
        lines = sum(len(_tile_lines(side, question[part])) for part in (TABLE, HAND))
        return lines * (_HALF + _GAP) + 2 * _NAME + 20

    def draw(self, pen: Pen, side: int, shown: Shown) -> None:
        board, label = shown.board, shown.label
        right: list[int] = [] if label is None else label[:3].tolist()
        ink = GREEN if board[:3].tolist() == right else BLUE if shown.good or not right else RED
        edges = {tuple(sorted(board[:2].tolist())): ink, tuple(sorted(right[:2])): GREEN}
        y = 0
        for name, part in (("table", TABLE), ("hand", HAND)):
            lines = _tile_lines(side, shown.question[part])
            pen.text(0, y, name if lines else f"{name}: empty", 11, DIM)
            y += _NAME
            for line in lines:
                for place, pair in enumerate(line):
                    edge = edges.get(tuple(sorted(pair)), BLACK) if part == HAND else BLACK
                    _draw_tile(pen.at(place * (2 * _HALF + _GAP), y), pair, edge)
                y += _HALF + _GAP
        if _moved(board, shown.before):
            pen.box(0, y, side / 2, _HALF, CHANGED)
        pen.text(0, y + 2, f"model: {move_text(board)}", ink=ink, bold=True)
        if label is not None and ink != GREEN:
            pen.text(side / 2, y + 2, f"right: {move_text(label)}", ink=GREEN, bold=True)

    def text(
        self, question: Array, board: Array, *, before: Array | None = None, colour: bool = False
    ) -> str:
        """As `Painter.text`; what is marked is a move that is another than before."""
        table, hand = (
            " ".join(f"{pip(a)}{bar}{pip(b)}" for a, b in question[part].reshape(-1, 2) if a or b)
            for part, bar in ((TABLE, "|"), (HAND, "-"))
        )
        left, right = question[LEFT_END], question[RIGHT_END]
        ends = f"   (ends {pip(left)} and {pip(right)})" if left or right else ""
        a, b, end = board[:3]
        move = f"move   {pip(a)}|{pip(b)} {END_NAMES.get(int(end), '?')}"
        if _moved(board, before):
            move = f"\x1b[30;43m{move}\x1b[0m" if colour else f"{move} *"
        return f"table  {table or 'empty'}{ends}\nhand   {hand or 'empty'}\n{move}"

    def marks(self, colour: bool) -> str:
        changed = "\x1b[30;43m changed \x1b[0m" if colour else "* changed since the step before"
        return f"{changed}   ? no pips or no end"

    def verdict(self, answer: Array, label: Array, verdicts: Mapping[str, bool]) -> str:
        return "legal, but a heavier tile fits" if verdicts.get("legal") else "not legal"

    def page(self, seq_len: int | None) -> dict[str, Any]:
        if seq_len != SEQ_LEN:
            raise ValueError(f"a domino position has {SEQ_LEN} tokens, not {seq_len}")

        def part(title: str, start: int, stop: int, size: int, **more: Any) -> dict[str, Any]:
            return {"title": title, "from": start, "to": stop, "size": size, **more}

        ends = ("no place", "left end", "right end", "first tile")
        return {
            "name": self.name,
            "layout": "parts",
            "characters": ".0123456",
            "words": ("none", *"0123456"),
            "question": [
                part("Table", TABLE.start, TABLE.stop, 2),
                part("Hand", HAND.start, HAND.stop, 2),
                part("Open ends", LEFT_END, RIGHT_END + 1, 1),
            ],
            "answer": [part("Move", 0, 2, 2), part("At", 2, 3, 1, words=ends)],
        }


def _moved(board: Array, before: Array | None) -> bool:
    return before is not None and bool((board[:3] != before[:3]).any())


def _tile_lines(side: int, tokens: Array) -> list[list[list[int]]]:
    """The tiles among tokens [2 · places], in lines of `side` pixels."""
    tiles = [pair for pair in tokens.reshape(-1, 2).tolist() if any(pair)]
    beside = (side + _GAP) // (2 * _HALF + _GAP)
    return [tiles[i : i + beside] for i in range(0, len(tiles), beside)]


def _draw_tile(pen: Pen, pair: Sequence[int], edge: str) -> None:
    """A tile that lies: the pips of its halves as on a die on its side."""
    pen.box(0, 0, 2 * _HALF, _HALF, "#fffdf5", edge, 1 if edge == BLACK else 2.5, radius=3)
    pen.line([(_HALF, 3), (_HALF, _HALF - 3)], GREY)
    near, middle, far = 0.25 * _HALF, 0.5 * _HALF, 0.75 * _HALF
    corners = [(near, near), (far, far), (near, far), (far, near)]
    sides = [(middle, near), (middle, far)]
    for half, token in enumerate(pair):
        pips = token - 1
        if not 0 <= pips <= 6:
            pen.text((half + 0.5) * _HALF, middle, "?", 12, RED, bold=True, anchor="mm")
            continue
        dots = [(middle, middle)] * (pips % 2) + corners[: pips // 2 * 2] + sides * (pips == 6)
        for x, y in dots:
            pen.dot(half * _HALF + x, y, 1.9, BLACK)


PAINTER = DominoPainter(
    name="Domino",
    plural="domino positions",
    legend="Green edge: the tile of the right move. Red or blue edge: what the model chose "
    "instead; blue if it is as heavy, which is solved too.",
    vocab_sizes={SEQ_LEN: VOCAB_SIZE},
)

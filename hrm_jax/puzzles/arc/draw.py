"""How grids of ARC are shown."""

import dataclasses
from typing import Any

from hrm_jax.puzzles.arc.tokens import FIRST_COLOUR, VOCAB_SIZE, decode
from hrm_jax.puzzles.drawing.grid import GridPainter
from hrm_jax.puzzles.drawing.painter import Array, Shown, cells_wrong
from hrm_jax.puzzles.drawing.pen import BLACK, RED, WHITE, Pen

COLOURS = (
    *("#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00"),
    *("#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArcPainter(GridPainter):
    """Draws of each canvas the grid at its origin; wrong cells are crossed, to keep colour."""

    def height(self, side: int, question: Array) -> int:
        return side  # which the grid of the answer may need

    def draw(self, pen: Pen, side: int, shown: Shown) -> None:
        """As `Painter.draw`; nothing is marked against a grid of another size."""
        boards = (shown.board, shown.label, shown.before)
        grids = [decode(shown.board if x is None else x) for x in boards]
        shape = grids[0].shape
        if not grids[0].size:
            pen.text(0, 0, "no grid", ink=RED)
            return
        tokens, right, old = (
            (grid if grid.shape == shape else grids[0]).ravel() + FIRST_COLOUR for grid in grids
        )
        cropped = dataclasses.replace(self, columns=shape[1])
        GridPainter.draw(cropped, pen, side, Shown(tokens, tokens, right, old))

    def fill(self, token: int, wrong: bool, changed: bool) -> str | None:
        return self.fills[token]

    def mark(self, pen: Pen, size: int) -> None:
        near, far = 0.25 * size, 0.75 * size
        for ink, thick in ((BLACK, max(2.0, size / 6)), (WHITE, max(1.0, size / 12))):
            pen.line([(near, near), (far, far)], ink, thick)
            pen.line([(near, far), (far, near)], ink, thick)

    def verdict(self, answer: Array, label: Array, verdicts: Any) -> str:
        found, expected = ("{}×{}".format(*decode(x).shape) for x in (answer, label))
        if found != expected:
            return f"{found} instead of {expected}"
        wrong = (answer != label) & (label >= FIRST_COLOUR)
        return (
            cells_wrong(wrong) if wrong.any() else "the grid is right, the marks of its end are not"
        )

    def page(self, seq_len: int | None) -> dict[str, Any]:
        fills = {0: "var(--hatch)", 1: "var(--strong)", **self.fills}
        return super().page(seq_len) | {"fills": fills, "crop": True}


PAINTER = ArcPainter(
    name="ARC",
    plural="ARC grids",
    legend="Crossed: not as in the right answer. Each augmentation is a puzzle of its own here; no "
    "votes.",
    vocab_sizes={None: VOCAB_SIZE},
    characters=".|0123456789",
    words=(
        *("pad", "end", "black", "blue", "red", "green", "yellow"),
        *("grey", "magenta", "orange", "light blue", "maroon"),
    ),
    written="",
    fills={FIRST_COLOUR + k: colour for k, colour in enumerate(COLOURS)},
    line="#606060",
    cell=28,
    gap="",
)

"""How the boards of a puzzle are shown: what each puzzle's `draw.py` has to say."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from hrm_jax.puzzles.drawing.pen import Pen

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Shown:
    """A board in a picture, tokens [S] all; only the question's values are sure to be tokens."""

    question: Array
    board: Array
    label: Array | None = None  # if what is wrong is to be marked; tokens of 0 do not count
    before: Array | None = None  # another board, if what has changed since is to be marked
    good: bool | None = None  # counts as solved, where it may do so without being the label


@dataclasses.dataclass(frozen=True, kw_only=True)
class Painter(abc.ABC):
    """Shows boards of one kind of puzzle, tokens [S], in pictures, in a terminal, on a page.

    With `panels`, question, answer and right answer are boards of their own; else one picture of
    `draw` shows all three.
    """

    name: str  # of one such puzzle, such as "Maze"
    plural: str  # of several within a sentence, such as "mazes"
    legend: str  # what the colours of `draw` mean, in one line
    vocab_sizes: Mapping[int | None, int]  # by sequence length; None stands for every square
    panels: ClassVar[bool] = True

    @abc.abstractmethod
    def width(self, question: Array) -> int:
        """Pixels of a line on which a board is drawn alone."""

    @abc.abstractmethod
    def height(self, side: int, question: Array) -> int:
        """Pixels that a board needs from top to bottom on lines of `side` pixels."""

    @abc.abstractmethod
    def draw(self, pen: Pen, side: int, shown: Shown) -> None:
        """Draws a board at the pen's origin, on lines of up to `side` pixels."""

    @abc.abstractmethod
    def text(
        self, question: Array, board: Array, *, before: Array | None = None, colour: bool = False
    ) -> str:
        """Lines for a terminal; given a board `before`, givens and what has changed since are
        marked, by ANSI colours or by characters."""

    @abc.abstractmethod
    def marks(self, colour: bool) -> str:
        """What the marks of `text` mean, in one line."""

    @abc.abstractmethod
    def page(self, seq_len: int | None) -> dict[str, Any]:
        """How `viz/page.html` shows such boards (see there), as JSON; None for every square."""

    def verdict(self, answer: Array, label: Array, verdicts: Mapping[str, bool]) -> str:
        """What to say of an answer that is not good; `verdicts` are the scores of the puzzle."""
        return cells_wrong(differs(answer, label))


def differs(board: Array, other: Array | None) -> Array:
    """Which tokens differ from those of another board where these are not 0, bool [S]."""
    return np.zeros(len(board), bool) if other is None else (other != 0) & (board != other)


def cells_wrong(wrong: Array) -> str:
    """Says how many cells are."""
    count = int(wrong.sum())
    return f"{count} cell{'s' if count > 1 else ''} wrong"

"""Latin squares as a puzzle."""

from __future__ import annotations

import dataclasses

from hrm_jax.puzzles.base import only
from hrm_jax.puzzles.boards import BoardPuzzles
from hrm_jax.puzzles.digits.puzzle import DigitData, DigitPuzzle
from hrm_jax.puzzles.latin.board import LatinShape
from hrm_jax.puzzles.latin.draw import PAINTER
from hrm_jax.puzzles.latin.generator import generate_split
from hrm_jax.puzzles.latin.symmetry import random_symmetry

_GIVENS = {4: (5, 9), 5: (8, 14), 6: (12, 20), 7: (18, 27), 8: (25, 35), 9: (33, 45)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatinData(DigitData):
    """Which Latin squares: a data set folder, two CSV files, or else the generator.

    Attributes:
        size: Rows of generated boards, 4 to 9.
    """

    size: int = only("draw", 5)


class Latin(DigitPuzzle):
    """Each digit once in each row and column."""

    def generate(self, data: LatinData) -> tuple[BoardPuzzles, BoardPuzzles]:
        shape = LatinShape(data.size)
        low, high = data.givens or _GIVENS[data.size]
        return generate_split(shape, data.num_train, data.num_test, (low, high), data.seed)

    def essence(self, puzzles: BoardPuzzles, data: LatinData) -> tuple[list[bytes], str]:
        """The squares as they are: whether others are transforms of them is not looked for."""
        return [square.tobytes() for square in puzzles.answers], "its solution is that of"


LATIN = Latin(
    name="latin",
    about="generated Latin squares with blanks, or CSV files of them",
    data=LatinData,
    board_shape=LatinShape.for_cells,
    painter=PAINTER,
    random_symmetry=random_symmetry,
)

"""How Latin squares are shown."""

from hrm_jax.puzzles.drawing.grid import GridPainter
from hrm_jax.puzzles.latin.board import SIZES, LatinShape

PAINTER = GridPainter(
    name="Latin square",
    plural="Latin squares",
    vocab_sizes={size * size: LatinShape(size).vocab_size for size in SIZES},
    characters="?.123456789",
    words=("pad", "blank", *"123456789"),
    units=lambda cells: LatinShape.for_cells(cells).units(),
)

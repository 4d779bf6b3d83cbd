"""How Sudokus are shown."""

from hrm_jax.puzzles.drawing.grid import GridPainter
from hrm_jax.puzzles.sudoku.board import SudokuShape

_SHAPES = [SudokuShape.of(size) for size in (4, 6, 9)]

PAINTER = GridPainter(
    name="Sudoku",
    plural="Sudokus",
    vocab_sizes={shape.cells: shape.vocab_size for shape in _SHAPES},
    characters="?.123456789",
    words=("pad", "blank", *"123456789"),
    boxes={shape.cells: (shape.box_rows, shape.box_cols) for shape in _SHAPES},
    units=lambda cells: SudokuShape.for_cells(cells).units(),
)

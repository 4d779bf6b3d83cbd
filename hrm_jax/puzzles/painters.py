"""The painters of all puzzles, by the name of the puzzle."""

from hrm_jax.puzzles.arc.draw import PAINTER as ARC
from hrm_jax.puzzles.domino.draw import PAINTER as DOMINO
from hrm_jax.puzzles.drawing.painter import Painter
from hrm_jax.puzzles.maze.draw import PAINTER as MAZE
from hrm_jax.puzzles.sudoku.draw import PAINTER as SUDOKU

PAINTERS: dict[str, Painter] = {"sudoku": SUDOKU, "maze": MAZE, "domino": DOMINO, "arc": ARC}

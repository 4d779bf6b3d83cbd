"""The painters of all puzzles, by the name of the puzzle."""

from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.drawing.painter import Painter

PAINTERS: dict[str, Painter] = {name: puzzle.painter for name, puzzle in PUZZLES.items()}

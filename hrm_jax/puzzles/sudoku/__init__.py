"""Sudoku: boards, exact solver, symmetries, generator, files and data sets."""

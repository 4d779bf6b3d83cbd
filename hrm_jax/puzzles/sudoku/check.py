"""What is wrong with examples of Sudoku, and what they look like."""

from __future__ import annotations

from hrm_jax.puzzles.checks import Array, Checks, letters, side_by_side
from hrm_jax.puzzles.sudoku.board import SudokuShape, check_rules, is_solution

VOCAB_SIZES = {16: 6, 36: 8, 81: 11}  # by number of cells


def check_examples(inputs: Array, labels: Array) -> Checks:
    """Checks puzzles and answers against the rules.

    Args:
        inputs: Integers [N, cells], any values.
        labels: Integers [N, cells], 0 where ignored.
    """
    shape = SudokuShape.for_cells(inputs.shape[1])
    givens = inputs > 1
    tokens = ((inputs >= 1) & (inputs < shape.vocab_size)).all(1)
    return [
        ("inputs", (inputs == 0).any(1), "a cell of the question is pad, expected blank or digit"),
        (
            "inputs",
            tokens & ~check_rules(inputs - 1, shape),
            "a given digit stands twice in a unit",
        ),
        ("labels", ~is_solution(labels - 1, shape), "the answer is no full valid grid"),
        ("labels", (givens & (inputs != labels)).any(1), "the answer changes a given"),
    ]


def render(inputs: Array, labels: Array) -> str:
    """Formats one example, [cells] and [cells], as lines for people; `?` for what is no digit."""
    shape = SudokuShape.for_cells(len(inputs))
    characters = "?." + "123456789"[: shape.size]
    return side_by_side(*(_lines(letters(x, characters), shape) for x in (inputs, labels)))


def _lines(text: str, shape: SudokuShape) -> list[str]:
    width, lines = shape.box_cols, []
    for row in range(shape.size):
        if row and row % shape.box_rows == 0:
            lines.append("-" * (2 * shape.size + 2 * (shape.size // width) - 3))
        cells = text[row * shape.size : (row + 1) * shape.size]
        boxes = [" ".join(cells[i : i + width]) for i in range(0, shape.size, width)]
        lines.append(" | ".join(boxes))
    return lines

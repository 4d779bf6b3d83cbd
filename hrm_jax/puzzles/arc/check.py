"""What is wrong with examples of ARC, and what they look like."""

from __future__ import annotations

import numpy as np

from hrm_jax.puzzles.arc.tokens import EOS, FIRST_COLOUR
from hrm_jax.puzzles.checks import Array, Checks, letters, lines, side_by_side

CHARACTERS = ".|0123456789"  # of pad, end of sequence and the colours


def check_examples(inputs: Array, labels: Array, in_corner: bool) -> Checks:
    """Checks for a filled rectangle of colours, with end-of-sequence below and to the right of it.

    Args:
        inputs: Integers [N, cells], any values.
        labels: Integers [N, cells], 0 where ignored.
        in_corner: Whether the rectangle must begin top left, as in tests.
    """
    result: Checks = []
    corners = []
    for name, tokens in (("inputs", inputs), ("labels", labels)):
        side = round(tokens.shape[1] ** 0.5)
        grid = tokens.reshape(-1, side, side)
        colours = grid >= FIRST_COLOUR
        some = np.asarray(colours.any((1, 2)))
        down, right = np.arange(side)[None, :, None], np.arange(side)[None, None, :]
        in_rows, in_cols = np.asarray(colours.any(2)), np.asarray(colours.any(1))
        top, left = in_rows.argmax(1)[:, None, None], in_cols.argmax(1)[:, None, None]
        bottom = side - in_rows[:, ::-1].argmax(1)[:, None, None]
        end = side - in_cols[:, ::-1].argmax(1)[:, None, None]
        rows, cols = (down >= top) & (down < bottom), (right >= left) & (right < end)
        filled = (colours == (rows & cols)).all((1, 2))
        wanted = (rows & (right == end)) | (cols & (down == bottom))
        marked = ((grid == EOS) == wanted).all((1, 2))
        corners.append(np.stack([top[:, 0, 0], left[:, 0, 0]], axis=1))
        result += [
            (name, ~some, "no colour in it, expected a grid"),
            (name, some & ~filled, "the colours are not one filled rectangle"),
            (
                name,
                some & filled & ~marked,
                "end-of-sequence must stand just below and just right of the grid, nowhere else",
            ),
        ]
        if in_corner:
            moved = (corners[-1] != 0).any(1)
            result.append((name, some & moved, "the grid of a test example must stand top left"))
    both = (inputs >= FIRST_COLOUR).any(1) & (labels >= FIRST_COLOUR).any(1)
    apart = both & (corners[0] != corners[1]).any(1)
    result.append(("labels", apart, "question and answer stand at different offsets"))
    return result


def render(inputs: Array, labels: Array) -> str:
    """Formats one example, [cells] and [cells], as lines for people; `?` for illegal tokens."""
    width = round(len(inputs) ** 0.5)
    return side_by_side(*(lines(letters(x, CHARACTERS), width) for x in (inputs, labels)))

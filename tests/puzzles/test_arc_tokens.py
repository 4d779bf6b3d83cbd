"""Grids as tokens, and grids out of tokens that a model made."""

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.arc.tokens import canvas_side, decode, encode, grid_sizes


def test_the_end_is_marked_below_and_to_the_right():
    tokens = encode(np.array([[0, 9], [3, 4]], np.uint8), 5, row=1, column=2)
    assert tokens.dtype == np.uint8
    assert tokens.reshape(5, 5).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 2, 11, 1],
        [0, 0, 5, 6, 1],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    edge = encode(np.array([[0, 9], [3, 4]], np.uint8), 3, row=1, column=0)
    assert edge.reshape(3, 3).tolist() == [[0, 0, 0], [2, 11, 1], [5, 6, 1]]
    for place in ({"row": 2}, {"column": 2}, {"row": -1}):
        with pytest.raises(DataError, match=r"a 2×2 grid at row .* does not fit a 3×3 canvas"):
            encode(np.zeros((2, 2), np.uint8), 3, **place)


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_decode_inverts_encode(extra):
    random = np.random.default_rng(extra)
    for shape in np.ndindex(7, 7):
        grid = random.integers(0, 10, np.add(shape, 1), np.uint8)
        again = decode(encode(grid, max(grid.shape) + extra))
        np.testing.assert_array_equal(again, grid)
        assert again.dtype == np.uint8


def largest(canvas):
    """The best rectangle by trying all, fewest rows first."""
    best = (0, 0)
    for height in range(1, len(canvas) + 1):
        for width in range(1, len(canvas) + 1):
            part = canvas[:height, :width]
            if ((part >= 2) & (part <= 11)).all() and height * width > best[0] * best[1]:
                best = (height, width)
    return best


@pytest.mark.parametrize("coloured", [0.0, 0.6, 0.9, 1.0])
def test_predictions_are_cropped_to_the_largest_rectangle_of_colours(coloured):
    random = np.random.default_rng(0)
    tokens = np.where(
        random.random((500, 16)) < coloured,
        random.integers(2, 12, (500, 16)),
        random.choice([-100, 0, 1, 12], (500, 16)),
    )
    heights, widths = grid_sizes(tokens)
    found = [(int(h), int(w)) for h, w in zip(heights, widths, strict=True)]
    assert found == [largest(canvas) for canvas in tokens.reshape(-1, 4, 4)]
    for row, size in zip(tokens, found, strict=True):
        assert decode(row).shape == size


def test_only_squares_are_canvases():
    assert canvas_side(900) == 30
    for length in (0, 899):
        with pytest.raises(DataError, match=f"seq_len is {length}, expected a square"):
            canvas_side(length)

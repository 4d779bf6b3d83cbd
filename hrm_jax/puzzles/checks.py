"""What the checks of all kinds of puzzles share: their form, and boards as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

Checks = list[tuple[str, Array, str]]
"""For each rule the array concerned, bool [N] where a row breaks it, and what is wrong then."""


def letters(tokens: Array, characters: str) -> str:
    """Turns tokens [S] into text; `?` for those that have no character."""
    size = len(characters)
    return "".join(characters[t] if 0 <= t < size else "?" for t in tokens.tolist())


def lines(text: str, width: int) -> list[str]:
    """Cuts the text of a board into its rows."""
    return [text[start : start + width] for start in range(0, len(text), width)]


def side_by_side(left: Sequence[str], right: Sequence[str]) -> str:
    """Joins two boards of as many lines into one text."""
    return "\n".join(f"{a}    {b}" for a, b in zip(left, right, strict=True))

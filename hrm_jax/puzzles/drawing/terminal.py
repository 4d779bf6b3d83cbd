"""Boards as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

ANSI_END = "\x1b[0m"
_GAP = 4


def side_by_side(panels: Sequence[Sequence[str]], panel_width: int, width: int) -> str:
    """Joins panels, as many side by side as fit.

    Args:
        panels: Lines of each, all of the same number.
        panel_width: Columns that a line of any of them takes on the screen.
        width: Columns of the terminal.
    """
    beside = max(1, (width + _GAP) // (panel_width + _GAP))
    blocks = []
    for start in range(0, len(panels), beside):
        rows = zip(*panels[start : start + beside], strict=True)
        blocks.append("\n".join((" " * _GAP).join(row).rstrip() for row in rows))
    return "\n\n".join(blocks)

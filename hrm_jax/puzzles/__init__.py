"""The puzzles there are. One more is a folder, a config and a line here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hrm_jax.puzzles.arc.puzzle import ARC
from hrm_jax.puzzles.base import Puzzle
from hrm_jax.puzzles.domino.puzzle import DOMINO
from hrm_jax.puzzles.latin.puzzle import LATIN
from hrm_jax.puzzles.maze.puzzle import MAZE
from hrm_jax.puzzles.sudoku.puzzle import SUDOKU

PUZZLES: Mapping[str, Puzzle] = {
    puzzle.name: puzzle
    for puzzle in (
        SUDOKU,
        MAZE,
        DOMINO,
        ARC,
        LATIN,
    )
}
"""By name; where sizes fit several, the first one is guessed."""


def named(builder: str) -> Puzzle | None:
    """The puzzle that the `builder` of an `identity.json` names; None unless it is one."""
    words = re.split("[^a-z]", builder)
    found = [puzzle for name, puzzle in PUZZLES.items() if name in words]
    return found[0] if len(found) == 1 else None


def guess(seq_len: int, vocab_size: int | None = None, tokens: int = 0) -> Puzzle | None:
    """The puzzle whose boards have that length and vocabulary; None where there is none.

    Without `vocab_size` it is the one with the smallest vocabulary of at least `tokens`.
    """
    fitting = [
        puzzle
        for puzzle in PUZZLES.values()
        if puzzle.shape(seq_len) is not None and puzzle.fits(seq_len, vocab_size)
    ]
    large = [puzzle for puzzle in fitting if puzzle.vocab_size(seq_len) >= tokens] or fitting
    return min(large, key=lambda puzzle: puzzle.vocab_size(seq_len), default=None)

"""Dominoes as a puzzle: positions of real games, and the move to make."""

from __future__ import annotations

import jax
from jaxtyping import PRNGKeyArray

from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.puzzles.base import Array, Checks, Puzzle
from hrm_jax.puzzles.domino.augment import augment, shuffle_hand
from hrm_jax.puzzles.domino.draw import PAINTER
from hrm_jax.puzzles.domino.encoding import SEQ_LEN, decode, encode
from hrm_jax.puzzles.domino.generator import DominoData, generate, to_puzzle_set
from hrm_jax.puzzles.domino.rules import check_examples, judge
from hrm_jax.puzzles.domino.table import Table
from hrm_jax.puzzles.domino.text import move_text, parse, to_text


class Domino(Puzzle):
    """The heaviest tile that fits."""

    def shape(self, seq_len: int) -> tuple[int, int] | None:
        return (1, SEQ_LEN) if seq_len == SEQ_LEN else None

    def parse(self, text: str, seq_len: int) -> Array:
        return encode(parse(text))

    def to_text(self, tokens: Array) -> str:
        return to_text(decode(tokens))

    def answer_text(self, tokens: Array) -> str:
        return move_text(tokens)

    def augment(
        self, data: DominoData, key: PRNGKeyArray, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Another order of the hand, turned tiles, the table seen from the other side."""
        return augment(key, inputs, labels)

    def transform(self, key: PRNGKeyArray, inputs: jax.Array) -> jax.Array:
        """Another order of the hand and turned tiles, after which the best move is the same."""
        return shuffle_hand(key, inputs)

    def valid(self, inputs: Array, predictions: Array) -> Array:
        """Legal moves."""
        return judge(inputs, predictions)[0]

    def score(self, inputs: Array, labels: Array, predictions: Array) -> dict[str, Array]:
        """`legal`, and `optimal`: no tile that fits has more pips."""
        legal, optimal = judge(inputs, predictions)
        return {"legal": legal, "optimal": optimal}

    def verdict(self, question: Array, answer: Array) -> str:
        legal, optimal = judge(question[None], answer[None])
        if not legal[0]:
            return "The move is not legal."
        return "No tile that fits is heavier." if optimal[0] else "A heavier tile fits."

    def check(self, inputs: Array, labels: Array, columns: int, *, test: bool) -> Checks:
        return check_examples(inputs, labels)

    def make(self, data: DominoData) -> tuple[PuzzleSet, PuzzleSet]:
        """Training and test positions of different games.

        None of the test is one of training, even up to the hand's order or the mirror image.
        """
        train = generate(data, data.num_train)
        test = generate(data, data.num_test, stream=1, exclude=train.keys())
        return to_puzzle_set(train.values()), to_puzzle_set(test.values())


DOMINO = Domino(
    name="domino",
    about="positions of games that are played for it",
    data=DominoData,
    answer_length=3,
    good="optimal",
    words={
        "legal": "Held-out answers that are legal",
        "optimal": "Held-out answers that are optimal",
    },
    painter=PAINTER,
    game=Table,
)

"""Random Latin squares with blanks and one solution, and splits that share no class of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.base import Array
from hrm_jax.puzzles.boards import BoardPuzzles, distinct
from hrm_jax.puzzles.compiled import draw
from hrm_jax.puzzles.digits.search import dig
from hrm_jax.puzzles.digits.solver import solve_many, tables
from hrm_jax.puzzles.latin.board import LatinShape
from hrm_jax.puzzles.latin.sampler import sample
from hrm_jax.puzzles.latin.symmetry import invariants

_ATTEMPTS = 200  # orders in which the cells of a square are cleared
_TEST_SHARE = 0.25  # of all squares, at most, unless the rarest class has more
_FEW_CLASSES = 6  # greatest size with few of them


def squares(
    shape: LatinShape, first: int, count: int, seed: int, stream: int
) -> tuple[list[Array], Array]:
    """Draws squares number `first`, `first + 1`, …, each from (seed, stream, number) alone: the
    randomness that goes on after each, uint64 [1], and digits, int8 [E, cells]."""
    numbers = range(first, first + count)
    seeds = [np.random.SeedSequence((seed, stream, number)) for number in numbers]
    states = [mixed.generate_state(1, np.uint64) for mixed in seeds]
    drawn = np.empty((count, *shape.sides()), np.int8)
    for state, square in zip(states, drawn, strict=True):
        sample(state, square)
    return states, drawn.reshape(count, shape.cells)


def generate(
    shape: LatinShape,
    count: int,
    givens: tuple[int, int],
    seed: int,
    *,
    stream: int = 0,
    accept: Callable[[Array], Array] | None = None,
) -> BoardPuzzles:
    """Generates distinct puzzles with exactly one solution, the same ones on every machine.

    The number of givens is uniform in the given range, and the ratings are those of `solve_many`.
    `accept` says of squares, int8 [n, cells], which ones may be used, bool [n].
    """
    # No puzzle with fewer than floor(N² / 4) is known (Bate and van Rees 1999).
    fewest = shape.cells // 4
    if not fewest <= givens[0] <= givens[1] <= shape.cells:
        raise DataError(
            f"givens are {givens[0]} to {givens[1]}, expected a range inside {fewest} to "
            f"{shape.cells} for {shape}"
        )
    units, unit_of = tables(shape)
    wanted = f"{shape} puzzles with {givens[0]} to {givens[1]} givens"

    def question(state: Array, answer: Array) -> Array:
        board = np.empty_like(answer)
        left = givens[0] + draw(state, givens[1] - givens[0] + 1)
        for _ in range(_ATTEMPTS):
            if dig(answer, left, state, units, unit_of, board):
                return board
        raise DataError(f"found no {wanted} in {_ATTEMPTS} attempts; allow more givens")

    def puzzles(first: int, batch: int) -> BoardPuzzles:
        states, answers = squares(shape, first, batch, seed, stream)
        rows = np.arange(batch) if accept is None else np.flatnonzero(accept(answers))
        boards = [question(states[row], answers[row]) for row in rows]
        questions = np.array(boards, np.int8).reshape(-1, shape.cells)
        guesses = solve_many(questions, shape, 1)[2]
        return BoardPuzzles(questions, answers[rows], guesses, shape=shape)

    return distinct(
        *(count, seed, stream, puzzles, None),
        at_a_time=(64, 4096),
        patience=10_000,
        wanted=wanted,
    )


def generate_split(
    shape: LatinShape, num_train: int, num_test: int, givens: tuple[int, int], seed: int
) -> tuple[BoardPuzzles, BoardPuzzles]:
    """Generates training and test puzzles whose squares have no `invariants` in common.

    So no symmetry turns a training square into a test square. Boards of up to 6×6 have few classes
    (4×4 and 5×5 two): the seed picks some with at most 25% of all squares for the test, or the
    rarest one where none is that small. Of larger boards each is drawn by its hash.
    """
    held_out = _held_out(shape, seed)
    train = generate(shape, num_train, givens, seed, accept=lambda boards: ~held_out(boards))
    return train, generate(shape, num_test, givens, seed, stream=1, accept=held_out)


def _held_out(shape: LatinShape, seed: int) -> Callable[[Array], Array]:
    def lot(kind: bytes) -> float:
        digest = hashlib.blake2b(kind, key=str(seed).encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") / 2**32

    def by_hash(boards: Array) -> Array:
        return np.array([lot(kind) < _TEST_SHARE for kind in invariants(boards, shape)], bool)

    def by_list(boards: Array) -> Array:
        return np.array([kind in chosen for kind in invariants(boards, shape)], bool)

    if shape.size > _FEW_CLASSES:
        return by_hash
    drawn = squares(shape, 0, 2000, 0, 2)[1]
    numbers = Counter(invariants(drawn, shape))
    chosen: set[bytes] = set()
    room = _TEST_SHARE * len(drawn)
    for kind in sorted(numbers, key=lot):
        if numbers[kind] <= room:
            chosen.add(kind)
            room -= numbers[kind]
    chosen = chosen or {min(numbers, key=lambda kind: numbers[kind])}
    return by_list

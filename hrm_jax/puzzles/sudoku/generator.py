"""Random Sudokus with one solution, and splits whose grids share no symmetry class."""

from __future__ import annotations

import functools

import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.boards import Accept, BoardPuzzles, apart, distinct
from hrm_jax.puzzles.digits.search import generate_many
from hrm_jax.puzzles.digits.solver import tables
from hrm_jax.puzzles.sudoku.board import SudokuShape
from hrm_jax.puzzles.sudoku.symmetry import canonical

# Fewest givens of a puzzle with one solution: 4×4 (Taalman 2007), 6×6 with boxes of 2×3 (8) and
# 9×9 (McGuire et al. 2012, arXiv:1201.0749).
_FEWEST_GIVENS = {4: 4, 6: 8, 9: 17}
_ATTEMPTS = 1000  # grids per puzzle before giving up
_TEST_SHARE = 0.25  # of the grids' probability mass, at most, where classes are shared out


def generate(
    shape: SudokuShape,
    count: int,
    givens: tuple[int, int],
    seed: int,
    *,
    stream: int = 0,
    accept: Accept = None,
) -> BoardPuzzles:
    """Generates distinct puzzles with exactly one solution, rated as by `solver.solve_many`.

    Puzzle number i is drawn from (seed, stream, i) with our own generator, so the same arguments
    give the same puzzles on every machine and with every library version, and fewer puzzles are
    the first ones of more. Its number of givens is uniform in the given range.
    """
    fewest = _FEWEST_GIVENS.get(shape.size, 0)
    if not fewest <= givens[0] <= givens[1] <= shape.cells:
        raise DataError(
            f"givens are {givens[0]} to {givens[1]}, expected a range inside {fewest} to "
            f"{shape.cells} for {shape}"
        )
    units, unit_of = tables(shape)

    def draw(first: int, batch: int) -> BoardPuzzles:
        mixed = np.uint64((seed << 31) | stream)
        questions, answers = np.zeros((2, batch, shape.cells), np.int8)
        part = BoardPuzzles(questions, answers, np.zeros(batch, np.int32), shape=shape)
        made = generate_many(
            first, givens, _ATTEMPTS, mixed, units, unit_of,
            part.questions, part.answers, part.ratings,
        )  # fmt: skip
        if made < batch:
            raise DataError(
                f"found no {shape} puzzle with as few givens as wanted "
                f"({givens[0]} to {givens[1]}) in {_ATTEMPTS} grids; allow more givens"
            )
        return part

    return distinct(
        *(count, seed, stream, draw, accept),
        at_a_time=(64, 4096),
        patience=50_000,
        wanted=f"{shape} puzzles with {givens[0]} to {givens[1]} givens; allow more or others",
    )


def generate_split(
    shape: SudokuShape, num_train: int, num_test: int, givens: tuple[int, int], seed: int
) -> tuple[BoardPuzzles, BoardPuzzles]:
    """Generates training and test puzzles whose solution grids share no symmetry class.

    A class holds the grids that symmetries make of each other, so augmenting training puzzles
    cannot produce a test grid. 9×9 has 5.5 billion classes: the test just leaves out those of the
    training. Smaller boards have few (4×4 two, 6×6 49): there the seed picks test classes with at
    most 25% of all grids, or the least class where none is that small.
    """
    some = functools.partial(generate, shape, givens=givens, seed=seed)
    if shape.size >= 9:
        return apart(some, _classes, num_train, num_test)
    held_out = _test_classes(shape, seed)
    train = some(num_train, accept=lambda part: [x not in held_out for x in _classes(part)])
    test = some(num_test, stream=1, accept=lambda part: [x in held_out for x in _classes(part)])
    return train, test


def _test_classes(shape: SudokuShape, seed: int) -> set[bytes]:
    """Picks symmetry classes for the test; classes too rare for the sample stay in training."""
    grids = generate(shape, 4000 if shape.size > 4 else 200, (shape.cells,) * 2, 0, stream=2)
    names, sizes = np.unique(canonical(grids.answers, shape), axis=0, return_counts=True)
    shares = sizes / sizes.sum()
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(names))
    chosen, total = set(), 0.0
    for index in order:
        if total + shares[index] <= _TEST_SHARE:
            chosen.add(names[index].tobytes())
            total += shares[index]
    return chosen or {names[int(np.argmin(shares))].tobytes()}


def _classes(puzzles: BoardPuzzles) -> list[bytes]:
    return [grid.tobytes() for grid in canonical(puzzles.answers, puzzles.shape)]

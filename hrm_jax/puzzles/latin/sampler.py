"""The compiled sampler of Latin squares."""

from __future__ import annotations

import numpy as np

from hrm_jax.puzzles.compiled import compiled, draw


@compiled
def sample(state: np.ndarray, square: np.ndarray) -> None:
    """Draws a Latin square, digits 1 to N, into `square`, int8 [N, N].

    The Markov chain of Jacobson and Matthews (1996, "Generating uniformly distributed random Latin
    squares"), from the cyclic square to the N³-th Latin square that it comes to. (The first one
    after so many moves would not be uniform.) Its state is the incidence cube, which is 1 where a
    row and column have a symbol, and may be -1 in one place between Latin squares.
    """
    size = len(square)
    at, to = np.empty(3, np.int64), np.empty(3, np.int64)
    cube = np.zeros((size, size, size), np.int8)
    for r in range(size):
        for c in range(size):
            cube[r, c, (r + c) % size] = 1
    visited, proper = 0, True
    while visited < size**3 or not proper:
        visited += proper
        if proper:
            for axis in range(3):
                at[axis] = draw(state, size)
            while cube[at[0], at[1], at[2]]:
                at[2] = draw(state, size)
        for axis in range(3):
            # A place with 1 on the line through `at`: there is one, or two where `at` has -1.
            skip = 0 if proper else draw(state, 2)
            for k in range(size):
                r = k if axis == 0 else at[0]
                c = k if axis == 1 else at[1]
                s = k if axis == 2 else at[2]
                if cube[r, c, s] == 1:
                    to[axis] = k
                    if skip == 0:
                        break
                    skip -= 1
        for corner in range(8):
            r = to[0] if corner & 1 else at[0]
            c = to[1] if corner & 2 else at[1]
            s = to[2] if corner & 4 else at[2]
            odd = (corner ^ (corner >> 1) ^ (corner >> 2)) & 1
            cube[r, c, s] += -1 if odd else 1
        proper = cube[to[0], to[1], to[2]] >= 0
        at[:] = to
    for r in range(size):
        for c in range(size):
            for s in range(size):
                if cube[r, c, s]:
                    square[r, c] = s + 1

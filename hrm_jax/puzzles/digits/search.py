"""The compiled search behind solver and generators.

Depth-first search over bit masks: naked singles, hidden singles, then a branch on the blank cell
with the fewest candidates. One explicit trail of filled cells, no recursion.
"""

from __future__ import annotations

import numpy as np

from hrm_jax.puzzles.compiled import compiled, draw


@compiled
def search(
    board: np.ndarray,
    units: np.ndarray,
    unit_of: np.ndarray,
    limit: int,
    state: np.ndarray,
    solution: np.ndarray,
) -> tuple[int, int]:
    """Counts the solutions of a board of digits, int8 [C], at most `limit` of them.

    Args:
        units: Cells of each unit, [U, N].
        unit_of: The three units of each cell, [C, 3]; where it has two, one of them again.
        state: Randomness that picks the digits to try, uint64 [1]; empty tries the least first.
        solution: Gets the first solution, int8 [C].

    Returns:
        Number of solutions and number of guesses before the first one: choices of a digit while
        another was still untried.
    """
    cells = board.size
    size = units.shape[1]
    full = (1 << size) - 1
    used = np.zeros(len(units), np.int64)
    work = np.zeros(cells, np.int64)
    open_ = np.zeros(cells, np.int64)  # candidates of blank cells when no naked single is left
    trail = np.empty(cells, np.int64)
    branch_cell = np.empty(cells, np.int64)
    branch_left = np.empty(cells, np.int64)
    branch_mark = np.empty(cells, np.int64)
    filled, depth, count, guesses = 0, 0, 0, 0

    for cell in range(cells):
        if board[cell]:
            bit = 1 << (board[cell] - 1)
            for k in range(3):
                if used[unit_of[cell, k]] & bit:
                    return 0, 0
            for k in range(3):
                used[unit_of[cell, k]] |= bit
            work[cell] = bit
            trail[filled] = cell
            filled += 1

    while True:
        possible = True
        best_cell = -1
        moved = True
        while moved and possible:
            moved = False
            best_cell = -1
            best_number = size + 1
            for cell in range(cells):  # naked singles
                open_[cell] = 0
                if work[cell]:
                    continue
                a, b, c = unit_of[cell, 0], unit_of[cell, 1], unit_of[cell, 2]
                left = full & ~(used[a] | used[b] | used[c])
                if left & (left - 1) == 0:
                    if left == 0:
                        possible = False
                        break
                    work[cell] = left
                    used[a] |= left
                    used[b] |= left
                    used[c] |= left
                    trail[filled] = cell
                    filled += 1
                    moved = True
                    continue
                open_[cell] = left
                if best_number > 2:
                    number = 0
                    rest = left
                    while rest:
                        rest &= rest - 1
                        number += 1
                    if number < best_number:
                        best_cell, best_number = cell, number
            if moved or not possible or filled == cells:
                continue
            # Hidden singles, of one unit at a time: `open_` is out of date once a cell is filled.
            for unit in range(len(units)):
                once, twice = 0, 0
                for i in range(size):
                    left = open_[units[unit, i]]
                    twice |= once & left
                    once |= left
                if once != full & ~used[unit]:
                    possible = False
                    break
                once &= ~twice
                if once == 0:
                    continue
                for i in range(size):
                    cell = units[unit, i]
                    left = open_[cell] & once
                    if left & (left - 1):  # two digits that fit nowhere else want one cell
                        possible = False
                        break
                    if left:
                        work[cell] = left
                        open_[cell] = 0
                        for k in range(3):
                            used[unit_of[cell, k]] |= left
                        trail[filled] = cell
                        filled += 1
                        moved = True
                break

        left = 0
        if possible and filled == cells:
            count += 1
            if count == 1:
                for cell in range(cells):
                    digit = 0
                    while work[cell] >> digit:
                        digit += 1
                    solution[cell] = digit
            if count == limit:
                return count, guesses
        elif possible:
            branch_cell[depth] = best_cell
            branch_mark[depth] = filled
            a, b, c = unit_of[best_cell, 0], unit_of[best_cell, 1], unit_of[best_cell, 2]
            left = full & ~(used[a] | used[b] | used[c])
            branch_left[depth] = left
            depth += 1
        while left == 0:  # back to the last choice with a digit untried
            if depth == 0:
                return count, guesses
            while filled > branch_mark[depth - 1]:
                filled -= 1
                cell = trail[filled]
                for k in range(3):
                    used[unit_of[cell, k]] &= ~work[cell]
                work[cell] = 0
            left = branch_left[depth - 1]
            if left == 0:
                depth -= 1
        bit = left & -left
        if state.size:
            number = 0
            rest = left
            while rest:
                rest &= rest - 1
                number += 1
            for _ in range(draw(state, number)):
                bit = (left & ~(bit | (bit - 1))) & -(left & ~(bit | (bit - 1)))
        if bit != left and count == 0:
            guesses += 1
        branch_left[depth - 1] = left & ~bit
        cell = branch_cell[depth - 1]
        work[cell] = bit
        for k in range(3):
            used[unit_of[cell, k]] |= bit
        trail[filled] = cell
        filled += 1


@compiled
def search_many(
    boards: np.ndarray,
    units: np.ndarray,
    unit_of: np.ndarray,
    limit: int,
    counts: np.ndarray,
    solutions: np.ndarray,
    guesses: np.ndarray,
) -> None:
    """Runs `search` on each board [E, C]; fills counts [E], solutions [E, C] and guesses [E]."""
    lowest_first = np.zeros(0, np.uint64)
    for i in range(len(boards)):
        counts[i], guesses[i] = search(boards[i], units, unit_of, limit, lowest_first, solutions[i])


@compiled
def dig(
    answer: np.ndarray,
    wanted: int,
    state: np.ndarray,
    units: np.ndarray,
    unit_of: np.ndarray,
    board: np.ndarray,
) -> bool:
    """Clears cells of a full board [C] in random order while the solution stays the only one.

    `board` gets the puzzle. Returns whether no more than the wanted givens are left.
    """
    lowest_first = np.zeros(0, np.uint64)
    order = np.empty(len(answer), np.int64)
    scratch = np.empty(len(answer), np.int8)
    board[:] = answer
    for k in range(len(answer)):
        j = draw(state, k + 1)
        order[k] = order[j]
        order[j] = k
    left = len(answer)
    for k in range(len(answer)):
        if left == wanted:
            break
        cell = order[k]
        board[cell] = 0
        # A plain 2 would make numba compile `search` anew.
        number, _ = search(board, units, unit_of, np.int64(2), lowest_first, scratch)
        if number == 1:
            left -= 1
        else:
            board[cell] = answer[cell]
    return left == wanted


@compiled
def generate_many(
    first: int,
    givens: tuple[int, int],
    attempts: int,
    seed: np.uint64,
    units: np.ndarray,
    unit_of: np.ndarray,
    questions: np.ndarray,
    answers: np.ndarray,
    guesses: np.ndarray,
) -> int:
    """Fills puzzles number `first`, `first + 1`, …, each drawn from (seed, number) alone.

    Each wants a number of givens drawn from [givens[0], givens[1]]: a random grid loses cells in
    random order while the solution stays the only one; a grid that stalls too early is replaced.
    Returns the number of puzzles made, less than E when one ran out of attempts.
    """
    cells = units.shape[1] ** 2
    lowest_first = np.zeros(0, np.uint64)
    blank = np.zeros(cells, np.int8)
    scratch = np.empty(cells, np.int8)
    state = np.empty(1, np.uint64)
    one = np.int64(1)
    for i in range(len(questions)):
        state[0] = seed
        draw(state, 2)
        state[0] ^= np.uint64(first + i) * np.uint64(0xD1B54A32D192ED03)
        wanted = givens[0] + draw(state, givens[1] - givens[0] + 1)
        for _ in range(attempts):
            search(blank, units, unit_of, one, state, answers[i])
            if dig(answers[i], wanted, state, units, unit_of, questions[i]):
                break
        else:
            return i
        _number, guesses[i] = search(questions[i], units, unit_of, one, lowest_first, scratch)
    return len(questions)

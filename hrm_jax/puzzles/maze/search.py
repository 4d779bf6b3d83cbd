"""The compiled breadth-first search behind the maze solver, generator and scores.

Boards are searched inside a border of walls, so that no neighbour has to be checked for being
outside: cell (row, column) of a board of W columns is (row + 1) · (W + 2) + column + 1 there. One
array, int32 [(H + 2) · (W + 2)], says of each cell what is known: `CLOSED` for a wall, `OPEN` for
a free cell that was not reached, else its distance from the source in moves. While a board is
being drawn there are also cells that were not drawn yet, and free ones that the probe has passed.
"""

from __future__ import annotations

import numpy as np

from hrm_jax.puzzles.compiled import compiled, draw
from hrm_jax.puzzles.maze.board import FREE, GOAL, PATH, START, WALL

OPEN, CLOSED, UNDRAWN, PASSED = -1, -2, -3, -4
SHARES = 1 << 16  # shares of walls are in units of 1 / 65536


@compiled
def load(board: np.ndarray, width: int, distance: np.ndarray) -> tuple[int, int]:
    """Sets `distance` to `OPEN` and `CLOSED`, and returns start and goal inside the border."""
    distance[:] = CLOSED
    start, goal = 0, 0
    for cell in range(board.size):
        place = (cell // width + 1) * (width + 2) + cell % width + 1
        if board[cell] != WALL:
            distance[place] = OPEN
        if board[cell] == START:
            start = place
        elif board[cell] == GOAL:
            goal = place
    return start, goal


@compiled
def spread(
    distance: np.ndarray, stride: int, source: int, target: int, queue: np.ndarray
) -> np.int64:
    """Fills distances [P] from `source` outwards until `target` is reached (0 reaches everything).

    Every cell nearer than the target has its distance then. `stride` are the columns with the
    border, W + 2; `queue` is scratch, int64 [P]. Returns the distance of the target, `OPEN` if it
    cannot be reached.
    """
    distance[source] = 0
    queue[0] = source
    head, tail = 0, 1
    while head < tail:
        cell = queue[head]
        head += 1
        if cell == target:
            break
        further = distance[cell] + 1
        for step in (stride, -1, 1, -stride):
            if distance[cell + step] == OPEN:
                distance[cell + step] = further
                queue[tail] = cell + step
                tail += 1
    return np.int64(distance[target])


@compiled
def descend(distance: np.ndarray, stride: int, start: int, path: np.ndarray) -> None:
    """Writes the cells from `start` to the source of `distance` into `path`.

    Where several neighbours are nearer, the first one of down, left, right, up is taken. That is
    the path that breadth-first search from `start` with this order of neighbours finds first.
    """
    cell = start
    path[0] = cell
    for left in range(distance[start] - 1, -1, -1):
        for step in (stride, -1, 1, -stride):
            if distance[cell + step] == left:
                cell += step
                break
        path[distance[start] - left] = cell


@compiled
def one_way(distance: np.ndarray, stride: int, path: np.ndarray, moves: int) -> bool:
    """Whether `path` [moves + 1] from `descend` is the only shortest one."""
    for k in range(moves):
        nearer = 0
        for step in (stride, -1, 1, -stride):
            nearer += distance[path[k] + step] == moves - k - 1
        if nearer > 1:
            return False
    return True


@compiled
def mark(path: np.ndarray, moves: int, width: int, answer: np.ndarray) -> None:
    """Turns the cells of a path [moves + 1] between its ends into `PATH` on a board."""
    stride = width + 2
    for k in range(1, moves):
        answer[(path[k] // stride - 1) * width + path[k] % stride - 1] = PATH


@compiled
def solve_boards(
    boards: np.ndarray, height: int, width: int, answers: np.ndarray, moves: np.ndarray
) -> None:
    """Fills the answers [E, C], copies of the boards at first, and the moves [E] (-1: no path)."""
    stride = width + 2
    size = (height + 2) * stride
    distance = np.empty(size, np.int32)
    queue = np.empty(size, np.int64)
    for i in range(len(boards)):
        start, goal = load(boards[i], width, distance)
        moves[i] = spread(distance, stride, goal, start, queue)
        if moves[i] > 0:
            descend(distance, stride, start, queue)
            mark(queue, moves[i], width, answers[i])


@compiled
def probe(
    distance: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    start: int,
    goal: int,
    share: int,
    state: np.ndarray,
    path: np.ndarray,
    tried: np.ndarray,
) -> int:
    """Looks for any path by going towards the goal, and draws the cells that it looks at.

    Most boards have a short path or none, and this shows it before they are drawn as a whole.
    Start and goal are `OPEN` at first, and free cells become `PASSED`; `path` and `tried` are
    scratch, int64 [P]. Returns the moves of the path found, an upper bound of the shortest one; -1
    if there is none.
    """
    stride = rows.size // (rows[-1] + 1)
    depth = 0
    path[0] = start
    tried[0] = 0
    distance[start] = PASSED
    while depth >= 0:
        cell = path[depth]
        if cell == goal:
            return depth
        turn = tried[depth]
        if turn == 4:
            depth -= 1
            continue
        tried[depth] = turn + 1
        down, right = rows[goal] - rows[cell], columns[goal] - columns[cell]
        # The longer way towards the goal, the shorter one, away the shorter, away the longer one.
        vertical = (abs(down) >= abs(right)) == (turn == 0 or turn == 3)
        forward = (down if vertical else right) > 0
        if turn >= 2:
            forward = not forward
        cell += (stride if vertical else 1) * (1 if forward else -1)
        if distance[cell] == UNDRAWN:
            distance[cell] = CLOSED if draw(state, SHARES) < share else OPEN
        if distance[cell] == OPEN:
            distance[cell] = PASSED
            depth += 1
            path[depth] = cell
            tried[depth] = 0
    return -1


@compiled
def generate_board(
    number: int,
    height: int,
    width: int,
    walls: tuple[int, int],
    min_path: int,
    unique: bool,
    attempts: int,
    seed: np.uint64,
    question: np.ndarray,
    answer: np.ndarray,
) -> np.int64:
    """Draws a maze, without and with its path, uint8 [C], from (seed, number) alone.

    A board that is refused is drawn anew as a whole: share of walls (in units of 1 / 65536), start,
    goal and walls. Returns the length of the path, or -1 where it ran out of attempts.
    """
    stride = width + 2
    size = (height + 2) * stride
    rows = np.arange(size) // stride
    columns = np.arange(size) % stride
    undrawn = np.full(size, CLOSED, np.int32)
    inside = np.empty(height * width, np.int64)
    for cell in range(height * width):
        inside[cell] = (cell // width + 1) * stride + cell % width + 1
        undrawn[inside[cell]] = UNDRAWN
    distance = np.empty(size, np.int32)
    queue = np.empty(size, np.int64)
    tried = np.empty(size, np.int64)
    state = np.full(1, seed, np.uint64)
    draw(state, 2)
    state[0] ^= np.uint64(number) * np.uint64(0xD1B54A32D192ED03)
    for _ in range(attempts):
        share = walls[0] + draw(state, walls[1] - walls[0] + 1)
        start = inside[draw(state, inside.size)]
        goal = start
        while goal == start:
            goal = inside[draw(state, inside.size)]
        distance[:] = undrawn
        distance[start] = OPEN
        distance[goal] = OPEN
        if probe(distance, rows, columns, start, goal, share, state, queue, tried) <= min_path:
            continue
        for place in inside:
            if distance[place] == UNDRAWN:
                distance[place] = CLOSED if draw(state, SHARES) < share else OPEN
            elif distance[place] == PASSED:
                distance[place] = OPEN
        found = spread(distance, stride, goal, start, queue)
        if found <= min_path:
            continue
        descend(distance, stride, start, queue)
        if unique and not one_way(distance, stride, queue, found):
            continue
        for cell in range(inside.size):
            question[cell] = WALL if distance[inside[cell]] == CLOSED else FREE
            if inside[cell] == start:
                question[cell] = START
            elif inside[cell] == goal:
                question[cell] = GOAL
        answer[:] = question
        mark(queue, found, width, answer)
        return found
    return np.int64(-1)


@compiled
def follow_paths(
    predictions: np.ndarray, boards: np.ndarray, height: int, width: int, moves: np.ndarray
) -> None:
    """Fills the moves [N] of the path that each prediction [N, C] marks on its board [N, C].

    -1 where a cell of the board was not kept, or where the marked cells are not one path whose
    cells touch only the cell before and the cell after.
    """
    stride = width + 2
    marked = np.empty((height + 2) * stride, np.bool_)
    for i in range(len(predictions)):
        moves[i] = -1
        marked[:] = False
        count, start, goal, kept = 0, 0, 0, True
        for cell in range(height * width):
            given, token = boards[i, cell], predictions[i, cell]
            if token != given and not (given == FREE and token == PATH):
                kept = False
                break
            if token >= START:
                place = (cell // width + 1) * stride + cell % width + 1
                marked[place] = True
                count += 1
                if token == START:
                    start = place
                elif token == GOAL:
                    goal = place
        if not kept:
            continue
        cell, before, steps = start, start, 0
        while True:
            following, touching = start, 0
            for step in (stride, -1, 1, -stride):
                if marked[cell + step]:
                    touching += 1
                    if cell + step != before:
                        following = cell + step
            if touching != (1 if cell in (start, goal) else 2):
                break
            if cell == goal:
                if steps + 1 == count:  # no marked cell lies off the path
                    moves[i] = steps
                break
            cell, before = following, cell
            steps += 1

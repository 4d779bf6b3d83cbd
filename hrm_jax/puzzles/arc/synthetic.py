"""Small tasks like ARC's, made up: a rule of some family with random parameters, and examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.ndimage

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.arc.augment import canonical
from hrm_jax.puzzles.arc.reader import COLOURS, ArcTask, Grid, Pair

_TRIES = 300


class _Random:
    """Whole numbers from PCG64's raw output, which is the same with every version of NumPy."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def below(self, stop: int) -> int:
        return ((int(self._bits.random_raw()) >> 32) * stop) >> 32

    def colours(self, count: int) -> list[int]:
        """Distinct colours, none of them 0."""
        left = list(range(1, COLOURS))
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def side(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def scatter(self, height: int, width: int, palette: Sequence[int], percent: int = 40) -> Grid:
        """A grid [height, width] with that share of its cells coloured at random."""
        cells = [
            palette[self.below(len(palette))] if self.below(100) < percent else 0
            for _ in range(height * width)
        ]
        return np.array(cells, np.uint8).reshape(height, width)


_Draw = Callable[[_Random, int], Grid]  # an input, of at most that side
_Rule = Callable[[Grid], Grid]
_Family = Callable[[_Random], tuple[_Draw, _Rule]]


def _scattered(palette: Sequence[int], percent: int = 40) -> _Draw:
    return lambda random, side: random.scatter(
        random.side(3, side), random.side(3, side), palette, percent
    )


def _recolour(random: _Random) -> tuple[_Draw, _Rule]:
    """One colour becomes another."""
    palette = random.colours(4)
    return _scattered(palette[:3]), lambda x: np.where(x == palette[0], palette[3], x)


def _keep(random: _Random) -> tuple[_Draw, _Rule]:
    """All colours but one vanish."""
    palette = random.colours(3)
    return _scattered(palette, 60), lambda x: np.where(x == palette[0], x, 0)


def _mirror(random: _Random) -> tuple[_Draw, _Rule]:
    axis = random.below(2)
    return _scattered(random.colours(3)), lambda x: np.flip(x, axis)


def _rotate(random: _Random) -> tuple[_Draw, _Rule]:
    turns = 1 + random.below(3)
    return _scattered(random.colours(3)), lambda x: np.rot90(x, turns)


def _gravity(random: _Random) -> tuple[_Draw, _Rule]:
    """Coloured cells fall to one side, in their order."""
    turns = random.below(4)

    def rule(grid: Grid) -> Grid:
        turned = np.rot90(grid, turns)
        order = np.argsort(turned != 0, axis=0, kind="stable")  # empty cells rise
        return np.rot90(np.take_along_axis(turned, order, axis=0), -turns)

    return _scattered(random.colours(3)), rule


def _shift(random: _Random) -> tuple[_Draw, _Rule]:
    """All cells move one step, and around the edge."""
    axis, step = random.below(2), (-1, 1)[random.below(2)]
    return _scattered(random.colours(3)), lambda x: np.roll(x, step, axis)


def _border(random: _Random) -> tuple[_Draw, _Rule]:
    """The outermost cells take a colour."""
    palette = random.colours(4)

    def rule(grid: Grid) -> Grid:
        framed = np.full_like(grid, palette[3])
        framed[1:-1, 1:-1] = grid[1:-1, 1:-1]
        return framed

    return _scattered(palette[:3]), rule


def _lines(random: _Random) -> tuple[_Draw, _Rule]:
    """Cells of one colour run through the empty cells of their row or column."""
    axis, palette = random.below(2), random.colours(2)

    def rule(grid: Grid) -> Grid:
        hit = (grid == palette[0]).any(axis, keepdims=True)
        return np.where(hit & (grid == 0), palette[0], grid)

    return _scattered(palette, 25), rule


def _crop(random: _Random) -> tuple[_Draw, _Rule]:
    """Cuts out what is coloured."""
    palette = random.colours(2)

    def draw(random: _Random, side: int) -> Grid:
        grid = np.zeros((random.side(3, side), random.side(3, side)), np.uint8)
        height, width = random.side(1, len(grid) - 1), random.side(1, grid.shape[1] - 1)
        row, column = random.below(len(grid) - height + 1), random.below(grid.shape[1] - width + 1)
        part = random.scatter(height, width, palette, 75)
        part[0, 0] = part[-1, -1] = palette[0]
        grid[row : row + height, column : column + width] = part
        return grid

    def rule(grid: Grid) -> Grid:
        rows, columns = (np.flatnonzero((grid != 0).any(axis)) for axis in (1, 0))
        return grid[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    return draw, rule


def _fill(random: _Random) -> tuple[_Draw, _Rule]:
    """Empty cells that a frame encloses take a colour."""
    palette = random.colours(2)

    def draw(random: _Random, side: int) -> Grid:
        grid = random.scatter(random.side(3, side), random.side(3, side), palette[:1], 15)
        height, width = random.side(3, len(grid)), random.side(3, grid.shape[1])
        row, column = random.below(len(grid) - height + 1), random.below(grid.shape[1] - width + 1)
        grid[row : row + height, column : column + width] = palette[0]
        grid[row + 1 : row + height - 1, column + 1 : column + width - 1] = 0
        return grid

    def rule(grid: Grid) -> Grid:
        filled = scipy.ndimage.binary_fill_holes(grid)
        return np.where((grid == 0) & filled, palette[1], grid)

    return draw, rule


def _double(random: _Random) -> tuple[_Draw, _Rule]:
    """The grid and its mirror image, side by side."""
    axis, palette = random.below(2), random.colours(3)

    def draw(random: _Random, side: int) -> Grid:
        shape = [random.side(2, side), random.side(2, side)]
        shape[axis] = random.side(1, side // 2)
        return random.scatter(shape[0], shape[1], palette, 60)

    return draw, lambda x: np.concatenate([x, np.flip(x, axis)], axis)


def _dominant(random: _Random) -> tuple[_Draw, _Rule]:
    """Everything coloured takes the most frequent colour, the lowest of several."""
    palette = random.colours(3)

    def rule(grid: Grid) -> Grid:
        counts = np.bincount(grid.reshape(-1), minlength=COLOURS)[1:]
        # With a tie the output is the input, which makes the example useless: it is drawn anew.
        clear = (counts == np.max(counts)).sum() == 1
        return np.where(grid != 0, 1 + np.argmax(counts), 0) if clear else grid

    return _scattered(palette, 60), rule


FAMILIES: dict[str, _Family] = {
    family.__name__.strip("_"): family
    for family in (
        *(_recolour, _mirror, _gravity, _border, _rotate, _keep),
        *(_lines, _shift, _crop, _fill, _double, _dominant),
    )
}


def generate_tasks(
    count: int,
    seed: int,
    *,
    side: int = 6,
    demonstrations: int = 3,
    families: Sequence[str] = tuple(FAMILIES),
) -> list[ArcTask]:
    """Makes up tasks `<family>-<number>`, each with demonstrations and one test input.

    The families, of `FAMILIES`, take turns. No output equals its input, and no two examples of all
    tasks are the same up to turning, mirroring and recolouring, so that no answer stands among the
    training examples of another task. Fewer tasks are the first ones of more. The longest `side`
    of a grid is 4 to 30, the shortest 1.

    Raises:
        DataError: Numbers out of range, an unknown family, or too many tasks for such grids.
    """
    if count < 1 or seed < 0 or not 4 <= side <= 30 or demonstrations < 1:
        raise DataError(
            f"count is {count}, seed {seed}, side {side}, demonstrations {demonstrations}; "
            f"expected at least one task, a seed from 0, a side of 4 to 30 and a demonstration"
        )
    unknown = sorted(set(families) - set(FAMILIES))
    if unknown or not families:
        raise DataError(f"families: {unknown} unknown, expected some of {', '.join(FAMILIES)}")
    random = _Random(seed)
    seen: set[bytes] = set()
    tasks = []
    for number in range(count):
        family = families[number % len(families)]
        draw, rule = FAMILIES[family](random)
        pairs: list[Pair] = []
        for _ in range(_TRIES):
            source = draw(random, side)
            target = np.ascontiguousarray(rule(source), np.uint8)
            form = canonical([source, target])
            if source.any() and not np.array_equal(source, target) and form not in seen:
                seen.add(form)
                pairs.append((source, target))
            if len(pairs) > demonstrations:
                break
        else:
            raise DataError(
                f"found no {demonstrations + 1} new examples for task {number} ({family}) on grids "
                f"of up to {side}×{side}; make fewer tasks or allow larger ones"
            )
        tasks.append(ArcTask(f"{family}-{number:05d}", tuple(pairs[:-1]), (pairs[-1],)))
    return tasks

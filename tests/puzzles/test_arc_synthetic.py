"""Made-up tasks: that their rules are what they say, and that they can stand for ARC's."""

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.arc.augment import canonical
from hrm_jax.puzzles.arc.synthetic import FAMILIES, generate_tasks


def pairs(family, count=20, side=6):
    tasks = generate_tasks(count, 3, side=side, families=[family])
    return [[*task.train, *task.test] for task in tasks]


def holes(grid):
    """Empty cells with no way out, by walking in from the edge."""
    height, width = grid.shape
    edges = np.ones(grid.shape, bool)
    edges[1:-1, 1:-1] = False
    todo = [tuple(cell) for cell in np.argwhere(edges).tolist()]
    seen = set()
    while todo:
        r, c = todo.pop()
        if 0 <= r < height and 0 <= c < width and (r, c) not in seen and grid[r, c] == 0:
            seen.add((r, c))
            todo += [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
    return {(r, c) for r, c in np.ndindex(height, width) if grid[r, c] == 0} - seen


def falls(grid):
    """Every column with its coloured cells at the bottom."""
    columns = [[*filter(None, column)] for column in grid.T.tolist()]
    return np.array([[0] * (len(grid) - len(some)) + some for some in columns]).T


def box(grid):
    rows, columns = np.nonzero(grid)
    return grid[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


TURNS = [lambda x: x, np.rot90, lambda x: np.rot90(x, 2), lambda x: np.rot90(x, 3)]
RULES = {  # family: candidate rules without colours; one of them explains all examples of a task
    "mirror": [np.fliplr, np.flipud],
    "rotate": TURNS[1:],
    "gravity": [lambda x, k=k: np.rot90(falls(np.rot90(x, k)), -k) for k in range(4)],
    "shift": [lambda x, a=a, s=s: np.roll(x, s, a) for a in (0, 1) for s in (-1, 1)],
    "crop": [box],
    "double": [lambda x: np.hstack([x, x[:, ::-1]]), lambda x: np.vstack([x, x[::-1]])],
    "keep": [lambda x, c=c: x * (x == c) for c in range(1, 10)],
    "lines": [
        lambda x, c=c, a=a: np.where((x == 0) & (x == c).any(a, keepdims=True), c, x)
        for c in range(1, 10)
        for a in (0, 1)
    ],
    "dominant": [lambda x: (x != 0) * (1 + np.bincount(x.ravel(), minlength=10)[1:].argmax())],
    "recolour": [
        lambda x, a=a, b=b: np.where(x == a, b, x) for a in range(1, 10) for b in range(1, 10)
    ],
}


@pytest.mark.parametrize("family", sorted(RULES))
def test_one_rule_explains_all_examples_of_a_task(family):
    for examples in pairs(family):
        assert any(
            all(np.array_equal(rule(source), target) for source, target in examples)
            for rule in RULES[family]
        )


def test_every_family_is_checked():
    assert {*RULES, "border", "fill"} == set(FAMILIES)


def test_border_and_fill():
    for examples in pairs("border"):
        colours = set()
        for source, target in examples:
            np.testing.assert_array_equal(source[1:-1, 1:-1], target[1:-1, 1:-1])
            edge = np.ones(target.shape, bool)
            edge[1:-1, 1:-1] = False
            colours |= set(target[edge].tolist())
        assert len(colours) == 1
    for examples in pairs("fill"):
        colours = set()
        for source, target in examples:
            changed = {tuple(cell) for cell in np.argwhere(source != target).tolist()}
            assert changed == holes(source)
            colours |= {int(target[cell]) for cell in changed}
        assert len(colours) == 1


def test_tasks_are_small_distinct_and_repeatable():
    tasks = generate_tasks(240, 0, side=6, demonstrations=3)
    assert [task.name for task in tasks[:2]] == ["recolour-00000", "mirror-00001"]
    assert len({task.name for task in tasks}) == 240
    seen = set()
    for task in tasks:
        assert (len(task.train), len(task.test)) == (3, 1)
        assert task.side() <= 6
        for source, target in (*task.train, *task.test):
            assert source.dtype == target.dtype == np.uint8
            assert not np.array_equal(source, target)
            seen.add(canonical([source, target]))
    assert len(seen) == 240 * 4
    again, other = generate_tasks(12, 0), generate_tasks(12, 1)
    for a, b in zip(again, tasks, strict=False):
        for x, y in zip(a.grids(), b.grids(), strict=True):
            np.testing.assert_array_equal(x, y)
    assert any(
        not np.array_equal(a.test[0][0], b.test[0][0]) for a, b in zip(again, other, strict=True)
    )
    # Drawn once; the same everywhere, or runs on other machines have other data.
    assert tasks[0].test[0][0].tolist() == [
        [0, 0, 0, 3],
        [0, 1, 0, 0],
        [3, 3, 1, 0],
        [1, 3, 0, 0],
        [0, 0, 6, 0],
        [0, 0, 1, 6],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count is 0, seed 0, side 6"),
        ({"side": 3}, "side 3.* expected .* a side of 4 to 30"),
        ({"side": 31}, "side 31"),
        ({"seed": -1}, "seed -1"),
        ({"demonstrations": 0}, "demonstrations 0"),
        ({"families": ("mirror", "teleport")}, r"families: \['teleport'\] unknown, expected some"),
        ({"families": ()}, "families: .* expected some"),
        (
            {"families": ("crop",), "side": 4, "demonstrations": 299},
            "found no 300 new examples for task 0",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        generate_tasks(**{"count": 12, "seed": 0, **arguments})

"""Symmetries of ARC tasks: the eight of the square, and permutations of the colours 1 to 9."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.arc.reader import COLOURS, ArcTask, Grid
from hrm_jax.puzzles.arc.tokens import FIRST_COLOUR, PAD
from hrm_jax.puzzles.base import Array

DIHEDRAL = 8
_INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
_QUARTER_TURNS = (0, 1, 2, 3, 0, 2, 1, 3)  # those from 4 on after a reflection left to right
_ATTEMPTS_EACH = 5  # the reference's `augment_retries_factor`
_NAME = re.compile(  # TRM's builder joins the parts by |||, as we do, that of HRM by _
    r"(?P<task>.*)(?P<mark>\|\|\||_)t(?P<dihedral>[0-7])(?P=mark)(?P<colours>[0-9]{10})", re.DOTALL
)


def dihedral(grid: Grid, number: int) -> Grid:
    """Turns or mirrors a grid [H, W], as `dihedral_transform` of the reference.

    Number 0 is the identity; 1, 2, 3 quarter turns to the left; 4 left–right; 5 upside down; 6
    transpose; 7 transpose along the other diagonal.
    """
    return np.rot90(np.fliplr(grid) if number >= 4 else grid, _QUARTER_TURNS[number])


def inverse_dihedral(grid: Grid, number: int) -> Grid:
    """Undoes `dihedral` of the same number."""
    return dihedral(grid, _INVERSE[number])


@dataclasses.dataclass(frozen=True, eq=False)
class Augmentations:
    """A symmetries, in arrays, for there can be a million."""

    dihedral: Array  # number of the turn or mirroring, uint8 [A]
    colours: Array  # what each colour becomes, uint8 [A, 10]; colour 0 stays

    def __len__(self) -> int:
        return len(self.dihedral)

    def take(self, rows: slice | Array) -> Augmentations:
        """The symmetries of the given rows."""
        return Augmentations(self.dihedral[rows], self.colours[rows])

    def apply(self, row: int, grid: Grid) -> Grid:
        """A grid after symmetry `row`."""
        return self.colours[row][dihedral(grid, int(self.dihedral[row]))]

    def undo(self, row: int, grid: Grid) -> Grid:
        """The grid that `apply` makes `grid` of."""
        inverse = np.argsort(self.colours[row]).astype(np.uint8)
        return inverse[inverse_dihedral(grid, int(self.dihedral[row]))]

    def names(self, task: str) -> list[str]:
        """Identifiers: the task's name, and for others `name|||t<number>|||<colours>`."""
        tables = (self.colours + ord("0")).tobytes().decode()
        names = [
            f"{task}|||t{number}|||{tables[COLOURS * row : COLOURS * (row + 1)]}"
            for row, number in enumerate(self.dihedral.tolist())
        ]
        plain = f"{task}|||t0|||{''.join(map(str, range(COLOURS)))}"
        return [task if name == plain else name for name in names]


def parse_names(names: Sequence[str]) -> tuple[list[str], Augmentations]:
    """Splits identifiers [A] into the tasks' names and the symmetries.

    A name without a symmetry is a task's own; the others are as of `Augmentations.names` or of the
    PyTorch builders of HRM and TRM, and DataError if the colours are no permutation that leaves 0.
    """
    tasks, numbers, tables = [], [], []
    for name in names:
        match = _NAME.fullmatch(name)
        tasks.append(match["task"] if match else name)
        numbers.append(match["dihedral"] if match else "0")
        tables.append(match["colours"] if match else "0123456789")
    colours = _digits(tables).reshape(len(names), COLOURS)
    bad = (np.sort(colours, axis=1) != np.arange(COLOURS)).any(1) | (colours[:, :1] != 0).any(1)
    if bad.any():
        raise DataError(
            f"identifier {names[int(np.argmax(bad))]!r}: its digits are no permutation of "
            f"0 to {COLOURS - 1} that begins with 0"
        )
    return tasks, Augmentations(_digits(numbers), colours)


def _digits(texts: list[str]) -> Array:
    return np.frombuffer("".join(texts).encode(), np.uint8) - np.uint8(ord("0"))


def augmentations(task: ArcTask, count: int, seed: int) -> Augmentations:
    """The identity and up to `count` symmetries under which a task looks different.

    Attempt k is a pure function of (seed, name of the task, k), the same on every machine, so
    fewer augmentations are the first ones of more. Those after which demonstrations and test
    inputs are what they are after an earlier one, up to their order, are left out, as in the
    reference; the outputs of the test are not looked at. So there are fewer where 5 · `count`
    attempts found no more, as with tasks of few colours.
    """
    if count < 0:
        raise DataError(f"num_aug is {count}, expected 0 or more")
    numbers, colours = _attempts(task.name, _ATTEMPTS_EACH * count, seed)
    looks = [_looks(task, number) for number in range(DIHEDRAL)]
    seen: set[bytes] = set()
    rows = []
    for row, number in enumerate(numbers.tolist()):
        table = colours[row]
        parts = [table[cells].tobytes() + shape for cells, shape in looks[number]]
        key = hashlib.blake2b(b"".join(sorted(parts)), digest_size=16).digest()
        if key not in seen:
            seen.add(key)
            rows.append(row)
            if len(rows) > count:
                break
    return Augmentations(numbers[rows], colours[rows])


def _attempts(name: str, count: int, seed: int) -> tuple[Array, Array]:
    """The identity and `count` random symmetries: numbers [1 + count], colours [1 + count, 10]."""
    text = hashlib.sha256(f"{seed}|{name}".encode()).digest()
    # `random_raw` and seeding are the parts of NumPy's generators that never change.
    raw = np.random.PCG64(int.from_bytes(text, "little")).random_raw(COLOURS * count)
    raw = np.asarray(raw, np.uint64).reshape(count, COLOURS)
    numbers = np.zeros(1 + count, np.uint8)
    colours = np.tile(np.arange(COLOURS, dtype=np.uint8), (1 + count, 1))
    numbers[1:] = raw[:, 0] >> np.uint64(61)
    colours[1:, 1:] = 1 + np.argsort(raw[:, 1:], axis=1, kind="stable")
    return numbers, colours


def _looks(task: ArcTask, number: int) -> list[tuple[Array, bytes]]:
    """Cells and shapes of all pairs after a turn, colours as they are."""
    pairs: list[list[Grid]] = [[*pair] for pair in task.train]
    pairs += [[source] for source, _ in task.test]
    return [
        (
            np.concatenate([dihedral(grid, number).reshape(-1) for grid in grids]),
            bytes(side for grid in grids for side in dihedral(grid, number).shape),
        )
        for grids in pairs
    ]


def canonical(grids: Sequence[Grid]) -> bytes:
    """A digest that is the same for all grids that one symmetry makes of these together."""
    forms = []
    for number in range(DIHEDRAL):
        turned = [dihedral(grid, number) for grid in grids]
        cells = np.concatenate([grid.reshape(-1) for grid in turned])
        found, first = np.unique(cells, return_index=True)
        table = np.zeros(COLOURS, np.uint8)
        present = found[np.argsort(first)]
        present = present[present != 0]
        table[present] = np.arange(1, len(present) + 1)
        shapes = bytes(side for grid in turned for side in grid.shape)
        forms.append(shapes + table[cells].tobytes())
    return hashlib.blake2b(min(forms), digest_size=16).digest()


def translate(
    key: jax.Array, inputs: jax.Array, labels: jax.Array, canvas: int, *, stay: float = 0.25
) -> tuple[jax.Array, jax.Array]:
    """Moves input and output grid by one random offset at which both are still on the canvas.

    Both are tokens [canvas · canvas] of grids at the origin, pad (0), not −100, where there is no
    label, and their ends are marked as `tokens.encode` marks them. The reference leaves one example
    of each puzzle, about every fourth, at the origin, where those of the test are: so does the
    probability `stay`. Otherwise all offsets that fit are equally likely.
    """
    grids = jnp.stack([inputs.astype(jnp.int32), labels.astype(jnp.int32)])
    grids = grids.reshape(2, canvas, canvas)
    coloured = (grids >= FIRST_COLOUR).any(0)
    lines = jnp.arange(1, canvas + 1)
    height = jnp.max(jnp.where(coloured.any(1), lines, 0))
    width = jnp.max(jnp.where(coloured.any(0), lines, 0))
    bits = jax.random.bits(key, (3,), jnp.uint32)
    move = (bits[0] >> 8).astype(jnp.float32) / 2**24 >= stay
    steps = jnp.stack([canvas - height + 1, canvas - width + 1]).astype(jnp.uint32)
    row, column = jnp.where(move, bits[1:] % steps, 0).astype(jnp.int32)
    padded = jnp.pad(grids, ((0, 0), (canvas, 0), (canvas, 0)), constant_values=PAD)
    moved = jax.lax.dynamic_slice(
        padded, (0, canvas - row, canvas - column), (2, canvas, canvas)
    ).reshape(2, canvas * canvas)
    return moved[0].astype(inputs.dtype), moved[1].astype(labels.dtype)

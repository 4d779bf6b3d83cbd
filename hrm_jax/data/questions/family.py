"""Families of eight, and questions whose answers are one step or two steps up the tree.

A family is told in facts: whose mother or father is who. Founders have no parents. Who the father
of somebody's mother is stands in no single fact: it takes two of them, of which one's parent is the
other's child.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt

from hrm_jax.data.questions.base import (
    PRIME,
    Array,
    Questions,
    Worlds,
    draw_until,
    held_out_by,
    reordered,
)

NAMES = (  # of women and men alike
    *("Alex", "Cruz", "Dani", "Eli"),
    *("Gabi", "Kim", "Robin", "Sam"),
)
FOUNDERS = 4
_PEOPLE = len(NAMES)
_PARENTS = ("mother", "father")
FACTS = 2 * (_PEOPLE - FOUNDERS)


@dataclasses.dataclass(frozen=True)
class Families(Worlds):
    """Families; people are known by the numbers of their names.

    Attributes:
        parents: Everybody's mother and father, −1 of founders, int8 [W, 8, 2].
    """

    parents: Array

    def answers(self) -> npt.NDArray[np.int32]:
        one = np.moveaxis(self.parents, 2, 0)
        two = [_of(second, first) for second in one for first in one]
        return np.concatenate([*one, *two], axis=1).astype(np.int32)

    def lines(self, world: int) -> list[str]:
        known = (*NAMES, "")  # nobody is the last
        parents = [" and ".join(known[x] for x in two) for two in self.parents[world].tolist()]
        return [
            f"{name}: {'founder' if two[0] < 0 else parent}"
            for name, parent, two in zip(NAMES, parents, self.parents[world], strict=True)
        ]

    def states(self) -> npt.NDArray[np.float32]:
        """A vector for each fact, [W, 8, 18]: whose it is, by name, who that parent is, and whether
        as a mother or as a father."""
        known = self.parents.reshape(len(self), -1)
        person = np.nonzero(known >= 0)[1].reshape(len(self), FACTS)
        parent = np.take_along_axis(known, person, axis=1)
        parts = ((person // 2, _PEOPLE), (parent, _PEOPLE), (person % 2, 2))
        facts = [np.eye(size, dtype=np.float32)[x] for x, size in parts]
        return reordered(np.concatenate(facts, axis=2), self.order)


@functools.cache
def questions() -> Questions:
    """The 48 questions: each kind about each person. Their codes have eight bits for the person,
    two for the parent, and three for the parent of that one: not asked for, mother or father."""
    steps = [(one, two) for two in range(3) for one in range(2)]
    kind, person = np.divmod(np.arange(len(steps) * _PEOPLE), _PEOPLE)
    one, two = np.array(steps)[kind].T
    parts = ((person, _PEOPLE), (one, 2), (two, 3))
    ways = [" of the ".join(_PARENTS[x] for x in (b - 1, a)[b == 0 :]) for a, b in steps]
    return Questions(
        texts=tuple(f"Who is the {way} of {name}?" for way in ways for name in NAMES),
        kinds=tuple(way.replace(" of the ", "_of_") for way in ways for _ in NAMES),
        codes=np.concatenate([np.eye(size, dtype=np.float32)[x] for x, size in parts], axis=1),
        relational=two > 0,
        answers=NAMES,
    )


def draw_families(
    count: int, random: np.random.Generator, *, held_out: bool, shuffled: bool
) -> Families:
    """Draws families of one part; `shuffled` is whether facts come in any order, or by name.

    After two women and two men, the founders, each person is born to a woman and a man among those
    before. No family of one part is one of the other with other names.
    """

    def draw(tried: int) -> Families:
        female = random.random((tried, _PEOPLE)) < 0.5
        female[:, :FOUNDERS] = (True, True, False, False)
        parents = np.full((tried, _PEOPLE, 2), -1)
        for person in range(FOUNDERS, _PEOPLE):
            for i, able in enumerate((female, ~female)):
                chance = random.random((tried, person))
                parents[:, person, i] = np.where(able[:, :person], chance, -1).argmax(1)
        parents = parents[held_out_by(_unnamed(parents)) == held_out]
        everybody = np.tile(np.arange(_PEOPLE, dtype=np.int8), (len(parents), 1))
        names = random.permuted(everybody, axis=1)
        named = np.full(parents.shape, -1, np.int8)
        for i in range(2):
            np.put_along_axis(named[:, :, i], names, _of(names, parents[:, :, i]), axis=1)
        facts = np.tile(np.arange(FACTS, dtype=np.int8), (len(parents), 1))
        order = random.permuted(facts, axis=1) if shuffled else facts
        return Families(order=order, parents=named)

    return draw_until(count, draw)


def _of(values: Array, people: Array) -> Array:
    """The values [W, P] of some people [W, P]; −1 of nobody, who is −1."""
    nobody = np.full((len(values), 1), -1, values.dtype)
    return np.take_along_axis(np.concatenate([values, nobody], axis=1), people.astype(np.int64), 1)


def _unnamed(parents: Array) -> npt.NDArray[np.int64]:
    """What is the same of families that differ in names alone, [W, 8]: a number for each person,
    sorted, that comes from those of parents and children (Weisfeiler and Leman's refinement)."""
    worlds = np.arange(len(parents))[:, None]
    known = (parents[:, :, 0] >= 0).astype(np.int64)
    for _ in range(4):
        found = known * 3
        for i, weight in enumerate((5, 7)):
            found += weight * _of(known, parents[:, :, i])
            children = np.zeros((len(parents), _PEOPLE + 1), np.int64)
            np.add.at(children, (worlds, parents[:, :, i]), known**2 + 11 * weight)
            found += 13 * weight * children[:, :-1]
        known = (found**2 + found) % PRIME
    return np.sort(known, axis=1)

"""Families: grandparents are read off the facts, and no family is held out under other names."""

import numpy as np
import pytest

from hrm_jax.data.questions.family import NAMES, Families, _unnamed, draw_families, questions

QUESTIONS = questions()


def _draw(count, seed=0, held_out=False, shuffled=True):
    random = np.random.default_rng(seed)
    return draw_families(count, random, held_out=held_out, shuffled=shuffled)


def test_answers_are_those_of_a_plain_reading():
    families = _draw(40)
    asked = 0
    for facts, given in zip(families.states(), families.answers(), strict=True):
        assert facts.shape == (8, 18)
        people = {name: {"mother": None, "father": None} for name in NAMES}
        for fact in facts:
            child, parent, as_what = np.flatnonzero(fact)
            people[NAMES[child]]["mother" if as_what == 16 else "father"] = NAMES[parent - 8]
        assert sum(x["mother"] is None for x in people.values()) == 4
        for text, answer in zip(QUESTIONS.texts, given.tolist(), strict=True):
            *steps, person = text.removeprefix("Who is the ").removesuffix("?").split(" of ")
            for step in reversed(steps):
                person = people[person][step.removeprefix("the ")] if person else None
            assert person == (None if answer < 0 else QUESTIONS.answers[answer])
            asked += answer >= 0
    assert asked > 40 * 8


def test_nobody_is_an_ancestor_of_themselves_and_mothers_are_no_fathers():
    for parents in _draw(200).parents:
        assert not set(parents[:, 0]) & set(parents[:, 1]) - {-1}
        known = {k for k in range(8) if parents[k, 0] < 0}
        for _ in range(8):  # of those whose parents are known, the children are
            known |= {k for k in range(8) if set(parents[k]) <= known}
        assert known == set(range(8))


def test_questions_have_codes_of_their_own():
    assert len(set(QUESTIONS.texts)) == len(np.unique(QUESTIONS.codes, axis=0)) == 48
    assert QUESTIONS.codes.shape == (48, 13)
    assert QUESTIONS.relational.tolist() == [text.count(" of ") == 2 for text in QUESTIONS.texts]
    assert set(QUESTIONS.kinds) >= {"mother", "father_of_mother"}


def _renamed(parents, random):
    """The same family with other names."""
    name = random.permutation(8)
    other = np.full_like(parents, -1)
    for person in range(8):
        other[name[person]] = [-1 if x < 0 else name[x] for x in parents[person]]
    return other


def test_no_family_is_in_both_parts_under_other_names():
    random = np.random.default_rng(5)
    parents = _draw(200).parents.astype(int)
    others = np.stack([_renamed(x, random) for x in parents])
    same = _unnamed(parents)
    assert (_unnamed(others) == same).all()
    assert len(np.unique(same, axis=0)) > 100  # and it tells families apart
    changed = parents.copy()
    for family in changed:  # one person has another mother
        child = np.flatnonzero(family[:, 0] >= 0)[-1]
        mothers = set(family[:, 0]) - {-1, family[child, 0], child}
        family[child, 0] = min(mothers, default=family[child, 0])
    moved = (changed != parents).any((1, 2))
    assert moved.sum() > 100
    assert ((_unnamed(changed) != same).any(1))[moved].mean() > 0.9
    held_out = {x.tobytes() for x in _unnamed(_draw(1000, 7, held_out=True).parents)}
    train = {x.tobytes() for x in _unnamed(_draw(3000, 8).parents)}
    assert len(held_out) > 40
    assert not held_out & train


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_order_of_facts(shuffled):
    children = _draw(60, shuffled=shuffled).states()[:, :, :8].argmax(2)
    by_name = (np.diff(children, axis=1) >= 0).all(axis=1).mean()
    assert by_name < 0.1 if shuffled else by_name == 1


def test_a_family_for_people():
    family = Families(np.arange(8)[None], np.array([[[-1, -1]] * 7 + [[0, 1]]], np.int8))
    assert family.lines(0)[0] == "Alex: founder"
    assert family.lines(0)[7] == "Sam: Alex and Cruz"

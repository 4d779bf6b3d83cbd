"""Numbers in Spanish words."""

import collections
import random

import pytest

from hrm_jax.data.text.numbers import number_pairs, spanish_name

# As the grammar of the Real Academia Española gives them.
KNOWN = {
    0: "cero",
    7: "siete",
    16: "dieciséis",
    21: "veintiuno",
    22: "veintidós",
    31: "treinta y uno",
    100: "cien",
    101: "ciento uno",
    555: "quinientos cincuenta y cinco",
    1000: "mil",
    1001: "mil uno",
    1234: "mil doscientos treinta y cuatro",
    21_021: "veintiún mil veintiuno",
    31_900: "treinta y un mil novecientos",
    100_000: "cien mil",
    101_701: "ciento un mil setecientos uno",
    999_999: "novecientos noventa y nueve mil novecientos noventa y nueve",
    1_000_000: "un millón",
    1_021_000: "un millón veintiún mil",
    21_000_001: "veintiún millones uno",
    131_131_131: "ciento treinta y un millones ciento treinta y un mil ciento treinta y uno",
}

ONES = "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince"
ONES += " dieciséis diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés"
ONES += " veinticuatro veinticinco veintiséis veintisiete veintiocho veintinueve"
TENS = "treinta cuarenta cincuenta sesenta setenta ochenta noventa"
HUNDREDS = "ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos"
HUNDREDS += " ochocientos novecientos"
VALUES = {word: value for value, word in enumerate(ONES.split())}
VALUES |= {word: 10 * value for value, word in enumerate(TENS.split(), 3)}
VALUES |= {word: 100 * value for value, word in enumerate(HUNDREDS.split(), 1)}
VALUES |= {"y": 0, "cien": 100, "un": 1, "veintiún": 21}


def _value(words):
    total = part = 0
    for word in words.split():
        if word == "mil":
            part = 1000 * max(part, 1)
        elif word in ("millón", "millones"):
            total, part = 1_000_000 * part, 0
        else:
            part += VALUES[word]
    return total + part


def test_known_names():
    assert {number: spanish_name(number) for number in KNOWN} == KNOWN


def test_names_mean_their_numbers():
    draw = random.Random(0)
    numbers = {*range(1100), *(draw.randrange(10 ** draw.randint(4, 9)) for _ in range(3000))}
    for number in numbers:
        name = spanish_name(number)
        assert _value(name) == number, name
        assert "uno mil" not in name


def test_parts_are_disjoint_distinct_and_repeatable():
    train, test = number_pairs(10**6, 3000, 500, seed=1)
    assert (len(train), len(test)) == (3000, 500)
    assert len({*train.prompts, *test.prompts}) == 3500
    for pairs in (train, test):
        assert all(_value(t) == int(p) for p, t in zip(pairs.prompts, pairs.targets, strict=True))
    again, other = (number_pairs(10**6, 3000, 500, seed=seed) for seed in (1, 2))
    assert [p.digest() for p in again] == [train.digest(), test.digest()]
    assert other[0].digest() != train.digest()


def test_all_magnitudes_are_there():
    train, test = number_pairs(10**6, 3000, 500, seed=0)
    counts = collections.Counter(map(len, train.prompts))
    assert counts == {1: 10, 2: 90, 3: 725, 4: 725, 5: 725, 6: 725}
    assert collections.Counter(map(len, test.prompts)) == {3: 125, 4: 125, 5: 125, 6: 125}
    heads = [int(p) // 1000 for p in train.prompts if len(p) == 6]
    assert max(heads) > 950 > 150 > min(heads)
    assert sorted(map(int, train.prompts)) != [*map(int, train.prompts)]


def test_all_numbers_can_be_drawn():
    train, test = number_pairs(321, 301, 20, seed=0)
    assert {*map(int, train.prompts), *map(int, test.prompts)} == set(range(321))


def test_impossible_wishes_are_refused():
    with pytest.raises(ValueError, match="limit is 100, expected 101 to 1000000000"):
        number_pairs(100, 1, 1, 0)
    with pytest.raises(ValueError, match="400 numbers are wanted, there are 399 to draw from"):
        number_pairs(400, 400, 1, 0)

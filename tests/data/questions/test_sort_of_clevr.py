"""Sort-of-CLEVR: its answers are read off the images and off the states, one object at a time."""

import math
import re

import numpy as np
import pytest

from hrm_jax.data.questions.sort_of_clevr import COLOURS, draw_scenes, questions

QUESTIONS = questions()


def _draw(count, seed=0, held_out=False, shuffled=True):
    random = np.random.default_rng(seed)
    return draw_scenes(count, random, held_out=held_out, shuffled=shuffled)


@pytest.fixture(scope="module")
def scenes():
    return _draw(60)


def _seen(image):
    """Middle and shape of every object of an image, by colour."""
    found = {}
    for name, colour in COLOURS.items():
        y, x = np.nonzero((image == colour).all(2))
        assert x.max() - x.min() == y.max() - y.min() == 10  # nothing lies on top of it
        middle = ((x.max() + x.min()) // 2, (y.max() + y.min()) // 2)
        found[name] = middle, "square" if len(x) == 121 else "circle"
    return found


def _told(objects):
    """The same of the vectors of a state."""
    found = {}
    for x, y, *rest in objects.tolist():
        colour, shape = rest[:6], rest[6:]
        assert sorted(colour) == [0, 0, 0, 0, 0, 1]
        name = list(COLOURS)[colour.index(1)]
        found[name] = (round(x * 11) + 37, round(y * 11) + 37), ["square", "circle"][shape.index(1)]
    return found


def _answer(text, objects):
    name = re.search(r"(\w+) object\?$|the (\w+) object on|the (\w+) object at", text)
    name = next(filter(None, name.groups()))
    (x, y), shape = objects[name]
    others = sorted(
        (math.hypot(x - a, y - b), kind) for k, ((a, b), kind) in objects.items() if k != name
    )
    assert others[0][0] < others[1][0]  # no tie
    assert others[-2][0] < others[-1][0]
    if "left" in text:
        return "yes" if x < 37 else "no"
    if "top" in text:
        return "yes" if y < 37 else "no"
    if "closest" in text:
        return others[0][1]
    if "furthest" in text:
        return others[-1][1]
    if "How many" in text:
        return str(sum(kind == shape for _, kind in objects.values()))
    return shape


def test_answers_are_those_of_a_plain_reading(scenes):
    images, states, answers = scenes.images(), scenes.states(), scenes.answers()
    assert images.shape == (60, 75, 75, 3)
    assert images.dtype == np.uint8
    assert states.shape == (60, 6, 10)
    for image, state, given in zip(images, states, answers, strict=True):
        objects = _seen(image)
        assert objects == _told(state)
        wanted = [_answer(text, objects) for text in QUESTIONS.texts]
        assert [QUESTIONS.answers[k] for k in given] == wanted


def test_questions_have_codes_of_their_own():
    assert len(QUESTIONS.texts) == len(set(QUESTIONS.texts)) == 36
    assert QUESTIONS.codes.shape == (36, 11)
    assert len(np.unique(QUESTIONS.codes, axis=0)) == 36
    assert (QUESTIONS.codes.sum(1) == 3).all()  # a colour, one object or several, a kind
    about_several = [bool(re.search("closest|furthest|How many", x)) for x in QUESTIONS.texts]
    assert QUESTIONS.relational.tolist() == about_several
    assert QUESTIONS.number(QUESTIONS.texts[7]) == 7
    with pytest.raises(ValueError, match=r"did you mean 'What is the shape of the red object\?'"):
        QUESTIONS.number("what is the shape of the red thing?")


def test_answers_are_balanced():
    answers = _draw(2000).answers()
    for kind in ("shape", "left", "top", "closest", "furthest"):
        chosen = answers[:, np.array(QUESTIONS.kinds) == kind]
        _, counts = np.unique(chosen, return_counts=True)
        assert len(counts) == 2
        assert abs(counts[0] / chosen.size - 0.5) < 0.03
    counts = np.bincount(answers[:, -6:].ravel(), minlength=10)[4:] / answers[:, -6:].size
    # The object itself, and those of the five others that have its shape by a toss.
    assert np.allclose(counts, [math.comb(5, k) / 32 for k in range(6)], atol=0.02)


def test_no_scene_is_in_both_parts():
    parts = [
        {x.tobytes() + y.tobytes() for x, y in zip(part.places, part.shapes, strict=True)}
        for held_out in (False, True)
        for part in [_draw(3000, seed=1, held_out=held_out)]
    ]
    assert not parts[0] & parts[1]
    # And that holds however many are drawn, since the scene itself says where it belongs.
    again = _draw(3000, seed=2, held_out=True)
    mixed = {x.tobytes() + y.tobytes() for x, y in zip(again.places, again.shapes, strict=True)}
    assert not mixed & parts[0]


def test_the_order_of_objects():
    sorted_, shuffled = _draw(50, shuffled=False), _draw(50)
    assert (sorted_.states()[..., 2:8].argmax(2) == np.arange(6)).all()
    first = shuffled.states()[:, 0, 2:8].argmax(1)
    assert len(set(first.tolist())) == 6


def test_the_same_seed_draws_the_same():
    assert _draw(20, 3).digest() == _draw(20, 3).digest()
    assert _draw(20, 3).digest() != _draw(20, 4).digest()
    assert _draw(20, 3)[:10].digest() != _draw(20, 3).digest()
    assert "red" in _draw(1).lines(0)[0]

"""Batches of worlds and questions: which are drawn, what is asked, and every process' rows."""

import numpy as np
import pytest

from hrm_jax.data.questions import family, sort_of_clevr
from hrm_jax.data.questions.base import QuestionBatches


def _scenes(count, random):
    return sort_of_clevr.draw_scenes(count, random, held_out=False, shuffled=True)


def _families(count, random):
    return family.draw_families(count, random, held_out=False, shuffled=True)


def _batches(worlds, asked=0, batch_size=8, *draws):
    return QuestionBatches(worlds, lambda x: x.states(), asked, batch_size, *(draws or (0,)))


def test_worlds_drawn_for_ever_are_new_in_every_batch():
    source = _batches(_scenes)
    seen = {state.tobytes() for index in range(5) for state in source[index]["inputs"]}
    assert len(seen) == 5 * 8
    again = _batches(_scenes)
    assert all((again[3][name] == array).all() for name, array in source[3].items())
    other = _batches(_scenes, 0, 8, 1)
    assert (other[3]["inputs"] != source[3]["inputs"]).any()


def test_a_set_comes_whole_in_each_epoch():
    worlds = _scenes(24, np.random.default_rng(0))
    known = {state.tobytes(): k for k, state in enumerate(worlds.states())}
    source = _batches(worlds)
    drawn = [known[state.tobytes()] for index in range(6) for state in source[index]["inputs"]]
    epochs = drawn[:24], drawn[24:]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(24))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("draw", [_scenes, _families])
def test_questions_and_their_answers(draw):
    worlds = draw(16, np.random.default_rng(0))
    right = worlds.answers()
    known = {state.tobytes(): k for k, state in enumerate(worlds.states())}
    for asked in (0, 5):
        batch = _batches(worlds, asked)[0]
        assert batch["questions"].shape == (8, asked or right.shape[1])
        for state, chosen, answers in zip(*batch.values(), strict=True):
            assert len(set(chosen.tolist())) == len(chosen)
            assert (answers == right[known[state.tobytes()], chosen]).all()
            assert (answers >= 0).all() or not asked  # 5 can be answered of any family


def test_every_process_makes_its_own_rows():
    worlds = _families(32, np.random.default_rng(0))
    for source in (worlds, _families):
        whole = _batches(source, 4)[2]
        parts = [_batches(source, 4, 8, 0, process, 2)[2] for process in range(2)]
        for name, array in whole.items():
            assert (np.concatenate([part[name] for part in parts]) == array).all()

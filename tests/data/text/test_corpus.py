"""Held-out documents, windows of running text, and windows to be scored."""

import collections
import json

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.data.pipeline import batch_iterator
from hrm_jax.data.text.corpus import TextWindows, eval_windows, split_documents
from hrm_jax.data.text.documents import Documents
from hrm_jax.data.text.reader import read_documents
from hrm_jax.data.text.tokenizers import BOS, EOS, PAD, ByteTokenizer

TOKENIZER = ByteTokenizer()


def _contents(documents):
    return [documents[i] for i in range(len(documents))]


def _distinct(sizes, first=0):
    """Documents in which every two bytes that follow each other stand in one place only."""
    draw = np.random.default_rng(first)
    return Documents.of([draw.integers(0, 128, size, np.uint8).tobytes() for size in sizes])


def test_the_split_depends_on_contents_and_seed_only():
    documents = _distinct([5] * 50)
    train, test = split_documents(documents, 0.2, seed=3)
    assert (len(train), len(test)) == (40, 10)
    assert set(_contents(train)) | set(_contents(test)) == set(_contents(documents))
    backwards = split_documents(documents.select(range(49, -1, -1)), 0.2, seed=3)
    assert _contents(backwards[1]) == _contents(test)[::-1]
    assert _contents(split_documents(documents, 0.2, seed=4)[1]) != _contents(test)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_neither_part_of_a_split_is_empty(share):
    assert {len(part) for part in split_documents(_distinct([4] * 5), share, 0)} == {1, 4}


def test_equal_documents_stay_together():
    documents = Documents.of(["a", "b", "a", "c", "b", "a"])
    for seed in range(20):
        train, test = split_documents(documents, 0.3, seed)
        assert not set(_contents(train)) & set(_contents(test))
        assert len(train) + len(test) == 6


def test_one_document_cannot_be_split():
    for texts in (["a"], ["a", "a"]):
        with pytest.raises(DataError, match=r"book: one document cannot .* give a held-out file"):
            split_documents(Documents.of(texts, ["book"] * len(texts)), 0.1, 0)
    with pytest.raises(ValueError, match="held_out is 1"):
        split_documents(Documents.of(["a", "b"]), 1.0, 0)


def _stream(documents):
    return [token for d in _contents(documents) for token in (BOS, *d, EOS)]


@pytest.mark.parametrize(("length", "size"), [(10, 4), (7, 3), (16, 50), (40, 1)])
def test_an_epoch_has_every_window_once(length, size):
    documents = _distinct([30, 1, 57, 12])
    stream = _stream(documents)
    source = TextWindows(documents, TOKENIZER, length, size, seed=1)
    windows = len(stream) // length
    assert source.items == windows
    drawn = np.concatenate([source[i]["tokens"] for i in range(-(-5 * windows // size))])
    assert drawn.dtype == np.int32
    ring = stream + stream
    cuts, orders = set(), set()
    place = {tuple(ring[i : i + length]): i for i in range(len(stream))}
    for epoch in drawn[: 5 * windows].reshape(5, windows, length):
        drawn_places = [place[tuple(window)] for window in epoch]  # all stand in the stream
        orders.add(tuple(np.argsort(drawn_places)))
        places = sorted(drawn_places)
        # One after the other: nothing twice, less than a window left out.
        gaps = np.diff([*places, places[0] + len(stream)])
        assert sorted(gaps)[:-1] == [length] * (windows - 1)
        cuts.add(places[0] % length)
    assert len(cuts) > 1
    if windows > 3:
        assert len(orders) > 1


def test_windows_are_a_function_of_seed_and_index():
    documents = _distinct([100, 80])
    one, two = (TextWindows(documents, TOKENIZER, 8, 6, seed=3) for _ in range(2))
    forwards = [one[i]["tokens"] for i in range(12)]
    for i in reversed(range(12)):
        np.testing.assert_array_equal(two[i]["tokens"], forwards[i])
    other = TextWindows(documents, TOKENIZER, 8, 6, seed=4)
    assert any(not np.array_equal(other[i]["tokens"], forwards[i]) for i in range(3))
    parts = [TextWindows(documents, TOKENIZER, 8, 6, 3, process, 3) for process in range(3)]
    for i in (0, 7):
        together = np.concatenate([part[i]["tokens"] for part in parts])
        np.testing.assert_array_equal(together, forwards[i])
    with pytest.raises(ValueError, match="batch_size 6 cannot be divided among 4 processes"):
        TextWindows(documents, TOKENIZER, 8, 6, 3, 0, 4)


def test_windows_go_on_from_a_saved_position():
    source = TextWindows(_distinct([100]), TOKENIZER, 8, 4, seed=2)
    iterator = batch_iterator(source)
    for i in range(5):
        np.testing.assert_array_equal(next(iterator)["tokens"], source[i]["tokens"])
    position = json.loads(json.dumps(iterator.get_state()))
    other = batch_iterator(source)
    other.set_state(position)
    np.testing.assert_array_equal(next(other)["tokens"], source[5]["tokens"])


def test_windows_with_what_is_before_them_are_as_many():
    documents = _distinct([50, 90, 30])
    plain = TextWindows(documents, TOKENIZER, 8, 4, seed=2)
    more = TextWindows(documents, TOKENIZER, 8, 4, seed=2, before=5)
    ring = [x for i in range(3) for x in (BOS, *documents[i], EOS)] * 2
    for step in range(len(ring) // 32):
        tokens = more[step]["tokens"]
        np.testing.assert_array_equal(tokens[:, 5:], plain[step]["tokens"])
        for row in tokens.tolist():
            assert any(row == ring[i : i + 13] for i in range(len(ring) // 2))


def test_a_stream_shorter_than_a_window_goes_round():
    source = TextWindows(Documents.of(["abc"]), TOKENIZER, 12, 2, seed=0)
    ring = [BOS, *b"abc", EOS] * 4
    for row in source[0]["tokens"].tolist():
        assert any(row == ring[i : i + 12] for i in range(5))


@pytest.mark.parametrize(("length", "stride"), [(16, 8), (16, 15), (10, 1), (16, 5), (2, 1)])
def test_every_byte_is_scored_once_with_its_context(length, stride):
    sizes = [1, 2, length - 2, length - 1, length, length + 1, 3 * length, 7 * length + 3]
    documents = _distinct([size for size in sizes if size])
    tokens, mask = eval_windows(documents, TOKENIZER, length, stride)
    assert tokens.shape == mask.shape == (len(tokens), length)
    assert tokens.dtype == np.int32
    assert not mask[:, 0].any()
    assert mask.any(1).all()  # no window for nothing
    counted = collections.Counter()
    row = 0
    for d in range(len(documents)):
        sequence = [BOS, *documents[d]]
        done = 1
        while done < len(sequence):
            start = 0 if done == 1 else done - (length - stride)
            window = sequence[start : start + length]
            assert tokens[row].tolist() == window + [PAD] * (length - len(window))
            for column in np.flatnonzero(mask[row]):
                counted[d, start + column - 1] += 1
            assert column + 1 == len(window)
            done = start + len(window)
            row += 1
    assert row == len(tokens)
    assert set(counted.values()) == {1}
    assert len(counted) == mask.sum() == len(documents.tokens)

    # With what is before each window in its document, and else the end of another.
    more, theirs = eval_windows(documents, TOKENIZER, length, stride, before=6)
    np.testing.assert_array_equal(more[:, 6:], tokens)
    np.testing.assert_array_equal(theirs, np.pad(mask, ((0, 0), (6, 0))))
    texts = iter([BOS, *documents[d]] for d in range(len(documents)))
    for row in more.tolist():
        if row[6] == BOS:
            text, start = next(texts), 0
        assert row[:6] == [*[EOS] * 6, *text[:start]][-6:]
        start += stride


def test_a_bits_per_byte_of_known_models(data):
    """Uniform over bytes: 8; the frequencies of the text itself: its entropy."""
    documents = read_documents(data / "spanish" / "es_valid.txt")
    tokens, mask = eval_windows(documents, TOKENIZER, 256, 128)
    scored = tokens[mask]
    np.testing.assert_array_equal(np.sort(scored), np.sort(documents.tokens))
    share = np.bincount(documents.tokens, minlength=256) / len(documents.tokens)
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    assert -np.log2(share[scored]).sum() / len(documents.tokens) == pytest.approx(entropy)


@pytest.mark.parametrize("stride", [0, 16])
def test_a_stride_out_of_range_is_refused(stride):
    with pytest.raises(ValueError, match=f"stride is {stride}, expected 1 to length - 1 = 15"):
        eval_windows(Documents.of(["a"]), TOKENIZER, 16, stride)


class _Words:
    """Words as tokens, with an EOS only."""

    vocab_size, pad_id, bos_id, eos_id = 70_000, None, None, 0

    def encode(self, text):
        return [60_000 + len(word) for word in text.split()]


def test_other_tokenizers():
    documents = Documents.of(["uno dos tres", "cuatro"])
    tokens, mask = eval_windows(documents, _Words(), 3, 1)
    assert tokens.tolist() == [[0, 60003, 60003], [60003, 60003, 60004], [0, 60006, 0]]
    assert mask.tolist() == [[False, True, True], [False, False, True], [False, True, False]]
    window = TextWindows(documents, _Words(), 6, 1, 0)[0]["tokens"][0].tolist()
    ring = [60003, 60003, 60004, 0, 60006, 0] * 2
    assert any(window == ring[i : i + 6] for i in range(6))


def test_documents_need_a_beginning_and_windows_a_length():
    words = _Words()
    words.eos_id = None
    with pytest.raises(ValueError, match="neither a BOS nor an EOS token"):
        eval_windows(Documents.of(["a"]), words, 4, 2)
    with pytest.raises(ValueError, match="length is 0, expected 1 or more"):
        TextWindows(Documents.of(["a"]), TOKENIZER, 0, 1, 0)

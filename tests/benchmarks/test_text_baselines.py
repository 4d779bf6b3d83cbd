"""Packers and n-grams as yardsticks."""

import collections
import gzip

import numpy as np
import pytest
from analysis.text_baselines import ByteNGrams, packers


def test_packers():
    noise = np.random.default_rng(0).integers(0, 256, 10_000, np.uint8)
    assert packers(noise).keys() == {"gzip -9", "bzip2 -9", "xz -9"}
    assert all(8 < bits < 8.5 for bits in packers(noise).values())
    assert all(bits < 0.1 for bits in packers(b"abc" * 20_000).values())


def _plain(data, order, context, byte):
    """The formula as it is written, with dictionaries."""
    result = 1 / 256
    for size in range(min(order, len(context)) + 1):
        end = context[len(context) - size :]
        after = collections.Counter(
            data[i + size] for i in range(len(data) - size) if data[i : i + size] == end
        )
        n, k = sum(after.values()), len(after)
        if n:
            result = (after[byte] + k * result) / (n + k)
    return result


@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_probabilities_follow_the_formula(order):
    train = b"el perro de san roque no tiene rabo porque ramon ramirez se lo ha cortado"
    test = b"el rabo de ramon roque\xff"
    grams = ByteNGrams(train, order)
    expected = [_plain(train, order, test[:i], byte) for i, byte in enumerate(test)]
    np.testing.assert_allclose(grams.probabilities(test), expected, rtol=1e-12)
    assert grams.bits_per_byte(test) == pytest.approx(-np.log2(expected).mean())


@pytest.mark.parametrize("context", [b"", b"x", b"que n", b"ramon r", b"zzzzz", b"\0\0\0\0\0"])
def test_probabilities_sum_to_one(context):
    grams = ByteNGrams(b"el perro de san roque no tiene rabo porque ramon ramirez", 5)
    last = [grams.probabilities(context + bytes([byte]))[-1] for byte in range(256)]
    assert sum(last) == pytest.approx(1)
    assert min(last) > 0


def test_contexts_out_of_range_are_refused():
    with pytest.raises(ValueError, match="order is 8"):
        ByteNGrams(b"abc" * 10, 8)
    with pytest.raises(ValueError, match="3 bytes are too few for contexts of 5"):
        ByteNGrams(b"abc")


def test_packers_on_real_text(data):
    figures = packers((data / "spanish" / "es_test.txt").read_bytes())
    published = {"gzip -9": 3.08, "bzip2 -9": 2.33, "xz -9": 2.52}
    assert figures == pytest.approx(published, abs=0.006)


@pytest.mark.slow
def test_ngrams_on_real_text(data):
    """2.09 is published for an order-5 model counted on 6 MB of the training text."""
    with gzip.open(data / "spanish" / "es_train.txt.gz") as file:
        train = file.read()
    test = (data / "spanish" / "es_test.txt").read_bytes()
    assert ByteNGrams(train[-6_000_000:]).bits_per_byte(test) == pytest.approx(2.09, abs=0.015)

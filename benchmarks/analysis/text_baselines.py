"""What a language model has to beat: packers, and counting n-grams of bytes."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import lzma

import numpy as np
import numpy.typing as npt

Bytes = bytes | npt.NDArray[np.uint8]


def packers(data: Bytes) -> dict[str, float]:
    """Returns bits per byte of `data` packed by itself, by gzip, bzip2 and xz at level 9."""
    raw = bytes(data)
    packed = {
        "gzip -9": gzip.compress(raw, 9, mtime=0),
        "bzip2 -9": bz2.compress(raw, 9),
        "xz -9": lzma.compress(raw, preset=9),
    }
    return {name: 8 * len(result) / len(raw) for name, result in packed.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class _Level:
    """Counts after contexts of one length; contexts and n-grams are big-endian numbers, sorted."""

    grams: npt.NDArray[np.uint64]  # [G], contexts with their next byte
    gram_counts: npt.NDArray[np.int64]  # [G]
    contexts: npt.NDArray[np.uint64]  # [C]
    totals: npt.NDArray[np.int64]  # [C], how often each occurs with a next byte
    kinds: npt.NDArray[np.int64]  # [C], how many different bytes follow it


class ByteNGrams:
    """Probabilities of the next byte by interpolated counts, smoothed after Witten and Bell.

    P(b | c) = (n(c, b) + k(c) P(b | c')) / (n(c) + k(c)), where n counts, k(c) is the number of
    different bytes seen after c, and c' is c without its first byte; before the empty context all
    bytes are equally likely.

    References:
        Witten and Bell, The zero-frequency problem, IEEE Transactions on Information Theory 37(4),
        1991 (method C); interpolated as in Chen and Goodman, https://arxiv.org/abs/cmp-lg/9606011.
    """

    def __init__(self, data: Bytes, order: int = 5) -> None:
        """Counts N bytes.

        Args:
            data: Text to count.
            order: Bytes of the longest context, 0 to 7.

        Raises:
            ValueError: `order` is out of range, or there are not more bytes than that.
        """
        if not 0 <= order <= 7:
            raise ValueError(f"order is {order}, expected 0 to 7")
        if len(data) <= order:
            raise ValueError(f"{len(data)} bytes are too few for contexts of {order}")
        self.order = order
        self._levels = [_count(_numbers(data, size + 1)) for size in range(order + 1)]

    def probabilities(self, data: Bytes) -> npt.NDArray[np.float64]:
        """Returns the probability of each byte after those before it, float64 [N]."""
        result = np.full(len(data), 1 / 256)
        for size, level in enumerate(self._levels):
            grams, place = np.unique(_numbers(data, size + 1), return_inverse=True)
            count = _look_up(level.grams, grams, level.gram_counts)
            total = _look_up(level.contexts, grams >> np.uint64(8), level.totals)
            kinds = _look_up(level.contexts, grams >> np.uint64(8), level.kinds)
            lower = result[size:]
            count, total, kinds = count[place], total[place], kinds[place]
            seen = total > 0
            lower[seen] = ((count + kinds * lower) / np.maximum(total + kinds, 1))[seen]
        return result

    def bits_per_byte(self, data: Bytes) -> float:
        """Returns the mean of -log2 of the probabilities."""
        return float(-np.log2(self.probabilities(data)).mean())


def _numbers(data: Bytes, size: int) -> npt.NDArray[np.uint64]:
    """All runs of `size` bytes as big-endian numbers, uint64 [N - size + 1]."""
    values = np.frombuffer(data, np.uint8)
    runs = max(0, len(values) - size + 1)
    result = np.zeros(runs, np.uint64)
    for place in range(size):
        result = (result << np.uint64(8)) | values[place : place + runs]
    return result


def _count(numbers: npt.NDArray[np.uint64]) -> _Level:
    grams, counts = np.unique(numbers, return_counts=True)
    contexts, first, kinds = np.unique(grams >> np.uint64(8), return_index=True, return_counts=True)
    return _Level(grams, counts, contexts, np.add.reduceat(counts, first), kinds)


def _look_up(
    keys: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64], values: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Values of those of `keys` that are wanted; 0 where there is no such key."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)

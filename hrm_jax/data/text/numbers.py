"""Numbers and their Spanish names, as prompts and targets: "1234" → "mil doscientos treinta…"."""

from __future__ import annotations

import re

import num2words  # type: ignore[import-untyped]
import numpy as np

from hrm_jax.data.text.pairs import Pairs

_LARGEST = 10**9  # beyond, Spain and America begin to differ in usage

# The library leaves "uno" whole before "mil" and "millones"; Spanish shortens it there.
_SHORTENED = re.compile(r"(veinti|\b)uno(?= (?:mil|millones)\b)")


def spanish_name(number: int) -> str:
    """Returns the cardinal in words: 21031 → `veintiún mil treinta y uno`."""
    words: str = num2words.num2words(number, lang="es")
    return _SHORTENED.sub(lambda m: "veintiún" if m[1] else "un", words)


def number_pairs(limit: int, train: int, test: int, seed: int) -> tuple[Pairs, Pairs]:
    """Returns pairs of digits and words; no number is in both parts, or twice in one.

    Both parts have equally many numbers of each count of digits, as far as there are so many below
    `limit`: short numbers come all, long ones make up for them. The held-out part has none below
    100: these are the words that all others are made of.
    """
    if not 101 <= limit <= _LARGEST:
        raise ValueError(f"limit is {limit}, expected 101 to {_LARGEST}")
    first = np.array([0, *(10**d for d in range(1, len(str(limit - 1))))])
    sizes = np.diff(np.append(first, limit))
    held_out = _even(np.where(first < 100, 0, sizes), test)
    known = _even(sizes - held_out, train)
    random = np.random.Generator(np.random.PCG64(seed))
    parts: tuple[list[int], list[int]] = ([], [])
    for start, size, n_train, n_test in zip(first, sizes, known, held_out, strict=True):
        drawn = start + random.choice(size, n_train + n_test, replace=False)
        parts[0].extend(drawn[n_test:].tolist())
        parts[1].extend(drawn[:n_test].tolist())
    return _pairs(random.permutation(parts[0])), _pairs(random.permutation(parts[1]))


def _even(sizes: np.ndarray, total: int) -> np.ndarray:
    """Divides `total` as evenly as `sizes` allow, the remainder going to the last ones."""
    if total > sizes.sum():
        raise ValueError(f"{total} numbers are wanted, there are {sizes.sum()} to draw from")
    shares = np.zeros_like(sizes)
    for rank, place in enumerate(np.argsort(sizes, kind="stable")):
        shares[place] = min(sizes[place], (total - shares.sum()) // (len(sizes) - rank))
    return shares


def _pairs(numbers: np.ndarray) -> Pairs:
    values = numbers.astype(np.int64).tolist()
    return Pairs(
        tuple(map(str, values)),
        tuple(map(spanish_name, values)),
        tuple(f"number {value}" for value in values),
    )

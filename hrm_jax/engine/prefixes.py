"""Keys and values of prompts that were read, for prompts that begin alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import jax
import numpy as np

from hrm_jax.models.transformer import Cache


@dataclasses.dataclass(frozen=True, eq=False)
class _Kept:
    adapter: int
    tokens: np.ndarray  # that were read, int32 [n]
    cache: Cache  # of one row; what lies behind the tokens is of no meaning


class Prefixes:
    """The prompts that were used last, for one thread at a time."""

    def __init__(self, most: int, shortest: int) -> None:
        """Keeps `most` prompts; of a new one at least `shortest` tokens must be known."""
        self._most = most
        self._shortest = shortest
        self._kept: list[_Kept] = []  # used last stands last

    def clear(self) -> None:
        self._kept.clear()

    def find(self, adapter: int, tokens: np.ndarray) -> tuple[Cache, int]:
        """The cache with the longest common beginning, to be written to, and its tokens; None and
        0 where none is long enough. Tokens read with another adapter are others."""
        known = [(_common(one.tokens, tokens), one) for one in self._kept if one.adapter == adapter]
        count, best = max(known, key=lambda x: x[0], default=(0, None))
        if best is None or count < self._shortest:
            return None, 0
        self._kept.remove(best)
        self._kept.append(best)
        return jax.tree.map(lambda x: x.copy(), best.cache), count

    def expects(
        self, adapter: int, tokens: np.ndarray, read: Iterable[tuple[int, np.ndarray]]
    ) -> bool:
        """Whether more of a prompt will be known, worth waiting for, once those of other adapters
        and tokens are `read`."""
        if not self._most:
            return False
        kept = [(one.adapter, one.tokens) for one in self._kept]
        now, then = (
            max((_common(x, tokens) for of, x in some if of == adapter), default=0)
            for some in (kept, read)
        )
        return then >= now + self._shortest

    def keep(self, adapter: int, tokens: np.ndarray, cache: Cache) -> None:
        """Takes a cache that nobody writes to any more; prompts that it goes on from are dropped,
        and one that goes on from it makes it needless."""
        if len(tokens) < self._shortest or not self._most:
            return
        alike = [one for one in self._kept if one.adapter == adapter]
        for one in alike:
            common = _common(one.tokens, tokens)
            if common == len(tokens):
                return
            if common == len(one.tokens):
                self._kept.remove(one)
        self._kept = [*self._kept, _Kept(adapter, tokens, cache)][-self._most :]


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens both begin with."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length

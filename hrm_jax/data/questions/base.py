"""Worlds of a few objects with questions about them, and training batches of those."""

from __future__ import annotations

import abc
import dataclasses
import difflib
import hashlib
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hrm_jax.data.pipeline import Batch, Draws, Indices

Array = npt.NDArray[Any]

PRIME = 65_521
"""Modulus of hashes."""


@dataclasses.dataclass(frozen=True)
class Questions:
    """The K questions that can be asked about each world of a kind.

    Attributes:
        texts: What they say.
        kinds: Of what kind each is, in a word.
        codes: What a network is given of them, float32 [K, E].
        relational: Whether several objects have to be looked at, bool [K].
        answers: The A answers that there are.
    """

    texts: tuple[str, ...]
    kinds: tuple[str, ...]
    codes: Array
    relational: Array
    answers: tuple[str, ...]

    def number(self, text: str) -> int:
        """Which question a text is; `ValueError` names the nearest for one that there is not."""
        if text in self.texts:
            return self.texts.index(text)
        near = difflib.get_close_matches(text, self.texts, n=1, cutoff=0)
        raise ValueError(f"unknown question {text!r}; did you mean {near[0]!r}?")


@dataclasses.dataclass(frozen=True)
class Worlds(abc.ABC):
    """Worlds of one kind: a subclass has arrays whose first axis are the worlds W.

    Attributes:
        order: The N objects in the order in which states have them, int8 [W, N].
    """

    order: Array

    def arrays(self) -> dict[str, Array]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, rows: Any) -> Self:
        """Those of a slice or of indices."""
        return type(self)(**{name: array[rows] for name, array in self.arrays().items()})

    def digest(self) -> str:
        """A SHA-256 of all arrays."""
        sha = hashlib.sha256()
        for name, array in self.arrays().items():
            sha.update(f"{name} {array.shape} {array.dtype}\n".encode() + array.tobytes())
        return sha.hexdigest()

    def identities(self) -> list[bytes]:
        """What tells each world from others, whatever the order of its objects."""
        told = [array for name, array in self.arrays().items() if name != "order"]
        return [b"".join(array[world].tobytes() for array in told) for world in range(len(self))]

    @abc.abstractmethod
    def answers(self) -> npt.NDArray[np.int32]:
        """The right answers, [W, K]; −1 where a question has none."""

    @abc.abstractmethod
    def lines(self, world: int) -> list[str]:
        """One of them for people, an object a line."""

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        arrays = [part.arrays() for part in parts]
        return cls(**{name: np.concatenate([x[name] for x in arrays]) for name in arrays[0]})


def draw_until(count: int, draw: Callable[[int], Worlds]) -> Any:
    """The first `count` worlds of those that `draw` gives, which drops some of as many as asked
    for."""
    parts: list[Any] = []
    while sum(map(len, parts)) < count:
        parts.append(draw(4 * count))
    return type(parts[0]).joined(parts)[:count]


def held_out_by(values: Array) -> npt.NDArray[np.bool_]:
    """Which worlds belong to the held-out part, about one of eight, by integers [W, V] that
    describe them: two parts have no world in common, however many are drawn."""
    weights = 31 ** np.arange(values.shape[1]) % PRIME  # a polynomial hash
    return values.astype(np.int64) @ weights % PRIME % 8 == 0


def reordered(objects: Array, order: Array) -> Array:
    """Objects [W, N, D] in an order [W, N]."""
    return np.take_along_axis(objects, order[:, :, None].astype(np.int64), axis=1)


class QuestionBatches(Draws):
    """inputs [B, …] of worlds, questions int32 [B, Q] about each, and their answers int32 [B, Q],
    −1 where a question has none.

    The worlds are those of a set, in a new order each epoch, or drawn for each batch.
    """

    def __init__(
        self,
        worlds: Worlds | Callable[[int, np.random.Generator], Worlds],
        inputs: Callable[[Any], Array],
        asked: int,
        batch_size: int,
        *draws: int,
    ) -> None:
        """Asks `asked` different questions about each world, 0 for all of them; `inputs` is what
        the network is shown of worlds, and what follows is that of `Draws`."""
        fixed = isinstance(worlds, Worlds)
        super().__init__(len(worlds) if fixed else batch_size, batch_size, *draws)  # type: ignore[arg-type]
        self._worlds, self._inputs, self._asked = worlds, inputs, asked

    def batch(self, index: int, items: Indices, epochs: Indices) -> Batch:
        random = np.random.Generator(np.random.PCG64([self.seed, 1, index]))
        if isinstance(self._worlds, Worlds):
            worlds = self._worlds[items]
        else:
            worlds = self._worlds(self.batch_size, random)[self.rows]
        answers = worlds.answers()
        chance = random.random((self.batch_size, answers.shape[1]), np.float32)[self.rows]
        chance[answers < 0] = 2  # only where there are too few others
        asked = chance.argsort(axis=1)[:, : self._asked or None].astype(np.int32)
        return {
            "inputs": self._inputs(worlds),
            "questions": asked,
            "answers": np.take_along_axis(answers, asked, axis=1),
        }

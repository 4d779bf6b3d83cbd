"""Training batches by index: deterministic, sharded by process, prefetched, resumable."""

from __future__ import annotations

import abc
import sys
import threading
from typing import Any, Protocol

import grain
import numpy as np
import numpy.typing as npt

from hrm_jax.data.puzzle_set import PuzzleSet

Batch = dict[str, npt.NDArray[Any]]
Indices = npt.NDArray[np.int64]


def own_rows(batch_size: int, process_index: int, process_count: int) -> Indices:
    """Rows of a batch that a process makes; `ValueError` where they cannot be divided."""
    if batch_size % process_count:
        raise ValueError(
            f"batch_size {batch_size} cannot be divided among {process_count} processes"
        )
    rows = batch_size // process_count
    return np.arange(process_index * rows, (process_index + 1) * rows)


class Draws(abc.ABC):
    """Training batches, for ever, of items in a new random order each epoch, each item once in it.

    What row r of batch i draws is a pure function of (seed, i, r), so an iterator's whole state is
    the index, and every process can compute just its own rows.
    """

    def __init__(
        self,
        items: int,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        """Prepares draws from {0, …, items - 1}; `batch_size` counts the rows of all processes."""
        self.items, self.batch_size, self.seed = items, batch_size, seed
        self.rows = own_rows(batch_size, process_index, process_count)
        self._orders: dict[int, Indices] = {}
        self._lock = threading.Lock()

    @abc.abstractmethod
    def batch(self, index: int, items: Indices, epochs: Indices) -> Batch:
        """Batch `index` of this process: the items of its rows, drawn in these epochs [B]."""

    def __len__(self) -> int:
        return sys.maxsize // self.batch_size

    def __getitem__(self, index: int) -> Batch:
        draws = index * self.batch_size + self.rows
        epochs = draws // self.items
        items = [self._order(e)[draws[epochs == e] % self.items] for e in np.unique(epochs)]
        return self.batch(index, np.concatenate(items), epochs)

    def _order(self, epoch: int) -> Indices:
        """The order of the items in an epoch; the last two are kept."""
        with self._lock:
            if epoch not in self._orders:
                random = np.random.Generator(np.random.PCG64([self.seed, 0, epoch]))
                self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
                self._orders[epoch] = random.permutation(self.items)
            return self._orders[epoch]


class PuzzleBatches(Draws):
    """inputs and labels [B, S] and puzzle_identifiers [B] of examples drawn from a puzzle set.

    As in the reference an epoch is one draw from each group; a draw takes a random puzzle of its
    group and a random example of that puzzle.
    """

    def __init__(self, puzzles: PuzzleSet, *draws: int, **named: int) -> None:
        """Draws from the groups of `puzzles`; what follows is that of `Draws`."""
        super().__init__(len(puzzles.group_indices) - 1, *draws, **named)
        self._puzzles = puzzles

    def batch(self, index: int, items: Indices, epochs: Indices) -> Batch:
        puzzles = self._puzzles
        random = np.random.Generator(np.random.PCG64([self.seed, 1, index]))
        chance = random.random((2, self.batch_size))[:, self.rows]
        puzzle = _pick(puzzles.group_indices, items, chance[0])
        example = _pick(puzzles.puzzle_indices, puzzle, chance[1])
        return {
            "inputs": puzzles.inputs[example],
            "labels": puzzles.labels[example],
            "puzzle_identifiers": puzzles.puzzle_identifiers[puzzle].astype(np.int32),
        }


def _pick(boundaries: npt.NDArray[Any], part: npt.NDArray[Any], chance: npt.NDArray[Any]) -> Any:
    """A member of each part, where part p holds boundaries[p] to boundaries[p + 1] - 1."""
    first = boundaries[part].astype(np.int64)
    return first + (chance * (boundaries[part + 1] - first)).astype(np.int64)


class Batches(Protocol):
    """Training batches of this process by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch: ...


def batch_iterator(source: Batches, prefetch: int = 16) -> grain.DatasetIterator:
    """An endless iterator over `source` that keeps batches ready and can be checkpointed."""
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))


def empty_batches() -> grain.DatasetIterator:
    """Endless empty batches, for tasks that make their own data; can be checkpointed."""
    return iter(grain.MapDataset.range(sys.maxsize).map(lambda _: {}).to_iter_dataset())

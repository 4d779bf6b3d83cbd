"""Training batches by index: deterministic, sharded by process, prefetched, resumable."""

from __future__ import annotations

import sys
import threading
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
import numpy.typing as npt

from hrm_jax.data.puzzle_set import PuzzleSet

Batch = dict[str, npt.NDArray[Any]]


@runtime_checkable
class BatchSource(Protocol):
    """A random-access source whose element i is the i-th training batch, for ever."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch: ...


class Draws:
    """Draws items in a new random order each epoch, every item once in each.

    What row r of batch i draws is a pure function of (seed, i, r), so an iterator's whole state is
    the index, and every process can compute just its own rows.
    """

    def __init__(
        self, items: int, batch_size: int, seed: int, process_index: int, process_count: int
    ) -> None:
        """Prepares draws from {0, …, items - 1}.

        Args:
            items: Number of items, 1 or more.
            batch_size: Rows of a batch over all processes.
            seed: Seed of the orders.
            process_index: Which part of every batch to draw.
            process_count: Number of parts.

        Raises:
            ValueError: `process_count` does not divide `batch_size`.
        """
        if batch_size % process_count:
            raise ValueError(
                f"batch_size {batch_size} cannot be divided among {process_count} processes"
            )
        self._items = items
        self._batch_size = batch_size
        self._seed = seed
        rows = batch_size // process_count
        self.rows = np.arange(process_index * rows, (process_index + 1) * rows)
        self._orders: dict[int, npt.NDArray[np.int64]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sys.maxsize // self._batch_size

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The order of the items in an epoch; the last two are kept."""
        with self._lock:
            if epoch not in self._orders:
                random = np.random.Generator(np.random.PCG64([self._seed, 0, epoch]))
                self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
                self._orders[epoch] = random.permutation(self._items)
            return self._orders[epoch]

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Items and epochs of this process' rows of batch `index`, int64 [B] each."""
        draws = index * self._batch_size + self.rows
        epochs = draws // self._items
        items = [self._order(e)[draws[epochs == e] % self._items] for e in np.unique(epochs)]
        return np.concatenate(items), epochs


class PuzzleBatches:
    """A random-access source whose element i is the i-th training batch.

    Draws run through the groups in a new random order each epoch (an epoch is one draw from each
    group, as in the reference); a draw takes a random puzzle of its group and a random example of
    that puzzle. Everything is a pure function of (seed, index), so an iterator's whole state is
    the index, and every process can compute just its own rows.
    """

    def __init__(
        self,
        puzzles: PuzzleSet,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        """Makes the source.

        Args:
            puzzles: What to draw from.
            batch_size: Rows B of a batch over all processes.
            seed: Seed of all draws.
            process_index: Which part of every batch to make.
            process_count: Number of parts.

        Raises:
            ValueError: `process_count` does not divide `batch_size`.
        """
        groups = len(puzzles.group_indices) - 1
        self._puzzles = puzzles
        self._batch_size = batch_size
        self._seed = seed
        self._draws = Draws(groups, batch_size, seed, process_index, process_count)

    def __len__(self) -> int:
        return len(self._draws)

    def __getitem__(self, index: int) -> Batch:
        """Batch `index`: inputs and labels [B, S], puzzle_identifiers [B]; this process' rows."""
        puzzles = self._puzzles
        group, _ = self._draws[index]
        random = np.random.Generator(np.random.PCG64([self._seed, 1, index]))
        chance = random.random((2, self._batch_size))[:, self._draws.rows]
        puzzle = _pick(puzzles.group_indices, group, chance[0])
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


def batch_iterator(source: BatchSource, prefetch: int = 16) -> grain.DatasetIterator:
    """An endless iterator over `source` that works ahead in a thread and can be checkpointed.

    Args:
        source: What to read.
        prefetch: Batches kept ready.
    """
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))


def empty_batches() -> grain.DatasetIterator:
    """Endless empty batches, for tasks that make their own data; can be checkpointed."""
    return iter(grain.MapDataset.range(sys.maxsize).map(_empty).to_iter_dataset())


def _empty(_: int) -> Batch:
    return {}

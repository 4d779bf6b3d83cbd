"""What puzzles on boards share before they are tokens: where they come from, and splits."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.puzzle_set import PuzzleSet

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class BoardPuzzles:
    """Puzzles on boards of one shape.

    Attributes:
        questions: Boards as given, integers [E, cells].
        answers: Boards as solved [E, cells].
        ratings: Difficulty, int32 [E].
        sources: Where each puzzle is from, or None.
    """

    questions: Array
    answers: Array
    ratings: Array
    sources: list[str] | None = None

    def __len__(self) -> int:
        """Number of puzzles, E."""
        return len(self.questions)

    def take(self, rows: npt.ArrayLike) -> Self:
        """Returns the puzzles with the given row numbers, in that order."""
        rows = np.asarray(rows, np.int64)
        return dataclasses.replace(
            self,
            questions=self.questions[rows],
            answers=self.answers[rows],
            ratings=self.ratings[rows],
            sources=None if self.sources is None else [self.sources[row] for row in rows],
        )


Puzzles = TypeVar("Puzzles", bound=BoardPuzzles)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoardSource:
    """Where puzzles come from: two CSV files, or else a generator.

    Attributes:
        num_train: Generated training puzzles.
        num_test: Generated test puzzles.
        train_csv: Training puzzles; together with `test_csv` it replaces the generator.
        test_csv: Test puzzles.
        subsample: Random training puzzles to keep, None for all.
        num_aug: Augmentations of each training puzzle that are stored after it.
        seed: Seed of generator, subsample and augmentation.
    """

    num_train: int = 1000
    num_test: int = 1000
    train_csv: str | None = None
    test_csv: str | None = None
    subsample: int | None = None
    num_aug: int = 0
    seed: int = 0

    def csv_files(self) -> tuple[str, str] | None:
        """Returns the names of both files, None where puzzles are to be generated.

        Raises:
            DataError: There is only one.
        """
        if self.train_csv is not None and self.test_csv is not None:
            return self.train_csv, self.test_csv
        if self.train_csv is not None or self.test_csv is not None:
            raise DataError("train_csv and test_csv belong together: give both or neither")
        return None

    def chosen(self, train: Puzzles, name: str) -> Puzzles:
        """Returns the random training puzzles to keep.

        Args:
            train: All of them.
            name: What they are called in the message.

        Raises:
            DataError: There are not so many.
        """
        if self.subsample is None:
            return train
        if not 1 <= self.subsample <= len(train):
            raise DataError(
                f"subsample is {self.subsample}, expected 1 to {len(train)} training {name}"
            )
        random = np.random.Generator(np.random.PCG64(self.seed))
        return train.take(random.choice(len(train), self.subsample, replace=False))


def check_format(file_format: str, formats: Sequence[str], num_aug: int) -> None:
    """Refuses a format that is not there, and augmentations where they cannot be stored.

    Raises:
        DataError: What was given, and what was expected.
    """
    if file_format not in formats:
        raise DataError(f"format is {file_format!r}, expected one of {', '.join(formats)}")
    if file_format == "csv" and num_aug:
        raise DataError("num_aug: CSV holds the puzzles alone; augment when training, or use npy")


def write_identity(
    folder: pathlib.Path,
    builder: str,
    version: str,
    seed: int,
    train_puzzles: int,
    sets: tuple[PuzzleSet, PuzzleSet],
) -> Identity:
    """Writes `identity.json` beside train and test set, and returns what it says."""
    train, test = sets
    counts = {
        "train_puzzles": train_puzzles,
        "train_examples": len(train),
        "test_examples": len(test),
    }
    identity = Identity.of(builder, version, seed, counts, train, test)
    identity.write(folder)
    return identity


def distinct(
    count: int,
    draw: Callable[[int, int], Puzzles],
    accept: Callable[[Puzzles], Array] | None,
    *,
    least: int,
    most: int,
    patience: int,
    give_up: Callable[[int], str],
) -> Puzzles:
    """Draws puzzles until there are `count` with different questions.

    The first ones are taken, so the result does not depend on how many are drawn at a time.

    Args:
        count: Puzzles wanted.
        draw: Draws the puzzles numbered from `first` on, so many of them.
        accept: Says which puzzles may be used, bool [n]; None: all.
        least, most: Puzzles to draw at a time.
        patience: Puzzles in a row of which none is new before giving up.
        give_up: The message then, from the number of puzzles found.

    Raises:
        DataError: Too few are found.
    """
    found: list[Puzzles] = []
    seen: set[bytes] = set()
    number, idle = 0, 0
    while len(seen) < count:
        batch = max(least, min(most, count - len(seen) + idle))
        part = draw(number, batch)
        number += batch
        allowed = np.ones(batch, bool) if accept is None else accept(part)
        rows = []
        for row in np.flatnonzero(allowed):
            text = part.questions[row].tobytes()
            if text not in seen and len(seen) < count:
                seen.add(text)
                rows.append(row)
        idle = 0 if rows else idle + batch
        if idle > patience:
            raise DataError(give_up(len(seen)))
        found.append(part.take(rows))
    return dataclasses.replace(
        found[0],
        questions=np.concatenate([part.questions for part in found]),
        answers=np.concatenate([part.answers for part in found]),
        ratings=np.concatenate([part.ratings for part in found]),
    )


def shared_rows(train: Sequence[bytes], test: Sequence[bytes]) -> list[tuple[int, int]]:
    """Finds what is in both.

    Returns:
        For each row of `test` that is in `train`, its number and that of the first row there.
    """
    known: dict[bytes, int] = {}
    for row, item in enumerate(train):
        known.setdefault(item, row)
    return [(row, known[item]) for row, item in enumerate(test) if item in known]

"""ARC as a puzzle: the output grid of a task's test input, where an embedding names the task."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import read_identifiers, read_npy, write_npy
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.puzzles.arc.augment import translate
from hrm_jax.puzzles.arc.build import ArcData, load_tasks, to_puzzle_sets
from hrm_jax.puzzles.arc.draw import PAINTER
from hrm_jax.puzzles.arc.test_split import ArcTest
from hrm_jax.puzzles.arc.tokens import EOS, FIRST_COLOUR, canvas_side, decode
from hrm_jax.puzzles.arc.vote import PASS_AT, cell_accuracy, pass_at_k, submission
from hrm_jax.puzzles.base import Array, Checks, Puzzle, Splits, Votes


class Arc(Puzzle):
    """Tasks of a few demonstrations on coloured grids.

    A test holds every test input under augmentations of its task, and the answers vote. Figures of
    the votes: `pass_at_1`, `_2`, `_10`, … (the right answer is among so many, mean over tasks; as
    far as there are so many votes), `cell_accuracy` (share of cells that the likeliest answers have
    right), and both of answering with the input (`copy_…`) and with a grid of that size in the most
    frequent colour (`colour_…`). Where no answers are known there are none of these.
    """

    def parse(self, text: str, seq_len: int) -> Array:
        raise DataError(
            "ARC tasks are not given as text: launch/evaluate.py --submission=… writes the answers "
            "to a data set, launch/view.py shows them"
        )

    def answer_text(self, tokens: Array) -> str:
        """The grid at the origin, a line for each row."""
        return "\n".join("".join(map(str, row)) for row in decode(tokens))

    def augment(
        self, data: ArcData, key: PRNGKeyArray, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Input and output at one random place of the canvas."""
        return translate(key, inputs, labels, canvas_side(inputs.shape[0]))

    def transform(self, key: PRNGKeyArray, inputs: jax.Array) -> jax.Array:
        raise DataError(
            "votes: ARC's evaluation votes over its augmentations by itself (eval/pass_at_1, …)"
        )

    def check(self, inputs: Array, labels: Array, columns: int, *, test: bool) -> Checks:
        """A filled rectangle of colours, with end of grid below and to the right of it."""
        result: Checks = []
        corners = []
        marks = "end-of-sequence must stand just below and just right of the grid, nowhere else"
        for name, tokens in (("inputs", inputs), ("labels", labels)):
            grid = tokens.reshape(-1, columns, columns)
            colours = grid >= FIRST_COLOUR
            some = np.any(colours, axis=(1, 2))
            lines = np.stack([np.any(colours, axis=2), np.any(colours, axis=1)], axis=1)
            first, stop = lines.argmax(2), columns - lines[:, :, ::-1].argmax(2)
            filled = colours.sum((1, 2)) == (stop - first).prod(1)
            padded = np.pad(colours, ((0, 0), (1, 0), (1, 0)))
            wanted = ~colours & (padded[:, :-1, 1:] | padded[:, 1:, :-1])
            marked = ((grid == EOS) == wanted).all((1, 2))
            corners.append(first)
            result += [
                (name, ~some, "no colour in it, expected a grid"),
                (name, some & ~filled, "the colours are not one filled rectangle"),
                (name, some & filled & ~marked, marks),
            ]
            if test:
                moved = some & first.any(1)
                result.append((name, moved, "the grid of a test example must stand top left"))
        both = (inputs >= FIRST_COLOUR).any(1) & (labels >= FIRST_COLOUR).any(1)
        apart = both & (corners[0] != corners[1]).any(1)
        result.append(("labels", apart, "question and answer stand at different offsets"))
        return result

    # --- data sets --------------------------------------------------------------------------------

    def make(self, data: ArcData, scratch: pathlib.Path | None = None) -> tuple[PuzzleSet, ArcTest]:
        """As in `Puzzle`; `scratch` is a folder for the arrays, which are then mapped files."""
        training, evaluation, _ = load_tasks(data)
        train, test, identifiers = to_puzzle_sets(training, evaluation, data, scratch)
        return train, ArcTest.of(train, test, identifiers)

    def write(self, folder: pathlib.Path, data: ArcData, file_format: str) -> Identity:
        """As in `Puzzle`. While it runs, the arrays stand on the disk twice, but never all in
        memory."""
        scratch = folder / "scratch"
        scratch.mkdir()
        train, test = self.make(data, scratch)
        for split, puzzles in (("train", train), ("test", test)):
            write_npy(folder, split, puzzles, test.identifiers)
        identity = self.identify(train, test, data.seed)
        del train, test, puzzles  # the files are mapped
        shutil.rmtree(scratch)
        return identity

    def identify(
        self, train: PuzzleSet, test: PuzzleSet, seed: int | None, **counts: int
    ) -> Identity:
        """As in `Puzzle`, with the digest of the identifiers' names."""
        assert isinstance(test, ArcTest)
        counts |= {
            "train_tasks": train.metadata.total_groups,
            "test_tasks": test.metadata.total_groups,
            "test_inputs": len(test.questions.items),
            "identifiers": len(test.identifiers),
        }
        found = super().identify(train, test, seed, **counts)
        found.sha256["identifiers"] = test.identifiers_digest()
        return found

    def read_both(self, folder: str | os.PathLike[str]) -> tuple[PuzzleSet, ArcTest]:
        """Reads what `build` wrote, or another program in the same format and with such names."""
        names = read_identifiers(folder)
        train, test = read_npy(folder, "train"), read_npy(folder, "test")
        try:
            return train, ArcTest.of(train, test, names)
        except DataError as error:
            raise DataError(f"{folder}: {error}") from error

    def load(self, data: ArcData, cache: pathlib.Path | None = None) -> Splits:
        if not data.path and cache and not (cache / "test" / "dataset.json").exists():
            self.put(cache, data)
        folder = data.path or cache
        train, test = self.read_both(folder) if folder else self.make(data)
        return Splits(train, test, self.identify(train, test, None if data.path else data.seed))

    def read_test(self, path: str | os.PathLike[str], run: Identity | None = None) -> ArcTest:
        """As in `Puzzle`, for instance with more augmentations; the run must know the tasks."""
        if not pathlib.Path(path).is_dir():
            raise DataError(f"{path}: no such folder; expected one made by build_dataset.py arc")
        _, test = self.read_both(path)
        if run and run.sha256.get("identifiers") != test.identifiers_digest():
            raise DataError(
                f"{path}: its {len(test.identifiers)} puzzle identifiers are not the "
                f"{run.counts.get('identifiers', 0)} that the run was trained on, and a model "
                f"knows tasks by these alone; expected a data set of the run's sources, num_aug "
                f"and seed (test_aug may differ)"
            )
        return test

    # --- figures ----------------------------------------------------------------------------------

    def first(self, test: PuzzleSet, augmentations: int) -> PuzzleSet:
        assert isinstance(test, ArcTest)
        return test.first(augmentations)

    def tally(self, puzzles: PuzzleSet, votes: Votes) -> dict[str, Any]:
        """Of the votes of all models; of one that has solved all, beside those of the baselines."""
        assert isinstance(puzzles, ArcTest)
        ballot = puzzles.ballot(votes)
        if not ballot.questions.known:
            return {}
        most = len(votes) * int(np.max(np.bincount(ballot.questions.item)))
        passed = pass_at_k(ballot, [k for k in PASS_AT if k <= max(2, most)])
        figures: dict[str, Any] = {name.replace("@", "_at_"): x for name, x in passed.items()}
        figures["cell_accuracy"] = cell_accuracy(ballot)
        if len(votes) == 1 and len(ballot.questions) == len(puzzles):
            figures |= puzzles.baselines
        return figures

    def submission(self, puzzles: PuzzleSet, votes: Votes) -> Any:
        """What Kaggle wants: two answers to each test input that was solved."""
        assert isinstance(puzzles, ArcTest)
        return submission(puzzles.ballot(votes)) if votes else None


ARC = Arc(
    name="arc",
    about="ARC tasks from files, or small made-up ones",
    data=ArcData,
    painter=PAINTER,
    pools=True,
    as_text=False,
    words={
        "pass_at_1": "Held-out tests whose first answer is right (pass@1)",
        "pass_at_2": "Held-out tests with a right answer among two (pass@2)",
        "cell_accuracy": "Cells that are right in the first answers",
        "copy_cell_accuracy": "The same of answers that copy the input",
        "colour_cell_accuracy": "The same of answers in the most frequent colour",
    },
)

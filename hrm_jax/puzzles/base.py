"""What a puzzle is: one object from which everything general takes what it knows of it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy.typing as npt
from jaxtyping import PRNGKeyArray

from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import read_npy, write_npy
from hrm_jax.data.output_folder import output_folder
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.fields import ConfigError, refuse_unused

Array = npt.NDArray[Any]

Checks = list[tuple[str, Array, str]]
"""For each rule the array concerned, bool [N] where a row breaks it, and what is wrong then."""

Votes = Sequence[tuple[Array, Array]]
"""Several answers to the same puzzles: tokens [N, S] and logits of halting [N] of each."""


def only(use: str, default: Any) -> Any:
    """A field of `PuzzleData` that has an effect in one use alone: "train" in training, "build" in
    `build_dataset.py`, "draw" where puzzles are generated, "files" where they are read."""
    return dataclasses.field(default=default, metadata={"only": use})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PuzzleData:
    """Which puzzles: `config.data` of a run, and the flags of `launch/build_dataset.py`.

    Attributes:
        path: Folder made by `launch/build_dataset.py`, or by others in that format; it replaces
            the generator.
        num_train, num_test: Generated puzzles.
        seed: Seed of whatever is drawn.
        augment: Whether each training draw is changed at random where that keeps it right.
    """

    path: str = only("train", "")
    num_train: int = only("draw", 1000)
    num_test: int = only("draw", 1000)
    seed: int = 0
    augment: bool = only("train", True)

    def files(self) -> str:
        """The field with the files that take the generator's place; "" where there are none."""
        return ""

    def unused(self) -> dict[str, str]:
        uses = {field.name: field.metadata.get("only") for field in dataclasses.fields(self)}
        if self.path:
            without = [name for name, use in uses.items() if use != "train"]
            return dict.fromkeys(without, "the puzzles come from data.path")
        files = self.files()
        without = [name for name, use in uses.items() if use == ("draw" if files else "files")]
        why = f"the puzzles come from data.{files}" if files else "the puzzles are generated"
        return dict.fromkeys(without, why)


class Splits(NamedTuple):
    """A data set to train on and to evaluate, and what identifies it."""

    train: PuzzleSet
    test: PuzzleSet
    identity: Identity


@dataclasses.dataclass(frozen=True)
class Typing:
    """How a puzzle is typed, row by row: `what` to type, for people, and what each of the
    `characters` that may be typed stands for ("" for one left out)."""

    what: str
    characters: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Puzzle:
    """One kind of puzzle. A kind has its own folder, and is registered in `hrm_jax.puzzles`.

    Tokens and predictions are integers, one puzzle [S] or many [N, S]; a prediction may hold
    anything in the vocabulary.

    Attributes:
        name: Its name in configs, commands and `identity.json`.
        about: What can be built, for the help of `build_dataset.py`.
        data: Its `PuzzleData`.
        version: Version of the builder; changes where the same seed gives other data.
        formats: Files that can be built, the usual ones first.
        answer_length: How many of the first tokens are the answer; None for all.
        pools: Whether a test holds puzzles under augmentations, whose answers vote in `tally`.
        good: The verdict of `score` that says which answers count as solved; "" for those that
            equal the label.
        as_text: Whether a puzzle can be given as text.
        words: What to say of figures `eval/…` at the end of a run.
        painter: Its `Painter`, of `draw.py`; where boards are grids, a `GridPainter`.
        game: Dataclass of the options of a game that can be played with such answers, None where
            there is none. Its method `play(console, solve, seed)` plays it; `solve` turns tokens
            [N, S] into predictions.
    """

    name: str
    about: str
    data: type[PuzzleData]
    version: str = "1.0.0"
    formats: tuple[str, ...] = ("npy",)
    answer_length: int | None = None
    pools: bool = False
    good: str = ""
    as_text: bool = True
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)
    painter: Any
    game: type | None = None

    # --- shape ------------------------------------------------------------------------------------

    def shape(self, seq_len: int) -> tuple[int, int] | None:
        """Rows and columns of a board of so many tokens; None where the length does not tell."""
        try:
            return self.painter.shape(seq_len) if self.vocab_size(seq_len) else None
        except ValueError:
            return None

    def vocab_size(self, seq_len: int) -> int:
        """Size of the vocabulary of puzzles of so many tokens; 0 where there are none."""
        sizes = self.painter.vocab_sizes
        return sizes.get(seq_len, sizes.get(None, 0))

    def fits(self, seq_len: int, vocab_size: int | None = None) -> bool:
        """Whether such puzzles can have so many tokens, of that vocabulary if it is given."""
        return self.shape(seq_len) is not None and vocab_size in (None, self.vocab_size(seq_len))

    def columns(self, inputs: Array, labels: Array) -> int:
        """Columns of the boards [N, S] of a data set, whose arrays may hold anything."""
        shape = self.shape(inputs.shape[1])
        return shape[1] if shape else inputs.shape[1]

    def units(self, seq_len: int) -> tuple[tuple[Array, ...], ...]:
        """Kinds of groups of cells that constrain one another, int64 [cells of the group] each: as
        `hrm_jax.layers.units.Units`. Without any, no network can be made of them."""
        return ()

    def values(self, seq_len: int) -> int:
        """How many of the last tokens mean nothing but to be different; 0 for none."""
        return 0

    # --- text -------------------------------------------------------------------------------------

    def parse(self, text: str, seq_len: int) -> Array:
        """Reads a puzzle that a person typed: tokens [S]; DataError where it is none."""
        raise NotImplementedError

    def to_text(self, tokens: Array) -> str:
        """A question [S] as one line, a character for each cell; `parse` inverts it."""
        return "".join(self.painter.symbols(tokens))

    def answer_text(self, tokens: Array) -> str:
        """An answer [S] as text; `?` for what is none."""
        return self.to_text(tokens)

    def typing(self, seq_len: int) -> Typing | None:
        """How such a puzzle is typed at a terminal; None where it is not."""
        return None

    # --- symmetries -------------------------------------------------------------------------------

    def augments(self, data: Any) -> bool:
        """Whether training draws go through `augment`."""
        return bool(data.augment)

    def augment(
        self, data: Any, key: PRNGKeyArray, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """A random example as good as the given one [S]; pure."""
        return inputs, labels

    def transform(self, key: PRNGKeyArray, inputs: jax.Array) -> jax.Array:
        """The same puzzle [S] in another form, for voting; pure."""
        raise DataError(f"votes: {self.name} puzzles have no symmetries to vote under")

    def restore(self, key: PRNGKeyArray, answer: jax.Array) -> jax.Array:
        """Turns the answer [S] to what `transform` made with this key into one to the puzzle."""
        return answer

    # --- rules ------------------------------------------------------------------------------------

    def valid(self, inputs: Array, predictions: Array) -> Array | None:
        """Which answers are of the kind that is asked for, bool [N]; None where none can tell."""
        return None

    def obeys(self, inputs: Array, predictions: Array) -> Array:
        """Which answers obey the rules, so far as can be told without the label, bool [N]."""
        found = self.valid(inputs, predictions)
        if found is None:
            raise DataError(
                f"verify: answers to {self.name} puzzles cannot be checked without the label"
            )
        return found

    def possible(self, inputs: Array) -> Array:
        """What the rules leave for each cell of questions, of which guesses may fill some blanks,
        bool [N, S, V]: for one that is filled nothing else, and nothing at all if it breaks them;
        for a blank never what a blank is; for what is no token of a question nothing."""
        raise DataError(f"search: guesses at {self.name} puzzles cannot be checked")

    def score(self, inputs: Array, labels: Array, predictions: Array) -> dict[str, Array]:
        """Verdicts on predictions besides equality, by name, bool [N] each."""
        return {}

    def verdict(self, question: Array, answer: Array) -> str:
        """What to tell a person of an answer [S] to a question [S]."""
        keeps = self.obeys(question[None], answer[None])[0]
        return f"The board {'keeps' if keeps else 'breaks'} the rules."

    def check(self, inputs: Array, labels: Array, columns: int, *, test: bool) -> Checks:
        """Checks examples of a split, integers [N, S] of any values, against the rules; labels are
        0 where ignored, and `columns` is what the method of that name says."""
        raise NotImplementedError

    # --- data sets --------------------------------------------------------------------------------

    def make(self, data: Any) -> tuple[PuzzleSet, PuzzleSet]:
        """Generates or reads train and test puzzles, of which none is shared."""
        raise NotImplementedError

    def write(self, folder: pathlib.Path, data: Any, file_format: str) -> Identity:
        """Writes what `make` makes into a folder; returns what identifies it."""
        train, test = self.make(data)
        for split, part in (("train", train), ("test", test)):
            write_npy(folder, split, part)
        return self.identify(train, test, data.seed)

    def identify(
        self, train: PuzzleSet, test: PuzzleSet, seed: int | None, **counts: int
    ) -> Identity:
        """What identifies a pair of sets; `counts` are added to the numbers of examples."""
        counts |= {"train_examples": len(train), "test_examples": len(test)}
        return Identity.of(self.name, self.version, seed, counts, train, test)

    def build(
        self,
        output: str | os.PathLike[str],
        data: Any,
        file_format: str = "npy",
        *,
        overwrite: bool = False,
    ) -> Identity:
        """Builds a data set folder, with `identity.json` beside the splits; it appears under its
        name only when it is complete. `overwrite` replaces a data set of ours that stands there."""
        refuse_unused(data, "data")
        return self.put(output, data, file_format, overwrite=overwrite)

    def put(
        self,
        output: str | os.PathLike[str],
        data: Any,
        file_format: str = "npy",
        *,
        overwrite: bool = False,
    ) -> Identity:
        """As `build`, of data whose fields have been checked: a preset may set some in vain."""
        if file_format not in self.formats:
            expected = ", ".join(self.formats)
            raise DataError(f"format is {file_format!r}, expected one of {expected}")
        with output_folder(output, overwrite) as folder:
            identity = self.write(folder, data, file_format)
            identity.write(folder)
        return identity

    def read(self, folder: str | os.PathLike[str], split: str) -> PuzzleSet:
        """Reads a split of a data set folder; DataError where it is missing or damaged."""
        folder = pathlib.Path(folder)
        stored_as_npy = (folder / split / "dataset.json").exists()
        if stored_as_npy or not list(folder.glob("**/dataset_info.json")):
            return read_npy(folder, split)
        from hrm_jax.puzzles.tfds_files import read_tfds  # slow import, and optional

        return read_tfds(folder, split)

    def load(self, data: Any, cache: pathlib.Path | None = None) -> Splits:
        """Train and test sets of a run; `cache` keeps generated ones for the next time."""
        for field in dataclasses.fields(data):
            value = getattr(data, field.name)
            if field.metadata.get("only") == "build" and value != field.default:
                raise ConfigError(
                    f"data.{field.name} is {value!r}: only launch/build_dataset.py takes it"
                )
        kept = cache if cache and (cache / "test" / "dataset.json").exists() else None
        folder = data.path or kept
        if folder:
            train, test = self.read(folder, "train"), self.read(folder, "test")
        else:
            train, test = self.make(data)
            if cache:
                write_npy(cache, "train", train)
                write_npy(cache, "test", test)
        return Splits(train, test, self.identify(train, test, None if data.path else data.seed))

    def read_csv(self, path: str | os.PathLike[str]) -> PuzzleSet:
        """Puzzles with answers from a CSV file."""
        raise DataError(
            f"{path}: expected a data set folder, {self.name} puzzles have no CSV files"
        )

    def read_test(self, path: str | os.PathLike[str], run: Identity | None = None) -> PuzzleSet:
        """Puzzles to evaluate: a CSV file, or the test split of a data set folder. DataError where
        they do not go with the data of the `run` that is evaluated."""
        path = pathlib.Path(path)
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        return self.read(path, "test") if path.is_dir() else self.read_csv(path)

    # --- figures ----------------------------------------------------------------------------------

    def first(self, test: PuzzleSet, augmentations: int) -> PuzzleSet:
        """The test with only so many augmentations of each puzzle, besides the puzzle itself."""
        raise ConfigError(f"config.eval_aug: tests of {self.name} puzzles have no augmentations")

    def tally(self, puzzles: PuzzleSet, votes: Votes) -> dict[str, Any]:
        """Figures of answers to the first N puzzles together, beside those of each answer."""
        return {}

    def submission(self, puzzles: PuzzleSet, votes: Votes) -> Any:
        """The answers as a contest wants them, for a JSON file; with no votes, just checks."""
        raise DataError(f"submission: answers to {self.name} puzzles make none")

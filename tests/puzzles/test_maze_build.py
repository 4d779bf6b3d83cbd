"""Maze data sets on disk and in memory."""

import dataclasses

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import read_npy
from hrm_jax.puzzles.maze.board import MazeShape
from hrm_jax.puzzles.maze.puzzle import MAZE, MazeData, default_min_path
from hrm_jax.puzzles.maze.solver import optimal
from hrm_jax.puzzles.maze.symmetry import places

SMALL = MazeData(size=6, num_train=12, num_test=5)


def test_mazes_are_made_as_tokens():
    train, test = MAZE.make(SMALL)
    assert (len(train), len(test)) == (12, 5)
    assert train.inputs.dtype == np.uint8
    assert (train.metadata.seq_len, train.metadata.vocab_size) == (36, 6)
    assert (train.metadata.pad_id, train.metadata.ignore_label_id) == (0, 0)
    assert train.labels.min() == 1  # nothing is ignored
    assert optimal(train.labels, train.inputs, MazeShape(6, 6))[1].all()
    assert train.ratings is not None
    assert train.ratings.min() > default_min_path(MazeShape(6, 6))


@pytest.mark.parametrize("num_aug", [0, 2, 7])
def test_npy(tmp_path, num_aug):
    source = dataclasses.replace(SMALL, num_aug=num_aug)
    identity = MAZE.build(tmp_path / "out", source, "npy")
    train, test = (read_npy(tmp_path / "out", split) for split in ("train", "test"))
    assert identity.counts == {
        "train_puzzles": 12, "train_examples": 12 * (1 + num_aug), "test_examples": 5,
    }  # fmt: skip
    assert identity.builder == "maze"
    assert identity.sha256 == {"train": train.digest(), "test": test.digest()}
    stored = Identity.from_json((tmp_path / "out" / "identity.json").read_text())
    assert not stored.differences(identity)
    originals = MAZE.make(SMALL)[0]
    assert train.group_indices.tolist() == list(range(0, len(train) + 1, 1 + num_aug))
    for row in range(12):
        group = slice(row * (1 + num_aug), (row + 1) * (1 + num_aug))
        np.testing.assert_array_equal(train.inputs[group][0], originals.inputs[row])
        pairs = {
            x.tobytes() + y.tobytes()
            for x, y in zip(train.inputs[group], train.labels[group], strict=True)
        }
        turned = {
            originals.inputs[row][turn].tobytes() + originals.labels[row][turn].tobytes()
            for turn in places(MazeShape(6, 6))
        }
        assert pairs <= turned
        assert len(pairs) == 1 + num_aug


def test_csv_and_back_with_subsample(tmp_path):
    MAZE.build(tmp_path / "csv", SMALL, "csv")
    files = {split: str(tmp_path / "csv" / f"{split}.csv") for split in ("train", "test")}
    source = MazeData(train_csv=files["train"], test_csv=files["test"])
    for some, other in zip(MAZE.puzzles(source), MAZE.puzzles(SMALL), strict=True):
        np.testing.assert_array_equal(some.questions, other.questions)
        np.testing.assert_array_equal(some.answers, other.answers)
        np.testing.assert_array_equal(some.ratings, other.ratings)
    part, _ = MAZE.puzzles(dataclasses.replace(source, subsample=4))
    whole = {row.tobytes() for row in MAZE.puzzles(source)[0].questions}
    assert len({row.tobytes() for row in part.questions} & whole) == 4
    with pytest.raises(DataError, match=r"train\.csv, puzzle 1: its walls are, .*train\.csv"):
        MAZE.puzzles(dataclasses.replace(source, test_csv=files["train"]))


def test_boards_that_are_not_square(tmp_path):
    source = dataclasses.replace(SMALL, size=4, width=7, num_aug=3)
    train, _ = MAZE.make(source)
    assert train.inputs.shape == (48, 28)
    MAZE.build(tmp_path / "csv", dataclasses.replace(source, num_aug=0), "csv")
    files = [str(tmp_path / "csv" / f"{split}.csv") for split in ("train", "test")]
    read = MazeData(size=4, width=7, train_csv=files[0], test_csv=files[1])
    assert MAZE.puzzles(read)[0].shape == MazeShape(4, 7)
    other = tmp_path / "other"
    MAZE.build(other, SMALL, "csv")
    with pytest.raises(DataError, match=r"train\.csv:2: question: 28 cells make no square"):
        MAZE.puzzles(dataclasses.replace(read, width=0))


def test_the_same_seed_builds_the_same(tmp_path):
    source = dataclasses.replace(SMALL, num_aug=3)
    first = MAZE.build(tmp_path / "out", source, "npy")
    with pytest.raises(DataError, match="not empty"):
        MAZE.build(tmp_path / "out", source, "npy")
    assert MAZE.build(tmp_path / "out", source, "npy", overwrite=True) == first
    other = MAZE.build(tmp_path / "new", dataclasses.replace(source, seed=1), "npy")
    assert other.sha256 != first.sha256


@pytest.mark.parametrize(
    ("file_format", "change", "why"),
    [
        ("json", {}, "format is 'json', expected one of npy, tfds, csv"),
        ("csv", {"num_aug": 1}, "num_aug: CSV holds the puzzles alone"),
        ("npy", {"num_aug": 8}, "num_aug is 8, expected 0 to 7"),
        ("npy", {"train_csv": "a.csv"}, "belong together"),
        ("npy", {"subsample": 13}, "subsample is 13, expected 1 to 12"),
        ("npy", {"size": 1}, "maze shape is 1×1"),
    ],
)
def test_bad_arguments_leave_no_folder(tmp_path, file_format, change, why):
    with pytest.raises(DataError, match=why):
        MAZE.build(tmp_path / "out", dataclasses.replace(SMALL, **change), file_format)
    assert not list(tmp_path.iterdir())


def test_splits_of_other_shapes_are_refused(tmp_path):
    MAZE.build(tmp_path / "a", SMALL, "csv")
    MAZE.build(tmp_path / "b", dataclasses.replace(SMALL, size=5), "csv")
    source = MazeData(
        train_csv=str(tmp_path / "a" / "train.csv"), test_csv=str(tmp_path / "b" / "test.csv")
    )
    with pytest.raises(DataError, match=r"test\.csv: boards are 5×5, those of .*train\.csv 6×6"):
        MAZE.puzzles(source)

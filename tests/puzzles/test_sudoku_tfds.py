"""Sudoku as a TFDS data set: exact round trip, no TensorFlow, no network."""

import dataclasses
import socket
import subprocess
import sys

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.data.npy_folder import PuzzleSet
from hrm_jax.puzzles.sudoku.board import SudokuShape
from hrm_jax.puzzles.sudoku.generator import generate
from hrm_jax.puzzles.sudoku.puzzle import SUDOKU
from hrm_jax.puzzles.tfds_files import read_tfds, write_tfds


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def splits(size: int = 6) -> tuple[PuzzleSet, PuzzleSet]:
    shape = SudokuShape.of(size)
    train, test = (generate(shape, 12, (size * size // 2,) * 2, seed) for seed in (0, 1))
    unrated = dataclasses.replace(SUDOKU.puzzle_set(test), ratings=None)
    return SUDOKU.puzzle_set(train, 3, 0), unrated


def test_round_trip_keeps_everything(tmp_path):
    train, test = splits()
    write_tfds(tmp_path, "sudoku", train, test)
    for split, part in (("train", train), ("test", test)):
        again = read_tfds(tmp_path, split)
        assert again.digest() == part.digest()
        assert again.metadata == part.metadata
        assert again.inputs.dtype == again.labels.dtype == np.uint8
        np.testing.assert_array_equal(again.group_indices, part.group_indices)
    assert read_tfds(tmp_path, "test").ratings is None
    assert list(tmp_path.rglob("*.array_record*"))


def test_puzzles_of_several_examples_round_trip(tmp_path):
    _, test = splits(4)
    train = PuzzleSet.build(
        test.inputs,
        test.labels,
        vocab_size=6,
        ignore_label_id=0,
        puzzle_identifiers=[2, 1, 2],
        puzzle_indices=[0, 5, 6, 12],
        group_indices=[0, 2, 3],
        num_puzzle_identifiers=3,
    )
    write_tfds(tmp_path, "sudoku", train, test)
    assert read_tfds(tmp_path, "train").digest() == train.digest()


def test_prints_nothing(tmp_path, capfd):
    write_tfds(tmp_path, "sudoku", *splits(4))
    read_tfds(tmp_path, "train")
    assert capfd.readouterr().out == ""


def test_tensorflow_is_not_imported(tmp_path):
    code = f"""
import sys
from hrm_jax.data.npy_folder import PuzzleSet
from hrm_jax.puzzles.tfds_files import read_tfds, write_tfds
part = PuzzleSet.simple([[1] * 16], [[2] * 16], 6, 0)
write_tfds({str(tmp_path)!r}, "sudoku", part, part)
assert len(read_tfds({str(tmp_path)!r}, "test")) == 1
assert "tensorflow" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_what_is_there_is_not_written_over(tmp_path):
    write_tfds(tmp_path, "sudoku", *splits(4))
    with pytest.raises(DataError, match=r"sudoku/1\.0\.0: there is a data set already"):
        write_tfds(tmp_path, "sudoku", *splits(4))


def test_unusable_sets_are_refused(tmp_path):
    train, test = splits(4)
    wide = dataclasses.replace(train, labels=train.labels.astype(np.int32))
    with pytest.raises(DataError, match="train: tokens do not fit 8 bits"):
        write_tfds(tmp_path, "sudoku", wide, test)
    with pytest.raises(DataError, match="train has 16 cells, test 36"):
        write_tfds(tmp_path, "sudoku", train, splits(6)[1])
    with pytest.raises(DataError, match="test: inputs, row 0"):
        write_tfds(
            tmp_path, "sudoku", train, dataclasses.replace(test, inputs=test.inputs + np.uint8(9))
        )
    assert not list(tmp_path.rglob("*.array_record*"))


def test_unreadable_sets_are_refused(tmp_path):
    with pytest.raises(DataError, match="no readable TFDS data set"):
        read_tfds(tmp_path, "train")
    write_tfds(tmp_path, "sudoku", *splits(4))
    with pytest.raises(DataError, match="no split 'valid'"):
        read_tfds(tmp_path, "valid")
    (path,) = tmp_path.rglob("*train*.array_record*")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"no readable TFDS data set|damaged"):
        read_tfds(tmp_path, "train")


def test_exchanged_examples_are_noticed(tmp_path):
    write_tfds(tmp_path / "a", "sudoku", *splits(4))
    train, test = splits(4)
    write_tfds(tmp_path / "b", "sudoku", dataclasses.replace(train, inputs=train.labels), test)
    (a,), (b,) = ((tmp_path / name).rglob("*train*.array_record*") for name in "ab")
    b.write_bytes(a.read_bytes())
    with pytest.raises(DataError, match="not those that were written"):
        read_tfds(tmp_path / "b", "train")

"""The puzzle set, its invariants and the reference's folders of `.npy` files."""

import dataclasses
import json

import numpy as np
import pytest

from hrm_jax.data import puzzle_format
from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import PuzzleSet, read_npy, write_npy
from hrm_jax.puzzles.inspect import inspect


def grouped(**changes) -> PuzzleSet:
    """5 examples in 3 puzzles in 2 groups."""
    fields = {
        "inputs": [[1, 2], [3, 1], [0, 4], [2, 2], [1, 1]],
        "labels": [[4, -100], [3, 1], [0, 4], [2, 2], [1, 1]],
        "vocab_size": 5,
        "ignore_label_id": -100,
        "puzzle_identifiers": [3, 1, 2],
        "puzzle_indices": [0, 2, 3, 5],
        "group_indices": [0, 1, 3],
        "num_puzzle_identifiers": 4,
        "ratings": [0.5, 1, 2, 3, 4],
    }
    return PuzzleSet.build(**{**fields, **changes})


def test_counts_identifiers_and_dtypes():
    data = grouped()
    assert len(data) == 5
    assert data.example_identifiers().tolist() == [3, 3, 1, 2, 2]
    assert data.example_identifiers().dtype == np.int32
    assert data.inputs.dtype == np.uint8
    assert data.labels.dtype == np.int32  # -100 does not fit uint8
    assert data.metadata.total_groups == 2
    assert data.metadata.mean_puzzle_examples == pytest.approx(5 / 3)


def test_simple_makes_one_puzzle_and_group_per_example():
    data = PuzzleSet.simple([[1, 2], [3, 4]], [[1, 2], [3, 4]], 5, 0)
    assert data.example_identifiers().tolist() == [0, 0]
    assert data.puzzle_indices.tolist() == data.group_indices.tolist() == [0, 1, 2]
    assert data.metadata.num_puzzle_identifiers == 1
    assert data.labels.dtype == np.uint8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": [[1, 2], [3, 1], [0, 5], [2, 2], [1, 1]]}, "inputs, row 2: position 1: 5"),
        ({"labels": [[4, -100], [3, 1], [0, 4], [-1, 2], [1, 1]]}, "labels, row 3: position 0: -1"),
        ({"labels": [[4, 0]]}, r"labels: shape is \(1, 2\), that of inputs \(5, 2\)"),
        ({"inputs": [1, 2, 3], "labels": [1, 2, 3]}, "inputs: is uint8 .* of 2 dim"),
        ({"inputs": np.ones((0, 2), int), "labels": np.ones((0, 2), int)}, "inputs: there are no"),
        ({"inputs": np.ones((5, 2))}, "is float64 .5, 2., expected integers"),
        ({"puzzle_identifiers": [3, 4, 2]}, "puzzle_identifiers, row 1: 4"),
        ({"puzzle_indices": [0, 2, 2, 5]}, "puzzle_indices, row 2: 2 follows 2"),
        ({"puzzle_indices": [0, 2, 3, 4]}, "puzzle_indices, row 3: ends with 4, expected the 5 ex"),
        ({"puzzle_indices": [0, 2, 5]}, r"puzzle_indices: has 3 entries, expected one more"),
        ({"group_indices": [1, 2, 3]}, "group_indices, row 0: begins with 1, expected 0"),
        ({"group_indices": [0, 2, 1, 3]}, "group_indices, row 2: 1 follows 2"),
        ({"group_indices": [0, 2**40]}, "group_indices, row 1: ends with 1099511627776"),
        ({"ratings": [1, 2]}, "ratings: 2 for 5 examples"),
        ({"ratings": [1, 2, np.nan, 3, 4]}, "ratings, row 2: nan"),
        ({"pad_id": 5}, "pad_id 5"),
        ({"blank_identifier_id": 4}, "blank_identifier_id 4"),
    ],
)
def test_broken_invariants_are_named(changes, message):
    with pytest.raises(DataError, match=message):
        grouped(**changes)


@pytest.mark.parametrize(
    ("field", "value"), [("total_groups", 3), ("mean_puzzle_examples", 1.0), ("seq_len", 3)]
)
def test_validate_compares_metadata_with_the_arrays(field, value):
    data = grouped()
    data = dataclasses.replace(data, metadata=dataclasses.replace(data.metadata, **{field: value}))
    with pytest.raises(DataError, match=r"total_groups|mean_puzzle_examples|inputs"):
        data.validate("here")


def test_digest_sees_contents_but_not_dtypes():
    data = grouped()
    wide = dataclasses.replace(
        data, inputs=data.inputs.astype(np.int64), group_indices=data.group_indices.astype(np.int64)
    )
    assert wide.digest() == data.digest()
    changed = data.inputs.copy()
    changed[4, 1] = 2
    others = [
        dataclasses.replace(data, inputs=changed),
        dataclasses.replace(data, ratings=None),
        dataclasses.replace(data, metadata=dataclasses.replace(data.metadata, vocab_size=6)),
        grouped(puzzle_identifiers=[3, 1, 1]),
        grouped(group_indices=[0, 2, 3]),
    ]
    assert len({data.digest(), *(other.digest() for other in others)}) == 6


def test_npy_round_trip(tmp_path):
    data = grouped()
    write_npy(tmp_path, "train", data)
    again = read_npy(tmp_path, "train")
    assert again.digest() == data.digest()
    assert again.inputs.dtype == np.uint8
    assert again.metadata == data.metadata
    assert json.loads((tmp_path / "identifiers.json").read_text()) == ["<blank>"]
    np.testing.assert_array_equal(
        np.load(tmp_path / "train" / "all__puzzle_indices.npy"), data.puzzle_indices
    )


def test_large_files_are_mapped(tmp_path, monkeypatch):
    """Looking at them part by part finds what looking at the whole does."""
    data = grouped(labels=np.ones((5, 2), np.int64), vocab_size=5)
    write_npy(tmp_path, "train", data)
    plain = read_npy(tmp_path, "train")
    monkeypatch.setattr(puzzle_format, "_MAPPED", 0)
    monkeypatch.setattr(puzzle_format, "_PART", 4)  # two rows
    mapped = read_npy(tmp_path, "train")
    for name in ("inputs", "labels", "puzzle_identifiers", "ratings"):
        array = getattr(mapped, name)
        assert isinstance(array.base, np.memmap)
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, getattr(plain, name))
    assert mapped.digest() == plain.digest() == data.digest()
    labels = np.ones((5, 2), np.int32)
    labels[3, 1] = 9
    np.save(tmp_path / "train" / "all__labels.npy", labels)
    with pytest.raises(DataError, match=r"labels, row 3: position 1: 9 is outside \[0, 5\)"):
        read_npy(tmp_path, "train")
    (found,) = inspect(tmp_path, num=0).violations
    assert str(found) == "labels, row 3: position 1: 9 is outside [0, 5) or -100"
    file = tmp_path / "train" / "all__labels.npy"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"labels: all__labels\.npy is damaged or cut off"):
        read_npy(tmp_path, "train")


def test_identifiers_are_named(tmp_path):
    write_npy(tmp_path, "train", grouped(), ["<blank>", "a", "b", "ñ"])
    names = json.loads((tmp_path / "identifiers.json").read_text())
    assert names == ["<blank>", "a", "b", "ñ"]


def test_writing_without_ratings_removes_old_ones(tmp_path):
    write_npy(tmp_path, "train", grouped())
    write_npy(tmp_path, "train", grouped(ratings=None))
    assert read_npy(tmp_path, "train").ratings is None


def test_reads_int64_files_of_the_reference_and_unknown_fields(tmp_path):
    data = grouped(ratings=None)
    write_npy(tmp_path, "test", data)
    for name in ("inputs", "labels", "puzzle_identifiers", "group_indices"):
        path = tmp_path / "test" / f"all__{name}.npy"
        np.save(path, np.load(path).astype(np.int64))
    path = tmp_path / "test" / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "total_puzzles": 3}))
    again = read_npy(tmp_path, "test")
    assert again.digest() == data.digest()
    assert again.inputs.dtype == np.uint8


def test_several_sets_are_joined(tmp_path):
    data = grouped()
    write_npy(tmp_path, "train", data)
    for path in list((tmp_path / "train").glob("all__*.npy")):
        np.save(path.with_name(path.name.replace("all", "extra")), np.load(path))
    path = tmp_path / "train" / "dataset.json"
    value = json.loads(path.read_text()) | {"sets": ["all", "extra"], "total_groups": 4}
    path.write_text(json.dumps(value))
    both = read_npy(tmp_path, "train")
    assert both.inputs.tolist() == data.inputs.tolist() * 2
    assert both.example_identifiers().tolist() == data.example_identifiers().tolist() * 2
    assert both.puzzle_indices.tolist() == [0, 2, 3, 5, 7, 8, 10]
    assert both.group_indices.tolist() == [0, 1, 3, 4, 6]
    assert both.ratings is not None
    path.write_text(json.dumps(value | {"total_groups": 5}))
    with pytest.raises(DataError, match=r"total_groups is 5, but there are 4"):
        read_npy(tmp_path, "train")


def test_a_half_written_split_is_refused(tmp_path, monkeypatch):
    write_npy(tmp_path, "train", grouped())
    save = np.save

    def fail(path, array, **kwargs):
        if "group_indices" in str(path):
            raise OSError("disk full")
        save(path, array, **kwargs)

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_npy(tmp_path, "train", grouped())
    with pytest.raises(DataError, match=r"dataset\.json: there is no such file"):
        read_npy(tmp_path, "train")


@pytest.mark.parametrize("name", ["inputs", "labels", "puzzle_indices", "ratings"])
def test_damaged_arrays_are_named(tmp_path, name):
    write_npy(tmp_path, "train", grouped())
    path = tmp_path / "train" / f"all__{name}.npy"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=f"{name}: all__{name}.npy is damaged or cut off"):
        read_npy(tmp_path, "train")
    path.write_bytes(b"")
    with pytest.raises(DataError, match=f"{name}: all__{name}.npy is damaged or cut off"):
        read_npy(tmp_path, "train")


def test_missing_misshapen_and_pickled_arrays_are_named(tmp_path):
    write_npy(tmp_path, "train", grouped())
    path = tmp_path / "train" / "all__labels.npy"
    for value in (np.ones((5, 3), int), np.ones(5, int)):
        np.save(path, value)
        with pytest.raises(DataError, match=r"labels: (shape|is int64|is uint8)"):
            read_npy(tmp_path, "train")
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"labels: all__labels\.npy is damaged or cut off"):
        read_npy(tmp_path, "train")
    path.unlink()
    with pytest.raises(DataError, match=r"labels: there is no file all__labels\.npy"):
        read_npy(tmp_path, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": "5"}, "vocab_size is '5', expected an int"),
        ({"seq_len": True}, "seq_len is True"),
        ({"pad_id": None}, "pad_id is None"),
        ({"sets": []}, "sets is"),
        ({"sets": ["../all"]}, "sets is"),
    ],
)
def test_bad_metadata_is_named(tmp_path, change, message):
    write_npy(tmp_path, "train", grouped())
    path = tmp_path / "train" / "dataset.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | change))
    with pytest.raises(DataError, match=message):
        read_npy(tmp_path, "train")
    del value[next(iter(change))]
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=f"the field {next(iter(change))} is missing"):
        read_npy(tmp_path, "train")
    path.write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json:1: not valid JSON"):
        read_npy(tmp_path, "train")


def test_writer_refuses_what_the_reader_would(tmp_path):
    data = grouped()
    two = dataclasses.replace(data.metadata, sets=("a", "b"))
    with pytest.raises(DataError, match="one set"):
        write_npy(tmp_path, "train", dataclasses.replace(data, metadata=two))
    bad = dataclasses.replace(data, inputs=data.inputs + np.uint8(4))
    with pytest.raises(DataError, match="inputs, row 0"):
        write_npy(tmp_path, "train", bad)
    assert not list(tmp_path.rglob("*.npy"))


def test_identity_round_trip_and_differences():
    one = Identity("sudoku", "1.0.0", 3, {"train": 10}, {"train": "ab"})
    assert Identity.from_json(one.to_json()) == one
    assert one.differences(one) == []
    other = dataclasses.replace(one, seed=None, counts={"train": 11, "test": 2})
    assert one.differences(other) == [
        "seed: 3 != None",
        "counts.train: 10 != 11",
        "counts.test: absent != 2",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"builder": "x"}'])
def test_identity_refuses_other_json(text):
    with pytest.raises(DataError, match="data identity"):
        Identity.from_json(text)


def test_identity_refuses_wrong_types():
    text = Identity("sudoku", "1.0.0", 3, {}, {}).to_json().replace("3", '"3"')
    with pytest.raises(DataError, match="seed is '3'"):
        Identity.from_json(text)

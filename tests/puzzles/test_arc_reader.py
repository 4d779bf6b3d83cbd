"""ARC's files: folders, archives and Kaggle's pairs; what is refused and how it is named."""

import io
import json
import tarfile

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.arc.reader import choose_split, read_tasks

TASK = {
    "train": [{"input": [[0, 1], [2, 3]], "output": [[4]]}, {"input": [[5]], "output": [[6, 7]]}],
    "test": [{"input": [[8, 9]], "output": [[0], [1]]}],
}


def changed(**parts):
    return {**TASK, **parts}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def archive(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def same(a, b):
    assert [task.name for task in a] == [task.name for task in b]
    for x, y in zip(a, b, strict=True):
        for p, q in zip(x.grids(), y.grids(), strict=True):
            np.testing.assert_array_equal(p, q)
            assert p.dtype == np.uint8


def test_folder_archive_and_kaggle_read_alike(tmp_path):
    other = changed(test=[{"input": [[1, 2, 3]], "output": [[4]]}, *TASK["test"]])
    folder = tmp_path / "repo"
    write(folder / "data" / "training" / "b.json", TASK)
    write(folder / "data" / "training" / "a.json", other)
    write(folder / "data" / "evaluation" / "c.json", TASK)
    splits = read_tasks(folder)
    assert {split: [task.name for task in tasks] for split, tasks in splits.items()} == {
        "training": ["a", "b"],
        "evaluation": ["c"],
    }
    np.testing.assert_array_equal(splits["training"][1].train[1][1], [[6, 7]])
    np.testing.assert_array_equal(splits["training"][0].test[1][1], [[0], [1]])
    assert splits["training"][0].side() == 3

    same(read_tasks(folder / "data" / "training")["all"], splits["training"])

    text = json.dumps(TASK).encode()
    members = {"x/training/b.json": text, "../../training/a.json": json.dumps(other).encode()}
    members |= {"/evaluation/c.json": text, "x/training/._b.json": b"\0", "x/LICENSE": b"none"}
    for name, mode in (("x.tar.gz", "w:gz"), ("x.tar", "w")):
        packed = read_tasks(archive(tmp_path / name, members, mode))
        same(packed["training"], splits["training"])
        same(packed["evaluation"], splits["evaluation"])

    def questions(task):
        return {**task, "test": [{"input": pair["input"]} for pair in task["test"]]}

    def answers(task):
        return [pair["output"] for pair in task["test"]]

    kaggle = tmp_path / "kaggle"
    start = "arc-agi_training_"
    file = write(kaggle / f"{start}challenges.json", {"b": questions(TASK), "a": questions(other)})
    write(kaggle / f"{start}solutions.json", {"a": answers(other), "b": answers(TASK)})
    write(kaggle / "arc-agi_test_challenges.json", {"c": questions(TASK)})
    write(kaggle / "sample_submission.json", {})
    splits_of_kaggle = read_tasks(kaggle)
    assert sorted(splits_of_kaggle) == ["test", "training"]
    same(splits_of_kaggle["training"], splits["training"])
    same(read_tasks(file)["training"], splits["training"])
    assert splits_of_kaggle["test"][0].test[0][1] is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", r"t\.json: line 1: not valid JSON"),
        ("[" * 100_000, r"t\.json: not valid JSON"),
        ([TASK], r"t\.json: expected a JSON object, found list"),
        ({"train": []}, r"t\.json: task t: expected an object with train and test, found \['train"),
        (changed(train=[]), r"task t: train: expected a list of pairs, found an empty one"),
        (changed(test={}), r"task t: test: expected a list of pairs, found dict"),
        (changed(test=[TASK["test"][0], {"output": [[1]]}]), r"test pair 2: .* found \['output'\]"),
        (changed(train=[{"input": [[1]]}]), r"train pair 1: output is missing"),
        (
            changed(test=[{"input": [[1], [1, 2]]}]),
            r"pair 1: input: row 2 has 2 cells, row 1 has 1",
        ),
        (
            changed(test=[{"input": [[1, 10]]}]),
            r"input: row 1, column 2 is '10', expected a colour",
        ),
        (changed(test=[{"input": [[1, -1]]}]), r"column 2 is '-1'"),
        (changed(test=[{"input": [[True]]}]), r"column 1 is 'True'"),
        (changed(test=[{"input": [[1.0]]}]), r"column 1 is '1.0'"),
        (changed(test=[{"input": [1, 2]}]), r"input: expected a list of rows of colours"),
        (changed(test=[{"input": []}]), r"input: is 0×0, expected 1 to 30 rows and columns"),
        (changed(test=[{"input": [[]]}]), r"input: is 1×0, expected 1 to 30"),
        (changed(test=[{"input": [[0] * 31]}]), r"input: is 1×31, expected 1 to 30"),
        (changed(test=[{"input": [[0]] * 31}]), r"input: is 31×1, expected 1 to 30"),
    ],
)
def test_bad_tasks_are_refused_by_name(tmp_path, value, message):
    write(tmp_path / "t.json", value)
    with pytest.raises(DataError, match=message):
        read_tasks(tmp_path)


def test_bad_archives_are_refused(tmp_path):
    text = json.dumps(changed(test=[{"input": [[77]]}])).encode()
    good = archive(tmp_path / "a.tar.gz", {"evaluation/x.json": text})
    with pytest.raises(
        DataError, match=r"a\.tar\.gz, member evaluation/x\.json: task x: test pair"
    ):
        read_tasks(good)
    big = {f"training/{n}.json": json.dumps(changed(id=n)).encode() for n in range(200)}
    whole = archive(tmp_path / "whole.tar.gz", big)
    assert len(read_tasks(whole)["training"]) == 200
    (tmp_path / "cut.tar.gz").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "none.tar.gz").write_bytes(b"no archive")
    for name in ("cut.tar.gz", "none.tar.gz"):
        with pytest.raises(DataError, match=f"{name}: expected a folder, a tar archive or"):
            read_tasks(tmp_path / name)
    with pytest.raises(DataError, match=r"holds no \.json files"):
        read_tasks(archive(tmp_path / "b.tar", {"x.txt": b""}, "w"))
    with pytest.raises(DataError, match="there is no such file or folder"):
        read_tasks(tmp_path / "missing")
    twice = {"training/x.json": b"{}", "more/training/x.json": json.dumps(TASK).encode()}
    with pytest.raises(DataError, match=r"the task x is also in|expected an object"):
        read_tasks(archive(tmp_path / "c.tar", twice, "w"))


def test_bad_kaggle_files_are_refused(tmp_path):
    questions = {"a": changed(test=[{"input": [[1]]}])}
    write(tmp_path / "arc-agi_evaluation_challenges.json", questions)
    for answers, found in (({}, "no list"), ({"a": []}, "0 grids"), ({"a": 3}, "no list")):
        write(tmp_path / "arc-agi_evaluation_solutions.json", answers)
        with pytest.raises(DataError, match=rf"solutions\.json: task a: found {found}, expected"):
            read_tasks(tmp_path)
    write(tmp_path / "arc-agi_evaluation_solutions.json", {"a": [[[10]]]})
    with pytest.raises(DataError, match=r"task a: test pair 1: output: row 1, column 1 is '10'"):
        read_tasks(tmp_path)
    write(tmp_path / "arc-agi_test_challenges.json", {})
    (tmp_path / "arc-agi_evaluation_solutions.json").unlink()
    with pytest.raises(DataError, match=r"test_challenges\.json: holds no tasks"):
        read_tasks(tmp_path)


def test_an_absent_split_is_named(tmp_path):
    write(tmp_path / "training" / "a.json", TASK)
    with pytest.raises(DataError, match=r"here: has the splits \['training'\], expected one of"):
        choose_split(read_tasks(tmp_path), ("evaluation", "all"), "here")


def test_published_archives(data):
    sizes = {
        name: {split: len(tasks) for split, tasks in read_tasks(data / "arc" / name).items()}
        for name in ("ARC-AGI-1.tar.gz", "ARC-AGI-2.tar.gz", "ConceptARC.tar.gz")
    }
    assert sizes == {
        "ARC-AGI-1.tar.gz": {"training": 400, "evaluation": 400},
        "ARC-AGI-2.tar.gz": {"training": 1000, "evaluation": 120},
        "ConceptARC.tar.gz": {"training": 160, "minimal": 16},
    }
    first = read_tasks(data / "arc" / "ARC-AGI-1.tar.gz")["training"][0]
    assert (first.name, len(first.train), len(first.test)) == ("007bbfb7", 5, 1)
    np.testing.assert_array_equal(first.train[0][0], [[0, 7, 7], [7, 7, 7], [0, 7, 7]])
    assert first.train[0][1].shape == (9, 9)

"""ARC's files: folders, archives and Kaggle's pairs; what is refused and how it is named."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.arc.reader import choose_split, read_subsets, read_tasks

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
        with pytest.raises(DataError, match=f"{name}: damaged, .* a tar archive or"):
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


def kaggle(folder, *splits, mark="_"):
    for number, split in enumerate(splits):
        start = f"arc-agi{mark}{split}{mark}"
        names = [f"{number}a", f"{number}b"]
        asked = {**TASK, "test": [{"input": [[number, 1]]}]}
        write(folder / f"{start}challenges.json", dict.fromkeys(names, asked))
        write(folder / f"{start}solutions.json", {x: [[[number, 2]]] for x in names})
    return folder


COMBINED = ("training", "evaluation", "training2", "evaluation2", "concept")


@pytest.mark.parametrize("mark", ["_", "-"])
def test_subsets_are_chosen_by_name(tmp_path, mark):
    folder = kaggle(tmp_path, *COMBINED, mark=mark)
    assert set(read_tasks(folder)) == set(COMBINED)
    chosen = read_subsets(f"{folder}:training2+concept", ("training",))
    assert [task.name for task in chosen] == ["2a", "2b", "4a", "4b"]
    np.testing.assert_array_equal(chosen[0].test[0][1], [[2, 2]])
    with pytest.raises(DataError, match=r"has the splits \['concept', .* none of \['concept', 'ev"):
        read_subsets(str(folder), ("training", "all"))
    with pytest.raises(DataError, match=r"no split 'training3', expected of \['concept'"):
        read_subsets(f"{folder}:training3", ("training",))
    with pytest.raises(DataError, match=r"the task 2a is in more than one of them"):
        read_subsets(f"{folder}:training2+training2", ("training",))


@pytest.mark.parametrize("split", COMBINED)
def test_one_file_alone_is_what_it_holds(tmp_path, split):
    start = kaggle(tmp_path, split) / f"arc-agi_{split}_"
    (task, _) = read_subsets(f"{start}challenges.json", ("training", "all"))
    np.testing.assert_array_equal(task.test[0][1], [[0, 2]])
    with pytest.raises(DataError, match=r"holds answers alone, expected arc-agi_.*_challenges"):
        read_subsets(f"{start}solutions.json", ("training", "all"))
    single = write(tmp_path / "b.json", TASK)
    assert [task.name for task in read_subsets(str(single), ("training", "all"))] == ["b"]
    tasks = write(tmp_path / "mine.json", {"x": TASK, "y": TASK})
    assert [task.name for task in read_subsets(str(tasks), ("training", "all"))] == ["x", "y"]


def test_no_file_is_passed_over(tmp_path):
    folder = kaggle(tmp_path / "a", "training", "evaluation")
    write(folder / "sample_submission.json", {})
    assert len(read_subsets(str(folder), ("training", "all"))) == 2
    stray = write(folder / "more" / "c.json", TASK)
    with pytest.raises(DataError, match=r"c\.json: neither Kaggle's"):
        read_tasks(folder)
    stray.unlink()
    write(folder / "arc-agi_test_solutions.json", {})
    with pytest.raises(DataError, match=r"test_solutions\.json: neither Kaggle's"):
        read_tasks(folder)
    (folder / "arc-agi_test_solutions.json").unlink()
    write(folder / "arc-agi_training_solutions.json", {n: [[[1]]] for n in ("0a", "0b", "0c")})
    with pytest.raises(DataError, match=r"solutions\.json: task 0c: there is no such task in"):
        read_tasks(folder)
    other = tmp_path / "b"
    for place in ("training/a", "training2/b", "elsewhere/c"):
        write(other / f"{place}.json", TASK)
    assert set(read_tasks(other)) == {"training", "training2", "all"}
    with pytest.raises(DataError, match=r"none of \['all', 'training2'\] beside it"):
        read_subsets(str(other), ("training", "all"))
    assert len(read_subsets(f"{other}:training+all", ("training", "all"))) == 2


def test_placeholders_of_hidden_answers_are_named(tmp_path, caplog):
    small = [{"input": [[3]], "output": [[1]]}]  # here [[0]] may be meant
    write(tmp_path / "b.json", {"train": small, "test": [{"input": [[1]], "output": [[0]]}]})
    write(tmp_path / "c.json", changed(test=[{"input": [[1]], "output": [[0, 0]]}]))
    hidden = [{"input": [[1]], "output": [[0]]}] * 2
    write(tmp_path / "a.json", {"train": TASK["train"][1:], "test": hidden})
    a, b, c = read_tasks(tmp_path)["all"]
    assert [target for _, target in a.test] == [None, None]
    assert b.test[0][1].tolist() == [[0]]
    assert c.test[0][1].tolist() == [[0, 0]]
    assert "2 test outputs are [[0]], the placeholder of hidden solutions" in caplog.text


def test_zip_is_read_like_the_folder(tmp_path):
    folder = kaggle(tmp_path / "a", "training", "evaluation")
    with zipfile.ZipFile(tmp_path / "arc.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in folder.iterdir():
            file.write(path, f"../../{path.name}")
        file.writestr("__MACOSX/._arc-agi_training_challenges.json", b"\0")
    packed, plain = read_tasks(tmp_path / "arc.zip"), read_tasks(folder)
    assert set(packed) == set(plain)
    same(packed["training"], plain["training"])
    data = bytearray((tmp_path / "arc.zip").read_bytes())
    data[data.index(b"challenges.json") + 40] ^= 1
    (tmp_path / "arc.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"arc\.zip: damaged, .* expected a folder, a tar"):
        read_tasks(tmp_path / "arc.zip")


def test_what_is_unpacked_is_limited(tmp_path, monkeypatch):
    members = {f"training/{n}.json": json.dumps(TASK).encode() for n in range(20)}
    for name, mode in (("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz"), ("a.tar", "w")):
        archive(tmp_path / name, members, mode)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    names = [path.name for path in tmp_path.iterdir()]
    for name in names:
        assert len(read_tasks(tmp_path / name)["training"]) == 20
    monkeypatch.setenv("HRM_JAX_MAX_UNPACKED", "2000")
    for name in names:
        with pytest.raises(DataError, match=rf"{name}: unpacks to more than 2000 bytes"):
            read_tasks(tmp_path / name)
    monkeypatch.setenv("HRM_JAX_MAX_UNPACKED", "20")
    path = write(tmp_path / "folder" / "a.json", TASK)
    with pytest.raises(DataError, match=r"a\.json: has \d+ bytes, expected at most 20"):
        read_tasks(path.parent)


def test_tar_archives_must_be_whole(tmp_path):
    members = {f"training/{n}.json": json.dumps(TASK).encode() for n in range(3)}
    data = bytearray(archive(tmp_path / "a.tar", members, "w").read_bytes())
    cut = tmp_path / "cut.tar"
    cut.write_bytes(data[:1024])  # one whole member
    with pytest.raises(DataError, match=r"cut\.tar: damaged or cut off, after byte 1024"):
        read_tasks(cut)
    data[1024 + 3] ^= 1  # in the header of the second
    cut.write_bytes(data)
    with pytest.raises(DataError, match=r"cut\.tar: damaged or cut off, after byte 1024"):
        read_tasks(cut)


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

"""Whatever a file of puzzles holds, its reader answers or raises a `DataError` that names it."""

import gzip
import json
import pathlib
import random
import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.data.npy_folder import read_npy
from hrm_jax.puzzles.arc.build import ArcData
from hrm_jax.puzzles.arc.puzzle import ARC
from hrm_jax.puzzles.arc.reader import read_tasks
from hrm_jax.puzzles.inspect import inspect
from hrm_jax.puzzles.sudoku.board import SudokuShape
from hrm_jax.puzzles.sudoku.generator import generate
from hrm_jax.puzzles.sudoku.puzzle import SUDOKU
from hrm_jax.puzzles.text_files import read_questions, read_text
from hrm_jax.trained.browse import puzzle_of

ROUNDS = 12  # changes of each file
PIECES = (b"[" * 5000, b"\0" * 8, b"\xff\xfe", b'"', b"1e999", b"9" * 5000, b"NaN", b"-1", b"\r")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a sound file of each kind."""
    root = tmp_path_factory.mktemp("sound")
    ARC.build(root / "arc", ArcData(num_train=2, num_test=2, num_aug=1, side=4))
    puzzles = generate(SudokuShape.of(4), 3, (8, 10), seed=0)
    SUDOKU.write_csv(root / "a.csv", puzzles)
    SUDOKU.write_csv(root / "a.csv.gz", puzzles)
    lines = [SUDOKU.to_text(SUDOKU.tokens(board)) for board in puzzles.questions]
    (root / "a.txt").write_text("\n".join(["# three", *lines]))
    pair = {"input": [[1, 2]], "output": [[3]]}
    tasks = root / "tasks"
    tasks.mkdir()
    named = {name: {"train": [pair], "test": [pair]} for name in ("x", "y")}
    (tasks / "arc-agi_training_challenges.json").write_text(json.dumps(named))
    (tasks / "arc-agi_training_solutions.json").write_text(json.dumps({"x": [[[1]]], "y": [[[2]]]}))
    for suffix, mode in ((".tar", "w"), (".tar.gz", "w:gz"), (".tar.xz", "w:xz")):
        with tarfile.open(root / f"a{suffix}", mode) as file:
            file.add(tasks, "tasks")
    with zipfile.ZipFile(root / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in tasks.iterdir():
            file.write(path, path.name)
    return root


def changed(data: bytes, draw: random.Random) -> bytes:
    """Data with some bytes flipped, cut off, left out, doubled or put in."""
    place, length = draw.randrange(len(data)), draw.randrange(1, 40)
    head, tail = data[:place], data[place:]
    kind = draw.randrange(6)
    if kind == 0:
        return head + bytes([tail[0] ^ 1 << draw.randrange(8)]) + tail[1:]
    if kind == 1:
        return head
    if kind == 2:
        return head + tail[length:]
    if kind == 3:
        return head + tail[:length] + tail
    piece = draw.choice(PIECES)
    return head + piece + (tail if kind == 4 else tail[len(piece) :])


def solve_reader(path):
    return read_questions(read_text(path), SUDOKU, 16)


def arc_reader(path):
    return ARC.read_both(path.parent if path.name == "identifiers.json" else path.parents[1])


def inspected(path):
    return inspect(path.parents[1], "train", max_reports=3)


FILES = {
    "a.csv": SUDOKU.read_boards,
    "a.csv.gz": SUDOKU.read_boards,
    "a.txt": solve_reader,
    "a.tar": read_tasks,
    "a.tar.gz": read_tasks,
    "a.tar.xz": read_tasks,
    "a.zip": read_tasks,
    "tasks/arc-agi_training_challenges.json": read_tasks,
    "tasks/arc-agi_training_solutions.json": lambda path: read_tasks(path.parent),
    "arc/identifiers.json": arc_reader,
    "arc/identity.json": lambda path: puzzle_of(None, path.parent),
    "arc/train/dataset.json": inspected,
    "arc/test/dataset.json": arc_reader,
    **{
        f"arc/train/all__{name}.npy": reader
        for name, reader in {
            "inputs": arc_reader,
            "labels": inspected,
            "puzzle_identifiers": arc_reader,
            "puzzle_indices": inspected,
            "group_indices": arc_reader,
        }.items()
    },
}


def read_as_ours(path: pathlib.Path, reader) -> str:
    """What is wrong with a file, "" if it is read."""
    try:
        reader(path)
    except DataError as error:
        wrong = str(error)
    else:
        return ""
    assert path.name in wrong or str(path.parent) in wrong
    return wrong


@pytest.mark.parametrize("name", FILES)
def test_changed_files(sound, tmp_path, name):
    top = pathlib.PurePath(name).parts[0]
    (shutil.copytree if (sound / top).is_dir() else shutil.copy)(sound / top, tmp_path / top)
    path, data = tmp_path / name, (sound / name).read_bytes()
    assert read_as_ours(path, FILES[name]) == ""
    draw = random.Random(name)
    refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(changed(data, draw))
        refused += bool(read_as_ours(path, FILES[name]))
    path.write_bytes(b"[" * 100_000)
    assert read_as_ours(path, FILES[name]) or FILES[name] in (inspected, solve_reader)
    assert refused or FILES[name] in (inspected, solve_reader)


def header(shape: str, descr: str = "'<i4'") -> bytes:
    """The beginning of an .npy file that claims a shape."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (117 - len(text)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        header("(1000000, 9000000)") + b"\0" * 64,  # 36 TB
        header("(2, ("),
        header("(0,)"),
        header("()") + b"\0" * 4,
        header("(-1,)") + b"\0" * 4,
        header("(3,)", "'|O'") + b"\0" * 24,
        header("(3,)", "'<f4'") + b"\0" * 12,
        header("(3,)", "[('a', '<i4')]") + b"\0" * 12,
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"",
    ],
)
def test_headers_that_claim_too_much(sound, tmp_path, data):
    for field in ("inputs", "labels", "group_indices", "puzzle_indices"):
        root = shutil.copytree(sound / "arc", tmp_path / field)
        (root / "train" / f"all__{field}.npy").write_bytes(data)
        with pytest.raises(DataError, match=f"train: {field}"):
            read_npy(root, "train")
        assert any(x.array == field for x in inspect(root, num=0).violations)


def test_what_is_whole_but_wrong(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"question\n1\0" + b"1" * 14 + b"\n")
    with pytest.raises(DataError, match=r"a\.csv"):
        SUDOKU.read_boards(tmp_path / "a.csv")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"question\n" + b'"' + b"1\n" * 200_000))
    with pytest.raises(DataError, match=r"a\.csv\.gz: .* field larger than field limit"):
        SUDOKU.read_boards(tmp_path / "a.csv.gz")
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"x\.npy: damaged, or not what its name says"):
        read_tasks(tmp_path / "x.npy")

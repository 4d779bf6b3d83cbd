"""The command that builds data sets, and the folder it leaves or does not leave."""

import importlib.util
import pathlib

import numpy as np
import pytest

from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import read_npy
from hrm_jax.puzzles.sudoku.board import SudokuShape
from hrm_jax.puzzles.sudoku.generator import generate
from hrm_jax.puzzles.sudoku.puzzle import SUDOKU
from hrm_jax.puzzles.tfds_files import read_tfds

LAUNCH = pathlib.Path(__file__).parents[2] / "launch" / "build_dataset.py"
SMALL = ["--size=4", "--num_train=20", "--num_test=10", "--givens=6,9"]


def build(*arguments) -> int:
    spec = importlib.util.spec_from_file_location("build_dataset", LAUNCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(["sudoku", *map(str, arguments)])


def read(folder, file_format, split):
    if file_format == "npy":
        return read_npy(folder, split)
    if file_format == "tfds":
        return read_tfds(folder, split)
    return SUDOKU.read_csv(folder / f"{split}.csv")


@pytest.mark.parametrize("file_format", ["npy", "tfds", "csv"])
def test_every_format_holds_the_same_data(tmp_path, capsys, file_format):
    output = tmp_path / "deep" / "data"
    assert build(f"--output={output}", f"--format={file_format}", *SMALL) == 0
    identity = Identity.from_json((output / "identity.json").read_text())
    assert Identity.from_json(capsys.readouterr().out) == identity
    assert identity.counts == {"train_puzzles": 20, "train_examples": 20, "test_examples": 10}
    for split in ("train", "test"):
        assert read(output, file_format, split).digest() == identity.sha256[split]
    build(f"--output={tmp_path / 'npy'}", *SMALL)
    other = Identity.from_json((tmp_path / "npy" / "identity.json").read_text())
    assert identity.differences(other) == []
    assert {path.name for path in tmp_path.iterdir()} == {"deep", "npy"}  # nothing left over


def test_seed_changes_the_data(tmp_path):
    for seed in (0, 1):
        assert build(f"--output={tmp_path / str(seed)}", f"--seed={seed}", *SMALL) == 0
    zero, one = (
        Identity.from_json((tmp_path / name / "identity.json").read_text()) for name in "01"
    )
    assert {line.split(":")[0] for line in zero.differences(one)} == {
        "seed",
        "sha256.train",
        "sha256.test",
    }


def csv_files(folder) -> list[str]:
    shape = SudokuShape.of(9)
    for seed, split in enumerate(("train", "test")):
        SUDOKU.write_csv(folder / f"{split}.csv", generate(shape, 20, (30, 30), seed))
    return [f"--{split}_csv={folder / split}.csv" for split in ("train", "test")]


def test_csv_source_with_subsample_and_augmentations(tmp_path):
    files = csv_files(tmp_path)
    arguments = [*files, "--subsample=5", "--num_aug=3", "--check_symmetry"]
    assert build(f"--output={tmp_path / 'data'}", *arguments) == 0
    train, test = (read_npy(tmp_path / "data", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (20, 20)
    assert train.group_indices.tolist() == [0, 4, 8, 12, 16, 20]
    whole = SUDOKU.read_csv(tmp_path / "train.csv")
    known = [row.tobytes() for row in whole.inputs]
    originals = [known.index(row.tobytes()) for row in train.inputs[::4]]
    assert len(set(originals)) == 5
    assert build(f"--output={tmp_path / 'again'}", *arguments) == 0
    assert read_npy(tmp_path / "again", "train").digest() == train.digest()
    assert build(f"--output={tmp_path / 'other'}", *arguments, "--seed=1") == 0
    assert read_npy(tmp_path / "other", "train").digest() != train.digest()


def one_line_error(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("build_dataset: error: ")
    return captured.err


def test_leaks_are_refused(tmp_path, capsys):
    files = csv_files(tmp_path)
    train = SUDOKU.read_boards(tmp_path / "train.csv")
    leak = train.take(np.arange(3))
    SUDOKU.write_csv(tmp_path / "test.csv", leak)
    assert build(f"--output={tmp_path / 'data'}", *files) == 2
    assert "test.csv, puzzle 1: its solution grid is that of" in one_line_error(capsys)
    for array in (leak.questions, leak.answers):
        array[array > 0] = array[array > 0] % 9 + 1
    SUDOKU.write_csv(tmp_path / "test.csv", leak)
    assert build(f"--output={tmp_path / 'data'}", *files, "--check_symmetry") == 2
    assert "up to symmetry" in one_line_error(capsys)
    assert not (tmp_path / "data").exists()
    assert build(f"--output={tmp_path / 'data'}", *files) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size=5"], "size is 5"),
        (["--givens=3,9"], "givens are 3 to 9"),
        (["--givens=14"], "givens: expected a least and a greatest number"),
        (["--subsample=21"], "subsample is 21, expected 1 to 20"),
        (["--num_aug=-1"], "num_aug is -1"),
        (["--format=csv", "--num_aug=2"], "num_aug: CSV"),
        (["--train_csv=a.csv"], "train_csv and test_csv belong together"),
        (["--train_csv=a.csv", "--test_csv=b.csv"], "has no effect: the puzzles come from data.tr"),
        (["--check_symmetry"], "has no effect: the puzzles are generated"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, message):
    assert build(f"--output={tmp_path / 'data'}", *SMALL, *arguments) == 2
    assert message in one_line_error(capsys)
    assert list(tmp_path.iterdir()) == []


def test_missing_files_are_named(tmp_path, capsys):
    assert build(f"--output={tmp_path / 'data'}", "--train_csv=a.csv", "--test_csv=b.csv") == 2
    assert "a.csv: there is no such file" in one_line_error(capsys)


@pytest.mark.parametrize("argument", ["--givens=few", "--format=json", "--sise=4"])
def test_bad_flags_end_with_code_2(tmp_path, argument):
    with pytest.raises(SystemExit, match="2"):
        build(f"--output={tmp_path / 'data'}", argument)


def test_mixed_sizes_are_refused(tmp_path, capsys):
    files = csv_files(tmp_path)
    SUDOKU.write_csv(tmp_path / "test.csv", generate(SudokuShape.of(4), 2, (8, 8), 0))
    assert build(f"--output={tmp_path / 'data'}", *files) == 2
    assert "test.csv: boards are 4×4, those of" in one_line_error(capsys)


def test_only_our_own_data_is_overwritten(tmp_path, capsys):
    output = tmp_path / "data"
    output.mkdir()  # an empty folder is no obstacle
    assert build(f"--output={output}", *SMALL) == 0
    before = (output / "identity.json").read_text()
    capsys.readouterr()
    assert build(f"--output={output}", *SMALL, "--seed=1") == 2
    assert "folder is not empty" in one_line_error(capsys)
    assert build(f"--output={output}", *SMALL, "--overwrite", "--subsample=99") == 2
    assert (output / "identity.json").read_text() == before  # a failure costs nothing
    assert build(f"--output={output}", *SMALL, "--overwrite", "--seed=1", "--format=tfds") == 0
    assert not (output / "train").exists()
    assert len(read_tfds(output, "train")) == 20

    foreign = tmp_path / "home"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    capsys.readouterr()
    assert build(f"--output={foreign}", *SMALL, "--overwrite") == 2
    assert "no data set of ours" in one_line_error(capsys)
    assert build(f"--output={foreign / 'thesis.txt'}", *SMALL, "--overwrite") == 2
    assert "is a file" in one_line_error(capsys)
    assert (foreign / "thesis.txt").read_text() == "years of work"

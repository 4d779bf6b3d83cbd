"""The inspector: sound folders pass, and every fault planted in one is found and named."""

import json
import re
import shutil

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.data.npy_folder import PuzzleSet, write_npy
from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.inspect import inspect

SUDOKU: dict = {"size": 4, "num_train": 12, "num_test": 6, "givens": (6, 9)}


def _build(folder, kind, file_format="npy", **data):
    puzzle = PUZZLES[kind]
    return puzzle.build(folder, puzzle.data(**data), file_format)


@pytest.fixture
def run(script, capsys):
    """Runs the script: (exit code, stdout, stderr)."""

    def call(*argv):
        try:
            code = script("inspect_dataset").main([str(x) for x in argv])
        except SystemExit as leaving:  # argparse
            code = leaving.code
        return code, *capsys.readouterr()

    return call


def _arc(*grids, at=(0, 0), side=30):
    """Tokens of grids as the reference lays them out."""
    rows = []
    for grid in grids:
        tokens = np.zeros((side + 1, side + 1), np.int64)
        (top, left), (height, width) = at, np.shape(grid)
        tokens[top : top + height, left : left + width] = np.array(grid) + 2
        tokens[top + height, left : left + width] = 1
        tokens[top : top + height, left + width] = 1
        rows.append(tokens[:side, :side].reshape(-1))
    return np.array(rows)


def _maze(*texts):
    return np.array([["# SGo".index(letter) + 1 for letter in text] for text in texts])


QUESTION = "S #  " + "  #  " + "     " + "## # " + "G    "
ANSWER = "S #  " + "o #  " + "ooo  " + "##o# " + "Goo  "
WALLED = QUESTION.replace("## # ", "#####")
LONGER = "S #  " + "o #  " + "oooo " + "##o#o" + "Goooo"


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A folder of each kind without a fault; not to be changed."""
    root = tmp_path_factory.mktemp("sound")
    _build(root / "sudoku", "sudoku", **SUDOKU, num_aug=1)
    _build(root / "domino", "domino", num_train=40, num_test=20)
    grids = ([[1, 2], [3, 4]], [[5, 5, 5]])
    arc = {
        "train": [_arc(*grids, at=(2, 3)), _arc(np.ones((30, 30), int), [[1]])],
        "test": [_arc(*grids)],
    }
    for split, some in arc.items():
        x, y = np.stack(some, axis=1)
        write_npy(root / "arc", split, PuzzleSet.simple(x, y, 12, 0))
        maze = PuzzleSet.simple(_maze(QUESTION, QUESTION), _maze(ANSWER, ANSWER), 6, 0)
        write_npy(root / "maze", split, maze)
    return root


@pytest.fixture
def copy(sound, tmp_path):
    """Writes a changed copy of a sound training split: `change` gets the arrays and metadata."""

    def make(kind, change):
        source, target = sound / kind / "train", tmp_path / kind / "train"
        target.mkdir(parents=True)
        arrays = {path.stem.removeprefix("all__"): np.load(path) for path in source.glob("*.npy")}
        metadata = json.loads((source / "dataset.json").read_text())
        for name in ("inputs", "labels"):
            arrays[name] = arrays[name].astype(np.int32)
        change(arrays, metadata)
        for name, array in arrays.items():
            np.save(target / f"all__{name}.npy", array)
        (target / "dataset.json").write_text(json.dumps(metadata))
        return tmp_path / kind

    return make


def _put(array, row, place, value):
    """A change of one entry (or of a whole row)."""

    def change(arrays, metadata):
        arrays[array][row, place] = value

    return change


# --- sound folders --------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", ["sudoku", "maze", "arc", "domino"])
def test_sound_folders(kind, split, sound, run):
    code, out, err = run(sound / kind, "--split", split, "--num", 1)
    assert (code, err) == (0, "")
    assert out.startswith(f"{kind}: ")
    assert re.search(r"vocab_size +\d+\n", out)
    assert out.count("Example ") == 1
    assert out.endswith("No violations.\n")


def test_examples_are_drawn(sound):
    maze = inspect(sound / "maze", num=1).examples[0].splitlines()
    assert maze == [f"{QUESTION[i : i + 5]}    {ANSWER[i : i + 5]}" for i in range(0, 25, 5)]
    arc = inspect(sound / "arc", num=1).examples[0].splitlines()
    assert arc[2][:8] == "...12|.."
    assert arc[4][:8] == "...||..."
    sudoku = inspect(sound / "sudoku", num=1).examples[0].splitlines()
    assert re.fullmatch(r"[.1-4] [.1-4] \| [.1-4] [.1-4]    [1-4] [1-4] \| [1-4] [1-4]", sudoku[0])
    assert sudoku[2] == "---------    ---------"
    assert inspect(sound / "domino", num=1).examples[0].startswith("table  ")
    assert len(inspect(sound / "domino", num=5).examples) == 5
    assert inspect(sound / "domino", num=0).examples == []


def test_a_maze_that_is_not_square(tmp_path, run):
    """The format does not store the width; the paths tell it."""
    _build(tmp_path / "data", "maze", size=4, width=9, num_train=20, num_test=5)
    code, out, _ = run(tmp_path / "data", "--num=1")
    assert code == 0
    board = out.split("Example 0\n")[1].split("\n\n")[0].splitlines()
    assert [len(line) for line in board] == [9 + 4 + 9] * 4


def test_puzzles_of_an_unknown_kind(tmp_path, run):
    write_npy(tmp_path, "train", PuzzleSet.simple([[1, 2, 3]], [[3, 2, 1]], 50, None))
    code, out, _ = run(tmp_path)
    assert code == 0
    assert "unknown kind" in out
    assert "inputs [1, 2, 3]" in out


def test_tfds(tmp_path, run):
    _build(tmp_path / "data", "sudoku", "tfds", **SUDOKU)
    code, out, _ = run(tmp_path / "data", "--split=test")
    assert code == 0
    assert out.startswith("sudoku: 6 examples, 6 puzzles, 6 groups")
    code, _, err = run(tmp_path / "data", "--split=dev")
    assert code == 2
    assert "there is no split 'dev', only ['train', 'test']" in err
    damaged = next((tmp_path / "data").glob("**/*test.array_record*"))
    damaged.write_bytes(damaged.read_bytes()[:-200])
    code, out, _ = run(tmp_path / "data", "--split=test")
    assert code == 1
    assert "TFDS files: " in out


# --- faults of the format -------------------------------------------------------------------------


def _metadata(**changes):
    def change(arrays, metadata):
        metadata.update(changes)
        for name in [name for name, value in metadata.items() if value == "gone"]:
            del metadata[name]

    return change


def _arrays(**changes):
    def change(arrays, metadata):
        arrays.update({name: make(arrays[name]) for name, make in changes.items()})

    return change


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (_put("inputs", 3, 5, 77), "inputs, row 3: position 5: 77 is outside [0, 6)"),
        (_put("labels", 4, [1, 2], -7), "(and 1 more in this row)"),
        (_metadata(vocab_size="many"), "dataset.json: vocab_size is 'many', expected an integer"),
        (_metadata(seq_len=17), "inputs: shape is (24, 16), but seq_len is 17"),
        (_metadata(pad_id="gone"), "dataset.json: the field pad_id is missing"),
        (_metadata(pad_id=6), "dataset.json: pad_id 6 is outside [0, 6)"),
        (_metadata(blank_identifier_id=1), "blank_identifier_id 1 is outside [0, 1)"),
        (_metadata(total_groups=0), "total_groups is 0, expected an integer of at least 1"),
        (_metadata(total_groups=99), "total_groups is 99, but there are 12"),
        (_metadata(mean_puzzle_examples=2.5), "24 examples in 24 puzzles make 1"),
        (_metadata(mean_puzzle_examples=None), "mean_puzzle_examples is None"),
        (_metadata(sets=[]), "sets is [], expected one or more plain names"),
        (_metadata(sets=["../all"]), "sets is ['../all']"),
        (_metadata(sets=["all", "more"]), "more__labels: there is no file more__labels.npy"),
        (_arrays(labels=lambda x: x[:-1]), "labels: shape is (23, 16), that of inputs (24, 16)"),
        (_arrays(labels=lambda x: x.astype(float)), "labels: is float64 (24, 16), expected"),
        (_arrays(inputs=lambda x: x[:0]), "inputs: there are no examples"),
        (_arrays(puzzle_identifiers=lambda x: x + 1), "puzzle_identifiers, row 23: 1 is outside"),
        (_arrays(puzzle_indices=lambda x: x + 1), "puzzle_indices, row 0: begins with 1"),
        (_arrays(puzzle_indices=lambda x: x[:-1]), "puzzle_indices: has 24 entries, expected one"),
        (_arrays(group_indices=lambda x: x[::-1]), "group_indices, row 5: 14 follows 16"),
        (_arrays(group_indices=lambda x: x[:0]), "group_indices: is empty"),
        (_arrays(ratings=lambda x: x * np.nan), "ratings, row 0: nan is not finite"),
        (_arrays(ratings=lambda x: x[:3]), "ratings: 3 for 24 examples"),
    ],
)
def test_faults_of_the_format(change, wanted, copy, run):
    code, out, err = run(copy("sudoku", change), "--max_reports=1000")
    assert (code, err) == (1, "")
    assert wanted in out
    assert re.search(r"^[\d,]+ violations$", out.splitlines()[-1])


def test_all_faults_are_reported_even_beside_broken_metadata(copy, run):
    def change(arrays, metadata):
        metadata.clear()
        arrays["inputs"][2, 0] = -1
        arrays["labels"][[5, 9], 3] = 0
        arrays["ratings"][7] = np.inf

    folder = copy("sudoku", change)
    (folder / "train" / "all__group_indices.npy").write_bytes(b"\x93NUMPY")
    code, out, _ = run(folder, "--max_reports=100")
    assert code == 1
    for wanted in (
        *(f"dataset.json: the field {name} is missing" for name in ("vocab_size", "seq_len")),
        "inputs, row 2: position 0: -1 is outside [0, 6)",
        "labels, row 5: the answer is no full valid grid",
        "labels, row 9: the answer is no full valid grid",
        "group_indices: all__group_indices.npy is damaged or cut off",
        "ratings, row 7: inf is not finite",
    ):
        assert wanted in out
    (folder / "train" / "dataset.json").write_text("{")
    found = inspect(folder, max_reports=2)
    assert len(found.violations) == 2 < found.total
    assert found.violations[0].array == "dataset.json"
    assert found.violations[0].row is None
    (folder / "train" / "dataset.json").unlink()
    code, out, _ = run(folder, "--max_reports=1")
    assert code == 1
    assert "dataset.json: there is no such file" in out
    assert re.search(r"\.\.\. and \d+ more; see --max_reports", out)


def test_identity(sound, tmp_path, run):
    folder = shutil.copytree(sound / "domino", tmp_path / "domino")
    values = np.load(folder / "train" / "all__ratings.npy")
    np.save(folder / "train" / "all__ratings.npy", values + 1)
    code, out, _ = run(folder)
    assert code == 1
    assert "identity.json: sha256.train is " in out
    assert run(folder, "--split=test")[0] == 0
    shutil.copy(sound / "sudoku" / "identity.json", folder)
    assert "not those of sudoku, which identity.json says" in run(folder)[1]
    (folder / "identity.json").write_text("[]")
    assert "identity.json: data identity: expected the fields" in run(folder)[1]
    (folder / "identity.json").unlink()
    (folder / "identifiers.json").write_text("{}")
    assert "identifiers.json: expected a list of names" in run(folder)[1]
    (folder / "identifiers.json").write_text("{")
    assert "identifiers.json: not valid JSON" in run(folder)[1]


# --- faults of the puzzles ------------------------------------------------------------------------


def _sudoku_given(arrays, metadata):
    row = arrays["inputs"][1]
    place = int(np.argmax(row > 1))
    row[place] = 2 + (row[place] - 1) % 4


def _domino(**tokens):
    """Replaces row 2 by a position with the table 2|5 5|3 and the hand 2-3 0-2, then changes it."""

    def change(arrays, metadata):
        inputs, labels = np.zeros(72, int), np.zeros(72, int)
        inputs[:4], inputs[56:60], inputs[70:] = [3, 6, 6, 4], [3, 4, 1, 3], [3, 4]
        labels[:3] = [4, 3, 1]
        for name, value in tokens.items():
            target = inputs if name[0] == "x" else labels
            target[int(name[1:])] = value
        arrays["inputs"][2], arrays["labels"][2] = inputs, labels

    return change


def _maze_row(question, answer):
    def change(arrays, metadata):
        arrays["inputs"][1:], arrays["labels"][1:] = _maze(question), _maze(answer)

    return change


def _arc_row(question, answer):
    def change(arrays, metadata):
        arrays["inputs"][1], arrays["labels"][1] = question, answer

    return change


GRID, ONE = [[1, 2], [3, 4]], [[7]]
HOLE = _arc(GRID)[0]
HOLE[1] = 0
NO_END = _arc(GRID)[0]
NO_END[2] = 0
FAULTS = [
    ("sudoku", _sudoku_given, "labels, row 1: the answer changes a given"),
    ("sudoku", _put("inputs", 6, 0, 0), "inputs, row 6: a cell of the question is pad"),
    ("sudoku", _put("inputs", 6, [0, 1], 2), "inputs, row 6: a given digit stands twice"),
    ("sudoku", _put("labels", 23, 0, 1), "labels, row 23: the answer is no full valid grid"),
    ("domino", _domino(x1=0), "inputs, row 2: table: half a tile"),
    ("domino", _domino(x57=0), "inputs, row 2: hand: half a tile"),
    ("domino", _domino(x2=0, x3=0, x4=6, x5=4), "inputs, row 2: table: an empty place before"),
    ("domino", _domino(x58=0, x59=0, x60=1, x61=1), "inputs, row 2: hand: an empty place before"),
    ("domino", _domino(x56=0, x57=0, x58=0, x59=0), "inputs, row 2: hand: no tile in it"),
    ("domino", _domino(x2=5), "inputs, row 2: table: neighbouring tiles do not match"),
    ("domino", _domino(x70=4), "inputs, row 2: ends: are not those of the table"),
    ("domino", _domino(x58=6, x59=3), "inputs, row 2: a tile stands twice"),
    ("domino", _domino(y9=1), "labels, row 2: a label after the third is not ignored"),
    ("domino", _domino(y2=0), "labels, row 2: shows no move"),
    ("domino", _domino(y2=3), "labels, row 2: the move is not legal"),
    ("domino", _domino(y0=1, y1=3), "labels, row 2: the move is not optimal"),
    ("maze", _maze_row(QUESTION.replace("G", "S"), ANSWER), "inputs, row 1: S stands there not"),
    ("maze", _maze_row(QUESTION, ANSWER.replace("G", " ")), "labels, row 1: G stands there not"),
    ("maze", _maze_row(ANSWER, ANSWER), "inputs, row 1: the question shows path cells"),
    ("maze", _maze_row(QUESTION, ANSWER.replace("#", " ")), "labels, row 1: the answer changes"),
    ("maze", _maze_row(WALLED, WALLED), "inputs, row 1: no way leads"),
    ("maze", _maze_row(QUESTION, QUESTION), "labels, row 1: the path cells are not one path"),
    ("maze", _maze_row(QUESTION, LONGER), "labels, row 1: the path cells are not one path"),
    ("maze", _put("inputs", 0, 3, 0), "inputs, row 0: a cell of the question is pad"),
    ("arc", _arc_row(_arc(GRID)[0] * 0, _arc(ONE)[0]), "inputs, row 1: no colour in it"),
    ("arc", _arc_row(HOLE, _arc(ONE)[0]), "inputs, row 1: the colours are not one filled"),
    ("arc", _arc_row(_arc(ONE)[0], NO_END), "labels, row 1: end-of-sequence must stand"),
    ("arc", _arc_row(_arc(GRID)[0], _arc(ONE, at=(0, 4))[0]), "labels, row 1: question and answer"),
    ("arc", _put("inputs", 0, 500, 1), "inputs, row 0: end-of-sequence must stand"),
]


@pytest.mark.parametrize(("kind", "change", "wanted"), FAULTS)
def test_faults_of_the_puzzles(kind, change, wanted, copy, run):
    code, out, err = run(copy(kind, change), "--max_reports=100", "--num=3")
    assert (code, err) == (1, "")
    assert wanted in out
    rows = {line.split(":")[0].split("row ")[1] for line in out.splitlines() if ", row " in line}
    assert rows == {re.search(r"row (\d+)", wanted)[1]}  # the other rows are sound


def test_the_domino_row_that_faults_are_planted_in_is_sound(copy, run):
    assert run(copy("domino", _domino()))[0] == 0


def test_a_detour_is_not_a_shortest_path(copy, run):
    question = "S    " + "###  " + "G    " + "     " + "     "
    longer = "Soooo" + "###oo".replace("oo", " o") + "Goooo" + "     " + "     "
    code, out, _ = run(copy("maze", _maze_row(question, longer)))
    assert code == 1
    assert "labels, row 1: the path is not a shortest one" in out


def test_a_test_grid_with_an_offset(tmp_path, run):
    x, y = _arc(GRID, ONE, at=(1, 0))
    write_npy(tmp_path, "test", PuzzleSet.simple([x], [y], 12, 0))
    code, out, _ = run(tmp_path, "--split=test")
    assert code == 1
    assert "inputs, row 0: the grid of a test example must stand top left" in out


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["none"], "none: no such folder"),
        (["{sound}", "--split=dev"], "dev: no split of a data set"),
        (["{sound}", "--num=-1"], "num is -1"),
        (["{sound}", "--max_reports=0"], "max_reports 0"),
    ],
)
def test_bad_input(flags, message, sound, run):
    code, out, err = run(*(flag.format(sound=sound / "domino") for flag in flags))
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("inspect_dataset: error: ")
    assert err.count("\n") == 1


def test_missing_arguments_and_the_library_call(run, tmp_path):
    assert run()[0] == 2
    with pytest.raises(DataError, match="no split of a data set"):
        inspect(tmp_path)

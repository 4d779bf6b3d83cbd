"""launch/view.py: pages of runs and of data sets, and what it refuses."""

import base64
import dataclasses
import json
import re
import zlib

import numpy as np
import pytest

from hrm_jax.data.npy_folder import PuzzleSet, write_npy


@pytest.fixture
def view(script, capsys):
    """Runs the script: (exit code, stdout, stderr)."""

    def call(*argv):
        return script("view").main([str(x) for x in argv]), *capsys.readouterr()

    return call


def _stored(path):
    return json.loads(re.search('id="data">(.*?)</script>', path.read_text("utf-8"))[1])["page"]


def test_a_run(view, trained, tmp_path):
    output = tmp_path / "view.html"
    code, out, _ = view("--workdir", trained, "--num=3", "--max_steps=4", "--output", output)
    assert code == 0
    assert out.splitlines() == [str(output), f"Open it in a browser: {output.as_uri()}"]
    page = _stored(output)
    assert (page["look"]["kind"], page["total"], page["count"]) == ("sudoku", 8, 3)
    boards = page["arrays"]["boards"]
    assert boards["shape"] == [3, 4, 16]
    assert len(zlib.decompress(base64.b64decode(boards["data"]))) == 3 * 4 * 16


def test_a_data_set(view, trained, tmp_path):
    output, title = tmp_path / "view.html", "</script><b> & \u2028"
    code, _, _ = view("--dataset", trained / "data", "--split=train", "--kind=tokens",
                      "--title", title, "--output", output)  # fmt: skip
    page = _stored(output)
    assert (code, page["count"], page["look"]["kind"]) == (0, 16, "tokens")
    assert page["title"] == title
    assert "boards" not in page["arrays"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --workdir .* or both"),
        (["--workdir=none"], "none: not the workdir of a run"),
        (["--dataset=none"], "none: no such file or folder"),
        (["--dataset=DATA", "--num=0"], "--num: expected at least 1, got 0"),
        (["--dataset=DATA", "--output=FOLDER"], "is a folder; expected the name"),
        (["--workdir=RUN", "--dataset=OTHER"], "36 tokens of a vocabulary of 8, but the model"),
        (["--workdir=RUN", "--max_steps=0"], "--max_steps: expected at least 1"),
        (["--workdir=RUN", "--checkpoint=9"], "no checkpoint 9; there are: 2, 4"),
        (["--dataset=EMPTY"], r"dataset\.json: there is no such file"),
    ],
)
def test_errors(flags, message, view, trained, tmp_path):
    other = PuzzleSet.simple(np.ones((1, 36), int), np.ones((1, 36), int), 8, 0)
    write_npy(tmp_path / "other", "test", other)
    (tmp_path / "empty").mkdir()
    names = {"DATA": trained / "data", "RUN": trained, "OTHER": tmp_path / "other",
             "FOLDER": tmp_path, "EMPTY": tmp_path / "empty"}  # fmt: skip
    flags = [re.sub("[A-Z]{3,}", lambda match: str(names[match[0]]), flag) for flag in flags]
    if not any(flag.startswith("--output") for flag in flags):
        flags.append(f"--output={tmp_path / 'view.html'}")
    code, out, err = view(*flags)
    assert (code, out) == (2, "")
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert not (tmp_path / "view.html").exists()


def test_an_identifier_the_model_does_not_know(view, trained, tmp_path):
    puzzles = PuzzleSet.simple(np.ones((1, 16), int), np.ones((1, 16), int), 6, 0)
    puzzles = dataclasses.replace(
        puzzles,
        puzzle_identifiers=np.int32([5]),
        metadata=dataclasses.replace(puzzles.metadata, num_puzzle_identifiers=6),
    )
    write_npy(tmp_path, "test", puzzles)
    code, _, err = view("--workdir", trained, "--dataset", tmp_path)
    assert code == 2
    assert "puzzle identifier 5 is not one of the 1 that the model knows" in err

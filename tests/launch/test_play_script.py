"""What a run of mazes or dominoes tells at its end, and launch/play.py on its workdir."""

import io
import json
import re
import sys

import pytest
from PIL import Image

pytestmark = pytest.mark.slow  # trains a run of each kind


@pytest.fixture
def play(script, capsys, monkeypatch):
    """Runs the script with lines on stdin: (exit code, stdout, stderr)."""

    def call(workdir, *flags, typed=()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in typed)))
        capsys.readouterr()
        try:
            code = script("play").main(["--workdir", str(workdir), *map(str, flags)])
        except SystemExit as leaving:  # argparse
            code = leaving.code
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("task", "shown"),
    [
        ("sudoku", r"after each ACT step:\n +ACT step 1/\d"),
        ("maze", r"after each ACT step:\n *ACT step 1/\d[^+]*\n\+-----\+"),
        ("domino", r"One of them, and the model's answer:\ntable .*\nhand .*\nmove .*\n"),
    ],
)
def test_report(task, shown, finished):
    workdir, report = finished(task)
    assert re.search(r"Held-out puzzles solved: [\d.]+% of 8 ", report)
    assert re.search(shown, report), report
    assert f"python launch/play.py --workdir={workdir}" in report
    assert ("answers that are optimal" in report) == (task != "sudoku")
    with Image.open(workdir / "plots" / "contact_sheet.png") as image:
        assert image.width > 1000
    assert (workdir / "plots" / "reasoning.gif").exists() == (task != "domino")
    assert re.search(rf'launch/solve.py --workdir={workdir} --trace ".*"', report)


def test_dominoes(finished, play):
    workdir, _ = finished("domino")
    code, out, err = play(workdir, "--seed=3", "--opponents=greedy", typed=["help", "x", "quit"])
    assert (code, err) == (0, "")
    assert "Dominoes with" in out
    assert "greedy" in out.splitlines()[0]
    assert out.endswith("\nBye.\n")
    assert play(workdir, "--seed=3", "--opponents=greedy", typed=["help", "x"])[1] == out
    code, out, _ = play(workdir, "--players=3", "--passing", typed=[])
    assert "who cannot lay a tile passes" in out
    assert "model 2" in out


def test_strength(finished, play, tmp_path):
    workdir, _ = finished("domino")
    flags = ["--games=20", "--passing", "--opponents=greedy", "--output", tmp_path / "s.json"]
    code, out, _ = play(workdir, *flags)
    assert code == 0
    found = json.loads(out.splitlines()[-1])
    assert json.loads((tmp_path / "s.json").read_text()) == found
    assert [(m["player"], m["opponent"]) for m in found["matches"]] == [
        ("model", "greedy"),
        ("greedy", "random"),
    ]
    model = found["matches"][0]["result"]["players"][0]
    assert model["low"] <= model["win_rate"] == model["wins"] / 20 <= model["high"]
    row = rf"model +greedy +passing +20 +{model['win_rate']:.1%} +{model['low']:.1%} to "
    assert re.search(row, out)


def test_sudoku_and_mazes(finished, play):
    workdir, _ = finished("sudoku")
    typed = ["1...", "....", "....", "2...", "example", "quit"]
    code, out, _ = play(workdir, "--max_steps=2", "--halting=fixed", "--seed=0", typed=typed)
    assert code == 0
    assert out.count("ACT step 2/2") == 2
    assert out.count("After 2 ACT steps: The board ") == 2
    assert "\x1b" not in out
    workdir, _ = finished("maze")
    code, out, _ = play(workdir, "--max_steps=1", typed=["example"])
    assert code == 0
    assert "ACT step 1/1" in out
    assert out.endswith("\nBye.\n")


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("domino", ["--players=2", "--opponents=greedy"], "1 opponents are 3"),
        ("domino", ["--opponents=best"], "'best': expected some of random, greedy"),
        ("domino", ["--games=0"], "--games: expected at least 1, got 0"),
        ("domino", ["--delay=-1"], "--delay: expected 0 to 60"),
        ("domino", ["--checkpoint=3"], "no checkpoint 3"),
        ("maze", ["--games=5"], "maze puzzles have no such game"),
    ],
)
def test_errors(task, flags, message, finished, play):
    code, out, err = play(finished(task)[0], *flags)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err

"""The command lines: what they print, what they leave, how they fail."""

import io
import json
import pathlib
import re
import sys

import forked
import numpy as np
import pytest
from PIL import Image

import hrm_jax
from hrm_jax.trained.evaluate import held_out

ROOT = pathlib.Path(__file__).parents[2]
PUZZLE = "1...........2..."


@pytest.fixture
def run(script, capsys):
    """Runs a script's main() in this process: (exit code, stdout, stderr)."""

    def call(name, *argv):
        try:
            code = script(name).main([str(x) for x in argv])
        except SystemExit as leaving:  # argparse
            code = leaving.code
        return code, *capsys.readouterr()

    return call


def _assert_one_line(result, message):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert re.search(message, err), err
    assert "Traceback" not in err
    assert err.count("\n") == 1


# --- evaluate -------------------------------------------------------------------------------------


def test_evaluate(run, trained, tmp_path):
    code, out, _ = run("evaluate", "--workdir", trained, "--output", tmp_path / "figures.json")
    assert code == 0
    figures = json.loads(out.splitlines()[-1])
    assert figures["eval/puzzles"] == 8
    assert re.search(r"eval/exact_accuracy +0\.\d{4}\n", out)
    assert re.search(r"after step 3 +0\.\d{4}\n", out)
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    code, out, _ = run("evaluate", "--workdir", trained, "--checkpoint", 2, "--halting=fixed",
                       "--max_steps=5", "--limit=3", "--data", trained / "data")  # fmt: skip
    figures = json.loads(out.splitlines()[-1])
    assert (code, figures["eval/puzzles"], figures["eval/steps"]) == (0, 3, 5)


def test_evaluate_saves_what_the_model_answered(run, trained, tmp_path):
    path = tmp_path / "new" / "answers.npz"
    flags = ["--workdir", trained, "--limit=5", "--halting=fixed", "--max_steps=2"]
    code, out, _ = run("evaluate", *flags, "--save_outputs", path, "--save_logits")
    assert code == 0
    saved = dict(np.load(path))
    figures = json.loads(out.splitlines()[-1])
    test = held_out(trained)
    np.testing.assert_array_equal(saved["inputs"], test.inputs[:5])
    np.testing.assert_array_equal(saved["labels"], test.labels[:5])
    np.testing.assert_array_equal(saved["answers"], saved["logits"].argmax(-1))
    assert (saved["answers"] == saved["labels"]).mean() == pytest.approx(figures["eval/accuracy"])
    assert (saved["logits"].dtype, saved["logits"].shape) == (np.float32, (5, 16, 6))
    assert saved["steps"].tolist() == [2] * 5
    # The logits of the answer are those of the last step, as one step after the other gives them.
    model = hrm_jax.load(trained)
    batch = {"inputs": saved["inputs"].astype(np.int32), "puzzle_identifiers": np.zeros(5, int)}
    carry = model.initial_carry(batch)
    for _ in range(2):
        carry, out = model.act_step(carry, batch)
    np.testing.assert_allclose(saved["logits"], out.logits, atol=1e-5)
    np.testing.assert_allclose(saved["q_halt"], out.q_halt, atol=1e-5)

    assert run("evaluate", *flags, "--save_outputs", path, "--votes=3")[0] == 0
    voted = dict(np.load(path))
    assert "logits" not in voted
    assert (voted["votes"].shape, voted["votes_q_halt"].shape) == ((3, 5, 16), (3, 5))
    np.testing.assert_array_equal(voted["votes"][0], saved["answers"])


def test_evaluate_by_vote(run, trained, tmp_path):
    flags = ["--votes=2", "--last=2", "--verify", "--max_steps=4", "--limit=4"]
    code, out, _ = run(
        "evaluate", "--workdir", trained, *flags, "--output", tmp_path / "figures.json"
    )
    assert code == 0
    figures = json.loads(out.splitlines()[-1])
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    names = list(figures)
    assert names.index("eval/puzzles_per_second") < names.index("voted/exact_accuracy")
    assert names.index("voted/exact_accuracy") < names.index("verified/exact_accuracy")
    assert figures["voted/votes"] == 4
    assert re.search(r"voted/steps +\d+\.\d{4}\n", out)


def test_evaluate_by_search(run, trained, tmp_path):
    path = tmp_path / "outputs.npz"
    flags = ["--workdir", trained, "--max_steps=2", "--limit=4", "--save_outputs", path]
    code, out, _ = run("evaluate", *flags, "--search=50")
    assert code == 0
    figures = json.loads(out.splitlines()[-1])
    assert figures["eval/exact_accuracy"] == 0 < figures["searched/exact_accuracy"]
    assert figures["searched/exact_accuracy"] == figures["searched/obeys"]
    assert 1 < figures["searched/questions"] <= 50
    assert figures["searched/steps"] <= 2 * figures["searched/questions"]
    saved = dict(np.load(path))
    assert (saved["searched"] == saved["labels"]).all(1).mean() == figures[
        "searched/exact_accuracy"
    ]
    for name in ("questions", "steps"):
        assert saved[f"searched_{name}"].mean() == figures[f"searched/{name}"]
    names = {name for name in figures if name.startswith("searched/")}
    assert names == {
        f"searched/{x}"
        for x in ("exact_accuracy", "accuracy", "blank_accuracy", "obeys", "questions", "steps")
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--search=9", "--votes=2", "--verify"], "error: search: .*; votes, verify not with it"),
        (["--search=-3"], "error: search: expected a number of questions, .* got -3"),
        (["--checkpoint=3"], "error: .*no checkpoint 3; there are: 2, 4"),
        (["--data=none.csv"], "error: none.csv: no such file"),
        (["--max_steps=0"], "error: max_steps: expected at least 1"),
        (["--slots=0"], "error: .*slots"),
        (["--limit=0"], "error: .*limit"),
        (["--votes=0"], "error: votes: expected at least 1"),
        (["--last=3"], "error: .*last=3, but the checkpoints there are: 2, 4"),
        (["--save_outputs=x.csv"], r"error: save_outputs: x\.csv: expected .* ends in \.npz"),
        (["--save_logits"], "error: save_logits: there is no save_outputs"),
        (["--last=2", "--checkpoint=4"], "error: .*give one or the other"),
    ],
)
def test_evaluate_errors(flags, message, run, trained):
    _assert_one_line(run("evaluate", "--workdir", trained, *flags), message)


@pytest.mark.parametrize("name", ["evaluate", "solve", "export"])
def test_a_missing_workdir(name, run, tmp_path):
    more = {"solve": [PUZZLE], "export": ["--output", tmp_path / "x.safetensors"]}.get(name, [])
    result = run(name, "--workdir", tmp_path / "none", *more)
    _assert_one_line(result, "none: not the workdir of a run")


# --- solve ----------------------------------------------------------------------------------------


def test_solve_from_argument_file_and_stdin(run, trained, tmp_path, monkeypatch):
    code, out, _ = run("solve", "--workdir", trained, PUZZLE)
    assert code in (0, 1)
    line = r"[1-4?]{16}  steps=\d  (satisfies|BREAKS) the rules\n"
    assert re.fullmatch(line, out)
    assert (code == 0) == ("satisfies" in out)
    (tmp_path / "puzzles.txt").write_text(f"{PUZZLE}\n\n{PUZZLE.replace('.', '0')}\n")
    _, both, _ = run("solve", "--workdir", trained, tmp_path / "puzzles.txt")
    assert both == out + out
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PUZZLE}\n"))
    _, piped, _ = run("solve", "--workdir", trained)
    assert piped == out


def test_solve_names_bad_lines_and_solves_the_others(run, trained, tmp_path):
    _, one, _ = run("solve", "--workdir", trained, PUZZLE)
    path = tmp_path / "puzzles.txt"
    rows = "\n".join(PUZZLE[start : start + 4] for start in range(0, 16, 4))
    path.write_text(f"\ufeff# mine\n{PUZZLE}:1:x\n11{PUZZLE[2:]}\n{rows}\n", encoding="utf-8")
    code, out, err = run("solve", "--workdir", trained, path)
    assert (code, out) == (2, one * 2)
    assert err.startswith(f"error: {path}:3: digit 1 stands twice in row 1: ")
    assert err.count("\n") == 1
    path.write_text("123\n" * 50)
    code, out, err = run("solve", "--workdir", trained, path)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "error: … and 30 more"


def test_solve_with_traces(run, trained, tmp_path):
    flags = ["--workdir", trained, "--halting=fixed", "--max_steps=3"]
    _, out, _ = run("solve", *flags, PUZZLE, "--trace")
    assert [f"ACT step {k}/3" in out for k in (1, 2, 3)] == [True] * 3
    assert run("solve", *flags, "--trace", PUZZLE)[1] == out  # as the end of training proposes it
    for suffix, frames in (("png", 1), ("gif", 2)):
        path = tmp_path / f"trace.{suffix}"
        _, out, _ = run("solve", *flags, PUZZLE, f"--trace={path}")
        assert f"drawn: {path}" in out
        with Image.open(path) as image:
            assert getattr(image, "n_frames", 1) >= frames
    (tmp_path / "two.txt").write_text(f"{PUZZLE}\n{PUZZLE}\n")
    run("solve", *flags, tmp_path / "two.txt", f"--trace={tmp_path / 'both.png'}")
    assert (tmp_path / "both-1.png").exists()
    assert (tmp_path / "both-2.png").exists()


def test_solve_by_vote(run, trained):
    flags = ["--votes=2", "--verify", "--last=2", "--max_steps=3", "--trace"]
    code, out, _ = run("solve", "--workdir", trained, PUZZLE, *flags)
    line = r"[1-4?]{16}  steps=(\d)  votes=([1-4])/4  passes=(\d+)  (satisfies|BREAKS) the rules"
    found = re.fullmatch(line, out.splitlines()[0])
    assert (code == 0) == (found[4] == "satisfies")
    assert 4 <= int(found[3]) <= 12
    assert out.count("ACT step") == int(found[1])


def test_solve_by_search(run, trained):
    code, out, _ = run("solve", "--workdir", trained, PUZZLE, "--search=500", "--max_steps=1")
    line = r"[1-4]{16}  steps=1  questions=(\d+)  passes=(\d+)  satisfies the rules\n"
    found = re.fullmatch(line, out)
    assert code == 0
    assert found[1] == found[2]
    assert int(found[1]) > 1


@pytest.mark.slow
def test_solve_and_evaluate_mazes(run, finished, tmp_path):
    workdir, _ = finished("maze")
    maze = "    S" + "#### " + "     " + " ####" + "    G"
    (tmp_path / "mazes.txt").write_text(f"{maze}\n{maze}\n")
    flags = ["--workdir", workdir, "--max_steps=2", "--halting=fixed"]
    code, out, _ = run("solve", *flags, tmp_path / "mazes.txt")
    line = r"[?# SGo]{25}  steps=2  (satisfies|BREAKS) the rules\n"
    assert re.fullmatch(line * 2, out)
    code, one, _ = run("solve", *flags, maze, "--trace", "--votes=2", "--verify")
    assert code in (0, 1)
    assert [f"ACT step {k}/2" in one for k in (1, 2)] == [True] * 2
    result = run("solve", *flags, maze, "--search=9")
    _assert_one_line(result, "error: search: guesses at maze puzzles cannot be checked")
    figures = json.loads(run("evaluate", *flags, "--votes=2", "--verify")[1].splitlines()[-1])
    assert figures["voted/steps"] == 4
    for name in ("voted/valid", "voted/optimal", "verified/optimal", "verified/exact_accuracy"):
        assert 0 <= figures[name] <= 1
    for bad, message in (
        (maze[1:], "board has 24 characters, expected 25"),
        (maze.replace("S", " "), "error: maze: there is no S"),
        (maze.replace("#", "x"), "'x' is illegal, expected one of"),
        ("#" * 400, "board has 400 characters, expected 25"),
    ):
        _assert_one_line(run("solve", *flags, bad), message)
    run("solve", *flags, maze, f"--trace={tmp_path / 'maze.gif'}")
    with Image.open(tmp_path / "maze.gif") as image:
        assert image.n_frames == 2


@pytest.mark.slow
def test_solve_and_evaluate_dominoes(run, finished, tmp_path):
    workdir, _ = finished("domino")
    flags = ["--workdir", workdir, "--max_steps=2", "--halting=fixed"]
    code, out, _ = run("solve", *flags, "table 2|5 5|3; hand 2|3 0|2", "--trace", "--votes=3")
    line = r"[0-6?]\|[0-6?] (first|at the \S+ end)  steps=2  votes=[1-3]/3  passes=6  (sat|BREAKS)"
    assert re.match(line, out)
    assert [f"ACT step {k}/2" in out for k in (1, 2)] == [True] * 2
    assert out.count("hand   2-3 0-2") == 2
    assert (code == 0) == ("satisfies" in out)
    figures = json.loads(run("evaluate", *flags, "--votes=2", "--verify")[1].splitlines()[-1])
    assert figures["verified/legal"] >= figures["voted/legal"] >= 0
    _assert_one_line(run("solve", *flags, "table 2|5 3|3; hand 2|3"), "neighbours do not match")
    run("solve", *flags, "hand 2|3", f"--trace={tmp_path / 'x.png'}")
    assert (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([PUZZLE, "--votes=0"], "votes: expected at least 1"),
        ([PUZZLE, "--last=5"], "last=5, but the checkpoints there are: 2, 4"),
        ([PUZZLE, "--last=2", "--checkpoint=best"], "--last=2 and --checkpoint=best"),
        (["123"], "error: board has 3 characters, expected 16; nor is there a file of that name"),
        (
            ["sudokus.txt"],
            r"error: sudokus\.txt: there is no such file, and as a puzzle: board has",
        ),
        (["data/sudokus"], "error: data/sudokus: there is no such file, and as a puzzle: "),
        (["."], r"error: \.: is a folder, expected a file of puzzles"),
        ([PUZZLE, "--seed=3"], "error: --seed=3 has no effect: it draws symmetries, --votes is 1"),
        (["11.............."], "error: digit 1 stands twice in row 1"),
        ([PUZZLE, "--trace=x.jpg"], r"expected a name ending in \.png or \.gif"),
        ([PUZZLE, "--max_steps=0"], "max_steps"),
    ],
)
def test_solve_errors(argv, message, run, trained):
    _assert_one_line(run("solve", "--workdir", trained, *argv), message)


def test_solve_without_puzzles(run, trained, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    _assert_one_line(run("solve", "--workdir", trained), "-: no puzzles in it")


# --- export ---------------------------------------------------------------------------------------


def test_export(run, trained, tmp_path):
    path = tmp_path / "model.safetensors"
    code, out, _ = run("export", "--workdir", trained, "--output", path, "--checkpoint=best")
    assert code == 0
    assert out.splitlines() == [str(path), str(tmp_path / "model.config.yaml")]
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=numpy", "--output=model.safetensors"], "model.safetensors"),
        (["--checkpoint=3", "--output=model.safetensors"], "no checkpoint 3; there are: 2, 4"),
    ],
)
def test_export_errors(flags, message, run, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _assert_one_line(run("export", "--workdir", trained, *flags), message)
    assert list(tmp_path.iterdir()) == []


# --- train ----------------------------------------------------------------------------------------


@pytest.fixture
def train(child):
    """Runs train.py in a process of its own, since flags of absl live once in a process."""

    def run(*flags, devices=1):
        return forked.run([ROOT / "launch" / "train.py", *flags], environment=child(devices))

    return run


TINY = [
    "--config.data.size=4", "--config.data.num_train=16", "--config.data.num_test=8",
    "--config.model.hidden_size=32", "--config.model.puzzle_emb_ndim=32",
    "--config.model.H_layers=1", "--config.model.L_layers=1", "--config.batch_size=8",
    "--config.microbatch_size=0", "--config.data.givens=(6,10)", "--config.steps=4",
    "--config.eval_max_steps=12", "--config.model.halt_threshold=99.0",
]  # fmt: skip


@pytest.mark.slow
def test_train_from_preset_to_plots_and_then_on_other_devices(tmp_path, train):
    flags = [f"--config={ROOT / 'configs' / 'sudoku.py'}:hrm6", f"--workdir={tmp_path}", *TINY]
    done = train(*flags)
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert re.search(r"Preset: hrm6", out)
    assert re.search(r"[\d,]+ parameters; 4 steps of 8 puzzles on 1 ×", out)
    assert re.search(r"Held-out puzzles solved: [\d.]+% of 8", out)
    assert "Solved after 1, 2, 4, 8, 12 ACT steps: " in out
    assert re.search(r"board after each of the first 8 ACT steps:\n +ACT step 1/8 ", out)
    assert "Traceback" not in done.stderr
    for name in ("plots/loss.png", "plots/accuracy.png", "plots/reasoning.gif", "best"):
        assert (tmp_path / name).exists(), name
    for command in re.findall(r"python (launch/\S+) --workdir=", out):
        assert (ROOT / command).exists()
    flags.append("--config.steps=6")
    done = train(*flags, devices=2)
    assert done.returncode == 0, done.stderr
    assert "Going on from step 4" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "flags", "message"),
    [
        ("sudoku.py:huge", [], r"sudoku.py:huge: unknown preset 'huge'; expected one of laptop, h"),
        ("sudoko.py", [], "No such file or directory: .*sudoko.py"),
        ("sudoku.py:laptop", ["--config.batchsize=4"], "'batchsize' Did you mean \"batch_size\""),
        ("sudoku.py:laptop", ["--config.steps=x"], "flag --config.steps=x: invalid literal"),
        ("sudoku.py:hrm6", ["--config.model.num_heads=3"], "error: config.model.num_heads: 3 does"),
        ("sudoku.py:laptop", ["--config.data.path=none"], "error: .*none"),
    ],
)
def test_train_errors(config, flags, message, tmp_path, train):
    done = train(f"--config={ROOT / 'configs' / config}", f"--workdir={tmp_path / 'run'}", *flags)
    assert re.search(message, done.stderr), done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    assert not (tmp_path / "run" / "checkpoints").exists()

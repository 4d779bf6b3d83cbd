"""The command lines on an ARC run."""

import json
import pathlib
import re
import shutil

import forked
import numpy as np
import pytest

from hrm_jax.models.act import Solved
from hrm_jax.puzzles.arc.puzzle import ARC
from hrm_jax.tasks.puzzles import model

ROOT = pathlib.Path(__file__).parents[2]
DATA = {"num_train": 6, "num_test": 3, "num_aug": 2, "test_aug": 1, "side": 4}


@pytest.fixture(scope="module")
def arc_run(tiny, start, tmp_path_factory):
    """The workdir of a finished run; tests may only read it."""
    workdir = tmp_path_factory.mktemp("arc") / "run"
    start(tiny(task="arc", data=DATA, steps=2, checkpoint_every=1), workdir)
    return workdir


@pytest.fixture
def run(script, capsys):
    """Runs a script's main() in this process: (exit code, stdout, stderr)."""

    def call(name, *argv):
        code = script(name).main([str(x) for x in argv])
        return code, *capsys.readouterr()

    return call


def _figures(out):
    return json.loads(out.splitlines()[-1])


def test_evaluate_and_submit(run, arc_run, tmp_path):
    path = tmp_path / "new" / "submission.json"
    code, out, _ = run("evaluate", "--workdir", arc_run, "--submission", path)
    assert code == 0
    logged = json.loads((arc_run / "metrics.jsonl").read_text().splitlines()[-1])
    figures = _figures(out)
    for name in ("pass_at_1", "pass_at_2", "cell_accuracy", "exact_accuracy", "copy_cell_accuracy"):
        assert re.search(rf"eval/{name} +\d\.\d{{4}}\n", out)
        assert figures[f"eval/{name}"] == logged[f"eval/{name}"]
    answers = json.loads(path.read_text())
    test = ARC.read_both(arc_run / "data")[1]
    assert list(answers) == [question.task for question in test.questions.items]
    for (attempts,) in answers.values():
        assert set(attempts) == {"attempt_1", "attempt_2"}
        for grid in attempts.values():
            assert {len(row) for row in grid} == {len(grid[0])}
            assert {0 <= colour <= 9 for row in grid for colour in row} == {True}
    code, out, _ = run("evaluate", "--workdir", arc_run, "--submission", path, "--limit=2")
    assert _figures(out)["eval/puzzles"] == 2
    assert list(json.loads(path.read_text())) == list(answers)[:1]


def test_checkpoints_vote_together(run, arc_run, tmp_path, monkeypatch):
    path = tmp_path / "submission.json"
    flags = ["--workdir", arc_run, "--submission", path]
    plain = _figures(run("evaluate", *flags)[1])
    alone = path.read_text()
    code, out, _ = run("evaluate", *flags, "--last=2")
    figures = _figures(out)
    assert code == 0
    assert figures["voted/votes"] == 2
    assert figures["voted/steps"] >= figures["eval/steps"] + 1
    assert set(figures) - set(plain) == {
        *("voted/pass_at_1", "voted/pass_at_2", "voted/cell_accuracy"),
        *("voted/votes", "voted/steps"),
    }
    # The older one is made to know the answers, and to be sure of them.
    test = ARC.read_both(arc_run / "data")[1]
    real = model.solve_puzzles

    def solve_puzzles(config, variables, inputs, identifiers, **options):
        if options.get("trace"):  # the newer one, whose answers are evaluated alone too
            return real(config, variables, inputs, identifiers, **options)
        np.testing.assert_array_equal(identifiers, test.example_identifiers())
        count = len(inputs)
        return Solved(test.labels, np.ones(count, int), np.full(count, 99.0), None, count)

    monkeypatch.setattr(model, "solve_puzzles", solve_puzzles)
    figures = _figures(run("evaluate", *flags, "--last=2")[1])
    assert figures["voted/pass_at_1"] == figures["voted/cell_accuracy"] == 1
    assert figures["eval/pass_at_1"] == plain["eval/pass_at_1"] < 1
    answers = json.loads(path.read_text())
    assert path.read_text() != alone
    for question in test.questions.items:
        assert answers[question.task][0]["attempt_1"] == question.answer.tolist()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--votes=2", "ARC's evaluation votes over its augmentations by itself"),
        ("--verify", "answers to arc puzzles cannot be checked without the label"),
    ],
)
def test_what_arc_votes_on_by_itself(flag, message, run, arc_run):
    code, out, err = run("evaluate", "--workdir", arc_run, flag)
    assert (code, out) == (2, "")
    assert message in err


def test_more_augmentations_of_the_same_tasks(run, arc_run, tmp_path):
    ARC.build(tmp_path / "all", ARC.data(**{**DATA, "test_aug": -1}))
    code, out, _ = run("evaluate", "--workdir", arc_run, "--data", tmp_path / "all")
    assert (code, _figures(out)["eval/puzzles"]) == (0, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "its 28 puzzle identifiers are not the 28 that"),
        ({"num_aug": 1}, "its 19 puzzle identifiers are not the 28 that"),
    ],
)
def test_tasks_that_the_run_does_not_know(change, message, run, arc_run, tmp_path):
    ARC.build(tmp_path / "other", ARC.data(**{**DATA, **change}))
    code, out, err = run("evaluate", "--workdir", arc_run, "--data", tmp_path / "other")
    assert (code, out) == (2, "")
    assert re.search(message, err), err


def test_what_cannot_be_submitted(run, arc_run, trained, tmp_path):
    for flags, message in (
        (
            ["--workdir", trained, "--submission", tmp_path / "x.json"],
            "answers to sudoku puzzles make none",
        ),
        (["--workdir", arc_run, "--submission", tmp_path], "is a folder, expected the name of a"),
        (["--workdir", arc_run, "--data=none"], "error: none: no such folder"),
    ):
        code, out, err = run("evaluate", *flags)
        assert (code, out) == (2, "")
        assert re.search(message, err), err
    assert not list(tmp_path.iterdir())


def test_tasks_are_no_text(run, arc_run):
    code, out, err = run("solve", "--workdir", arc_run, "123")
    assert (code, out) == (2, "")
    assert re.search("ARC tasks are not given as text: launch/evaluate.py --submission", err)


def test_inspect_and_view(run, arc_run, tmp_path):
    for split in ("train", "test"):
        code, out, _ = run("inspect_dataset", arc_run / "data", "--split", split, "--num=1")
        assert code == 0
        assert out.startswith("arc: ")
    code, _, err = run("view", "--workdir", arc_run, "--output", tmp_path / "view.html")
    assert code == 0, err
    page = (tmp_path / "view.html").read_text()
    assert '"kind":"arc"' in page
    assert "|||t" in page  # names of augmentations


@pytest.mark.slow
def test_train_from_preset_to_report(tmp_path, child):
    flags = [
        f"--config={ROOT / 'configs' / 'arc.py'}:laptop", f"--workdir={tmp_path / 'run'}",
        "--config.data.num_train=8", "--config.data.num_test=4", "--config.data.num_aug=1",
        "--config.data.families=mirror,keep", "--config.model.hidden_size=32",
        "--config.model.puzzle_emb_ndim=32", "--config.batch_size=8", "--config.steps=2",
        "--config.microbatch_size=0",
    ]  # fmt: skip
    done = forked.run([ROOT / "launch" / "train.py", *flags], environment=child())
    assert done.returncode == 0, done.stderr
    assert re.search(r"\(pass@2\): [\d.]+%\.\n", done.stdout), done.stdout
    assert re.search(r"copy the input: [\d.]+%\.\n", done.stdout)
    assert (tmp_path / "run" / "plots" / "accuracy.png").exists()
    shutil.rmtree(tmp_path / "run" / "data")  # made again, the same
    done = forked.run(
        [ROOT / "launch" / "evaluate.py", f"--workdir={tmp_path / 'run'}"], environment=child()
    )
    assert done.returncode == 0, done.stderr
    assert "eval/pass_at_2" in done.stdout

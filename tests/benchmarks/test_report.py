"""Saved tables: what they hold, what is refused, and the pages made of them."""

import argparse
import dataclasses
import datetime
import json
import re
import shutil
import subprocess
import sys

import jax
import pytest
import report


def _save(folder, name="engine", columns=("engine", "tokens/s"), gpu=None):
    """A saved table, as if it had been measured on a GPU of that kind."""
    table = report.Table(name, f"Title of {name}", columns)
    table.add(*("1" for _ in columns))
    table.save("", folder)
    path = folder / f"{name}.json"
    if gpu:
        values = json.loads(path.read_text())
        values["machine"] |= {"gpu": gpu, "gpus": 1}
        path.write_text(json.dumps(values))
    return path


def test_a_table_is_printed_as_it_grows_and_read_as_it_was_saved(tmp_path, monkeypatch, capsys):
    arguments = ["/anywhere/benchmarks/engine.py", "--requests=8", "--data=a file", "--save=x"]
    monkeypatch.setattr(sys, "argv", arguments)
    table = report.Table("engine", "Engine", ("engine", "tokens/s"), ["Greedy."])
    assert capsys.readouterr().out == "\nEngine\n\nGreedy.\n\n| engine | tokens/s |\n|---|---|\n"
    table.add("hrm_jax", 378)
    assert capsys.readouterr().out == "| hrm_jax | 378 |\n"
    table.notes.append("Seen later.")
    table.save("x", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    saved = report.read(tmp_path / "x.json")
    assert saved.rows == (("hrm_jax", "378"),)
    assert (saved.title, saved.columns) == ("Engine", ("engine", "tokens/s"))
    assert saved.notes == ("Greedy.", "Seen later.")
    assert saved.command == (
        "python benchmarks/engine.py --requests=8 '--data=a file' --save=x"
    )  # fmt: skip
    today = datetime.datetime.now(datetime.UTC).date()
    assert today - datetime.date.fromisoformat(saved.date) <= datetime.timedelta(days=1)
    assert saved.versions.jax == jax.__version__
    assert saved.machine.cores >= 1
    assert saved.machine.cpu
    assert (saved.machine.gpu is None) == (jax.default_backend() == "cpu")


def test_a_row_needs_a_cell_for_each_column():
    with pytest.raises(ValueError, match="table 'x': expected 2 cells, got 1"):
        report.Table("x", "X", ("a", "b")).add("1")


def test_save_flag(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    report.add_save_flag(parser)
    given = [parser.parse_args(argv).save for argv in ([], ["--save"], ["--save=x_1"])]
    assert given == [None, "", "x_1"]
    table = report.Table("x", "X", ())
    table.save(None, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit):
        parser.parse_args(["--save=../x"])
    assert "'../x': expected letters, digits and _" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("columns", None, r"columns: missing"),
        ("rows", [["1"]], r"rows\[0\]: expected 2 cells, one for each of the columns, got 1"),
        ("rows", [["1", 2]], r"rows\[0\]\[1\]: expected str, got 2"),
        ("date", "yesterday", r"date: expected YYYY-MM-DD, got 'yesterday'"),
        ("machine", {"cpu": "a processor"}, r"machine\.cores: missing"),
        ("version", {}, r"version'; did you mean 'versions'"),
    ],
)
def test_another_form_is_refused_with_file_and_field(tmp_path, field, value, message):
    path = _save(tmp_path)
    values = json.loads(path.read_text())
    values[field] = value
    if value is None:
        del values[field]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: table\.{message}"):
        report.render(tmp_path)


def test_a_damaged_file_is_refused(tmp_path, monkeypatch, capsys):
    path = _save(tmp_path)
    path.write_text(path.read_text()[:-20])
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    with pytest.raises(SystemExit) as leaving:
        report.main([])
    assert leaving.value.code == 2
    assert re.search(rf"{re.escape(str(path))}:\d+: not valid JSON", capsys.readouterr().err)


def test_a_section_has_origin_table_and_notes(tmp_path):
    path = _save(tmp_path, gpu="NVIDIA H200")
    saved = json.loads(path.read_text())
    machine = {"cpu": "EPYC", "cores": 16, "gpu": "NVIDIA H200", "gpus": 2}
    versions = {"python": "3.11.7", "jax": "0.10.2", "torch": "2.13"}
    saved |= {"machine": machine, "versions": versions, "date": "2026-01-02", "commit": "abc-dirty"}
    saved |= {"command": "python benchmarks/engine.py", "notes": ["One.", "Two."]}
    path.write_text(json.dumps(saved))
    assert (
        "## Title of engine\n\n"
        "`python benchmarks/engine.py`\\\n"
        "2 × NVIDIA H200; EPYC, 16 cores; Python 3.11.7, JAX 0.10.2, PyTorch 2.13; 2026-01-02; "
        "commit abc-dirty\n\n"
        "| engine | tokens/s |\n|---|---|\n| 1 | 1 |\n\n"
        "One.\n\nTwo.\n\n##"
    ) in report.render(tmp_path)[report.FIRST]


def test_cells_cannot_break_the_table(tmp_path, capsys):
    table = report.Table("x", "X", ("a|b",))
    for cell in ("1|2", r"1\|2", "1\n2", r"\alpha"):
        table.add(cell)
    table.save("", tmp_path)
    lines = [r"| a\|b |", "|---|", r"| 1\|2 |", r"| 1\\\|2 |", "| 1 2 |", r"| \alpha |"]
    assert "\n".join(lines) in capsys.readouterr().out
    assert "\n".join(lines) in report.render(tmp_path)[report.OTHERS]


def test_sections_are_in_order(tmp_path):
    first = ["sudoku_paper", "better_answers_mix", "engine", "hrm_step", "hrm_step_gpu"]
    others = ["attention", "scaling", "better_answers", "aardvark"]
    for name in sorted(first + others):
        _save(tmp_path, name)
    pages = report.render(tmp_path)
    for page, names in {report.FIRST: first, report.OTHERS: others}.items():
        assert re.findall("## Title of (.*)", pages[page]) == names


def test_what_is_not_measured_is_listed(tmp_path):
    def absent():
        listed = report.render(tmp_path)[report.FIRST].partition("## Not measured")[2]
        return {x.name for x in report.WANTED if f"`{x.command}`" in listed}

    everything = {x.name for x in report.WANTED}
    assert absent() == everything
    _save(tmp_path, "scaling")
    assert absent() == everything - {"scaling"}
    _save(tmp_path, "puzzle_table")
    _save(tmp_path, "attention")  # on a CPU
    assert absent() == everything - {"scaling"}
    _save(tmp_path, "puzzle_table", ("identifiers", "step ms"))
    _save(tmp_path, "attention", gpu="NVIDIA H200")
    assert absent() == everything - {"scaling", "puzzle_table", "attention"}
    for wanted in report.WANTED:
        _save(tmp_path, wanted.name, [wanted.column], gpu="NVIDIA H200")
    assert "Not measured" not in report.render(tmp_path)[report.FIRST]


def test_the_report_is_what_the_saved_tables_give():
    """Otherwise: python -m benchmarks.report."""
    assert report.main(["--check"]) == 0
    assert "**2.25×**" in (report.ROOT / report.FIRST).read_text(encoding="utf-8")


def test_check_fails_where_the_report_differs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    assert report.main(["--check"]) == 1
    assert not (tmp_path / report.FIRST).exists()
    assert report.main([]) == 0
    assert report.main(["--check"]) == 0
    _save(tmp_path)
    assert report.main(["--check"]) == 1
    assert "run python -m benchmarks.report" in capsys.readouterr().out


def test_commit(tmp_path, monkeypatch):
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert report.commit() is None

    def git(*arguments):
        settings = ["-c", "user.name=x", "-c", "user.email=x@x.example", "-c", "commit.gpgsign=no"]
        subprocess.run(["git", *settings, *arguments], cwd=tmp_path, check=True)

    (tmp_path / "program.py").write_text("1")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=x")
    clean = report.commit()
    assert re.fullmatch("[0-9a-f]{12}", clean)
    _save(tmp_path / "benchmarks" / "results")
    (tmp_path / "benchmarks" / "RESULTS.md").write_text("1")
    assert report.commit() == clean
    (tmp_path / "other.py").write_text("1")
    assert report.commit() == f"{clean}-dirty"


def test_versions_of_what_was_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    found = dataclasses.asdict(report.versions())
    assert found["torch"] is None
    assert found["flax"]

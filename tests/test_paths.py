"""`~` means the home folder wherever a user names a path."""

import argparse
import pathlib

import pytest

import hrm_jax
from hrm_jax import experiment, tasks
from hrm_jax.flags import add_fields, from_flags
from hrm_jax.paths import expanded, path_of
from hrm_jax.puzzles import PUZZLES
from hrm_jax.training.metrics import read_metrics
from hrm_jax.training.workdir import read_config


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_what_is_expanded(home):
    assert expanded("~/a b") == f"{home}/a b"
    assert expanded("~") == str(home)
    assert expanded("~/a,b,~/c") == f"{home}/a,b,{home}/c"
    for text in ("", "a~/b", "a/~", "~nobody-of-that-name/x", "-", "uno ~ dos"):
        assert expanded(text) == text
    assert path_of("~/run") == home / "run"


def test_fields_of_configs_and_flags(home, tiny):
    config = tiny(init_from="~/first", data={"train_csv": "~/a.csv", "test_csv": "~/b.csv"})
    parsed = tasks.parse(config)
    assert (parsed.init_from, parsed.data.test_csv) == (f"{home}/first", f"{home}/b.csv")
    parser = argparse.ArgumentParser()
    add_fields(parser, PUZZLES["arc"].data)
    args = parser.parse_args(["--training=~/a", "--training=~/b", "--evaluation=~/c"])
    data = from_flags(PUZZLES["arc"].data, args)
    assert (data.training, data.evaluation) == (f"{home}/a,{home}/b", f"{home}/c")


def test_workdirs(home, trained, tiny, tmp_path, monkeypatch):
    (home / "done").symlink_to(trained)
    assert read_config("~/done")["task"] == "sudoku"
    assert hrm_jax.load("~/done").config.seq_len == 16
    assert read_metrics("~/done/metrics.jsonl")
    folders = []
    monkeypatch.setattr(experiment, "run", lambda task, folder, **_: folders.append(folder))
    monkeypatch.setattr(experiment, "plot_run", lambda *_: None)
    experiment.train(tiny(), "~/new")
    assert folders == [home / "new"]
    assert not pathlib.Path("~").exists()

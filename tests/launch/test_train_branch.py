"""Branches from the command line: listed, checked, trained, resumed, rotated."""

import argparse
import dataclasses
import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

import hrm_jax
from hrm_jax.data.errors import DataError
from hrm_jax.data.text.branches import branch_folder, inspect_branch
from hrm_jax.interop.hugging_face import save_pretrained
from hrm_jax.models import language
from hrm_jax.models.transformer import TransformerConfig
from hrm_jax.trained import pretrained
from hrm_jax.trained.arguments import load_model
from hrm_jax.training import loop

ROOT = pathlib.Path(__file__).parents[2]
GPT2 = TransformerConfig(
    hidden_size=32, num_layers=1, num_heads=2, ffn_size=64, max_length=320, positions="learned",
    feed_forward="gelu", tie_head=True, dropout=0.0, init_std=0.3,
)  # fmt: skip
FAST = ("--lora", "--epochs=2", "--max-seq-length=96", "--batch-size=4")


@pytest.fixture(scope="module")
def launch():
    spec = importlib.util.spec_from_file_location("t_branch", ROOT / "launch" / "train_branch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_pretrained(folder, GPT2, language.init(GPT2, jax.random.key(0)), "bytes")
    return folder


@pytest.fixture
def root(tmp_path):
    """Two branches, the first in two files that are copies."""
    for name, files in (("physics", ("train", "premium")), ("music", ("train",))):
        folder = tmp_path / "branches" / name / "training" / "data"
        folder.mkdir(parents=True)
        for file in files:
            lines = [
                {"id": f"{name}_{i}", "branch": name, "language": "es",
                 "instruction": f"Di {i} de {name}", "input": "", "output": "sí" * 3}
                for i in range(12)
            ]  # fmt: skip
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / f"{file}.jsonl").write_text(text)
    return tmp_path / "branches"


def _spoil(root, name, **more):
    path = root / name / "training" / "data" / "train.jsonl"
    record = {"instruction": "a", "output": "b", **more}
    path.write_text(path.read_text() + json.dumps(record) + "\n")


def test_branches_are_listed(launch, root, capsys):
    assert launch(["--list-branches", f"--root={root}"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:5] == ["music", "1", "12", "12", "0"]
    assert lines[2][:5] == ["physics", "2", "24", "12", "0"]
    assert int(lines[2][5]) == 2 * (root / "physics/training/data/train.jsonl").stat().st_size
    _spoil(root, "music", branch="fisica")
    assert launch(["--list-branches", f"--root={root}"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[1].split()[1:5] == ["1", "13", "12", "1"]
    assert "train.jsonl:13: the record is of the branch 'fisica', expected 'music'" in said.err


def test_folders_are_checked_with_hints(root):
    with pytest.raises(DataError, match=r"no branch 'physic'; did you mean 'physics'\?"):
        branch_folder(root, "physic")
    (root / "art" / "training").mkdir(parents=True)
    (root / "art" / "training" / "a.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"art/training/data: .*; move .*a\.jsonl there"):
        branch_folder(root, "art")
    (root / "art" / "training" / "data").mkdir()
    with pytest.raises(DataError, match=r"there is no \.jsonl in it"):
        branch_folder(root, "art")
    with pytest.raises(DataError, match=r"no branch '\.\.'"):
        branch_folder(root, "..")
    assert len(inspect_branch(root, "physics").found) == 12


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--branch=physic"], "did you mean 'physics'"),
        (["--branch=physics", "--only=music"], "--only: has no effect without --all"),
        (["--list-branches", "--lora"], "--lora: has no effect: branches are listed"),
        (["--list-branches", "--lr=0.1"], "--lr: has no effect"),
        (["--all", "--skip=art"], "--skip: there is no branch 'art'; known: music, physics"),
        (["--all", "--only=music", "--skip=music"], "leave no branch to train"),
        (["--branch=physics", "--lora", "--model=nowhere"], "model: nowhere: no folder with a mod"),
        (["--branch=physics", "--lr=-1"], "optimizer.learning_rate: expected more than 0"),
    ],
)
def test_bad_flags_are_named(launch, root, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    assert launch([*flags, f"--root={root}"]) == 2
    assert message in capsys.readouterr().err


def test_a_branch_is_trained_kept_and_rotated(launch, root, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["--branch=physics", f"--root={root}", f"--model={model}", *FAST]
    assert launch([*given, "--merged", "--quick-test"]) == 0
    said = capsys.readouterr().out
    assert "Di " in said
    assert "physics" in said.splitlines()[-3]
    folder = tmp_path / "var" / "central_models" / "physics"
    current = folder / "current"
    names = {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"}
    names |= {"training_config.json", "training_metrics.json", "merged", "tokenizer_config.json"}
    names |= {"generation_config.json"}  # with the end token
    assert {x.name for x in current.iterdir()} == names
    config = json.loads((current / "training_config.json").read_text())
    assert config["training_params"]["epochs"] == 2
    assert (config["lora_config"]["r"], config["lora_config"]["lora_alpha"]) == (8, 16.0)
    assert (config["branch"], config["use_lora"]) == ("physics", True)
    metrics = json.loads((current / "training_metrics.json").read_text())
    assert metrics["eval/base_loss"] > metrics["eval/loss"] > 0
    assert metrics["eval/perplexity"] == pytest.approx(np.exp(metrics["eval/loss"]))
    assert 0 <= metrics["eval/stops"] <= 1
    assert (metrics["examples_trained"], metrics["examples_held_out"]) == (10, 2)
    [log] = (tmp_path / "var" / "central_logs").iterdir()
    assert log.name.startswith("training_physics_")
    assert "eval/base_loss" in log.read_text()
    # The merged model is that of the run.
    prompt = hrm_jax.load(folder / "run").generate("Di 3", temperature=0.0, max_new_tokens=8)
    merged = hrm_jax.trained.load.read_base(str(current / "merged"))
    assert merged.generate("Di 3", temperature=0.0, max_new_tokens=8).tokens == prompt.tokens

    assert launch([*given, "--resume"]) == 0
    assert "was trained already" in capsys.readouterr().out
    assert not (folder / "previous").exists()
    assert launch(given) == 0
    assert {"merged", "training_metrics.json"} <= {x.name for x in (folder / "previous").iterdir()}
    assert not (current / "merged").exists()
    assert sorted(x.name for x in folder.iterdir()) == ["current", "previous", "run"]


def test_an_unfinished_training_is_gone_on_with(root, model, tmp_path, launch, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["--branch=music", f"--root={root}", f"--model={model}", *FAST]
    save = loop._Run.save

    def interrupted(run):
        save(run)
        raise OSError("no space left")

    monkeypatch.setattr(loop._Run, "save", interrupted)
    assert launch(given) == 2
    monkeypatch.setattr(loop._Run, "save", save)
    assert launch(given) == 2  # unfinished
    assert not (tmp_path / "var/central_models/music/current").exists()
    assert launch([*given, "--resume"]) == 0
    assert (tmp_path / "var/central_models/music/current/adapter_config.json").exists()


def test_all_go_on_where_one_fails_and_compile_once(
    launch, root, model, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    bad = root / "art" / "training" / "data"
    bad.mkdir(parents=True)
    (bad / "a.jsonl").write_text('{"instruction": "a"}\n')
    compiled = []
    compile_step = loop.compile_step
    monkeypatch.setattr(
        loop, "compile_step", lambda *args: compiled.append(1) or compile_step(*args)
    )
    monkeypatch.setattr(loop, "_COMPILED", {})
    assert launch(["--all", f"--root={root}", f"--model={model}", *FAST]) == 1
    said = capsys.readouterr()
    assert len(compiled) == 1
    assert "2 trained, 1 failed" in said.out
    assert "there is no field 'output'" in said.err
    assert launch(["--all", f"--root={root}", f"--model={model}", *FAST, "--skip=art",
                   "--resume"]) == 0  # fmt: skip
    assert capsys.readouterr().out.count("was trained already") == 2


def test_without_adapters_the_model_itself_is_kept(launch, root, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [f"--root={root}", f"--model={model}", *FAST[1:], "--output=out"]
    assert launch(["--branch=music", *given]) == 0
    names = {x.name for x in (tmp_path / "out" / "current").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "adapter_config.json" not in names


def test_the_packaged_model_is_found_by_its_name(model, monkeypatch):
    monkeypatch.setattr(pretrained, "pretrained_folder", lambda name: model)
    pretrained.pretrained.cache_clear()
    found = hrm_jax.pretrained("spanish-gpt2")
    assert found.config.hidden_size == 32
    assert (found.name, found.tokenizer_name) == ("spanish-gpt2", "bytes")
    given = argparse.Namespace(
        workdir=None, checkpoint=None, model="spanish-gpt2", dtype="bfloat16"
    )
    narrow = load_model(given)  # as generate.py and serve.py do
    assert (narrow.name, narrow.tokenizer_name) == ("spanish-gpt2", "bytes")
    assert narrow.config == dataclasses.replace(found.config, dtype="bfloat16")
    assert {str(x.dtype) for x in jax.tree.leaves(narrow.variables)} == {"bfloat16"}
    pretrained.pretrained.cache_clear()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="'spanish': expected one of spanish-gpt2"):
        hrm_jax.pretrained("spanish")
    given.model = "spanish-gpt3"
    with pytest.raises(ValueError, match=r"spanish-gpt3: there is no such folder.* spanish-gpt2"):
        load_model(given)

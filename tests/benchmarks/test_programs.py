"""The benchmark programs run, and their figures are numbers that make sense; never how fast."""

import importlib
import json
from unittest import mock

import jax
import numpy as np
import pytest
from analysis import gpu_compiler

from hrm_jax.interop.hrm_names import to_reference
from hrm_jax.models import recurrent
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.tasks.puzzles.act_training import ACTTrainer, PuzzleOptimizerConfig, puzzle_weights
from hrm_jax.trained.evaluate import evaluate


def _main(name, *flags):
    """Runs a program in this process."""
    importlib.import_module(name).main(list(flags))


def _rows(printed):
    """Cells of the table that was printed, its header left out."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


SMALL = {
    "hidden_size": 32,
    "num_heads": 2,
    "H_layers": 1,
    "L_layers": 1,
    "H_cycles": 1,
    "L_cycles": 1,
    "q_target": "none",
    "forward_dtype": "float32",
}


def test_hrm_step(capsys):
    sizes = {"hidden": 32, "heads": 2, "layers": 1, "batch": 4, "microbatch": 2, "max_steps": 3}
    sizes |= {"size": 4, "puzzles": 6, "rounds": 1, "q_target": "none", "product": 64}
    _main("hrm_step", *(f"--{name}={value}" for name, value in sizes.items()))
    rows = _rows(capsys.readouterr().out)
    assert rows[0][0] == "training step"
    assert len(rows) == len({name for name, *_ in rows}) >= 7
    for _, value, unit in rows:
        assert float(value.replace(",", "")) > 0
        assert unit


def test_the_kept_table_of_lambda_is_drawn(tmp_path):
    _main("infinito", "--kept", f"--plot={tmp_path / 'plots' / 'lambda.png'}")
    assert (tmp_path / "plots" / "lambda.png").read_bytes().startswith(b"\x89PNG")


def test_better_answers(capsys, monkeypatch):
    """Evaluation, which has tests of its own, is taken by figures made up here."""

    def figures(workdir, data, votes=1, last=1, max_steps=3, **_):
        made = {"exact_accuracy": 0.5, "blank_accuracy": 0.75, "steps": votes * last * max_steps}
        names = ("eval",) if (votes, last) == (1, 1) else ("eval", "voted", "verified")
        found = {f"{name}/{key}": value for name in names for key, value in made.items()}
        return {**found, "eval/steps": max_steps, "voted/votes": votes, "eval/puzzles": 4}

    asked = mock.create_autospec(evaluate, side_effect=figures)
    monkeypatch.setattr("better_answers.evaluate", asked)
    monkeypatch.setattr("better_answers.read_config", lambda _: {"data": {"hints": 2}})
    flags = ["--votes=2", "--last=2", "--max_steps=4", "--limit=4", "--slots=4"]
    _main("better_answers", "--workdir=runs/any", *flags)
    assert all(call.kwargs["limit"] == call.kwargs["slots"] == 4 for call in asked.mock_calls)
    cells = _rows(capsys.readouterr().out)
    assert [row[1] for row in cells] == [
        "plain",
        "2 votes",
        "2 votes, verified",
        "plain, at most 4 steps",
        "2 votes, at most 4 steps",
        "2 votes, at most 4 steps, verified",
        "1 votes × 2 checkpoints",
        "1 votes × 2 checkpoints, verified",
        "2 votes × 2 checkpoints, at most 4 steps",
        "2 votes × 2 checkpoints, at most 4 steps, verified",
    ]
    assert {(name, *rest) for name, _, *rest, _, _ in cells} == {
        ("any (hints 2)", "50.00%", "75.00%")
    }
    passes = [float(row[4]) for row in cells]
    assert passes == [3, 6, 6, 4, 8, 8, 6, 6, 16, 16]


def test_data_pipeline(capsys, monkeypatch):
    monkeypatch.setattr("data_pipeline.MODEL", SMALL)
    _main("data_pipeline", "--batch=16", "--steps=2")
    rows = _rows(capsys.readouterr().out)
    assert [row[0] for row in rows] == ["prefetched", "on the spot"]
    assert all(0 < float(row[-1]) < 100 for row in rows)


def test_language(capsys, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Las armas y las letras. " * 50)
    _main("language", f"--data={text}", f"--count={text}")
    rows = {name: float(bits) for name, bits in _rows(capsys.readouterr().out)}
    ngram = rows.pop("5 bytes of context, Witten-Bell, counted on 1,200 bytes")
    assert 0 < ngram < 1  # it has seen the text
    assert len(rows) == 3


def test_seeds(capsys, tmp_path, monkeypatch):
    """The launcher's place is taken by one that leaves the figures of a finished run."""
    evaluation = {"eval/puzzles": 8, "eval/exact_accuracy_by_step": [0.25, 0.5], "eval/seconds": 1}
    lines = ({"step": 2, "train/loss": 1.0}, {"step": 4, **evaluation}, {"step": 5})
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    program = tmp_path / "launch" / "train.py"
    program.parent.mkdir()
    program.write_text(f"""
import json, shutil, sys
flags = dict(flag.split("=") for flag in sys.argv[1:])
shutil.copy({str(tmp_path / "metrics.jsonl")!r}, flags.pop("--workdir"))
with open({str(tmp_path / "flags")!r}, "a") as file:
    print(json.dumps(flags), file=file)
""")
    monkeypatch.setattr("seeds.ROOT", tmp_path)
    figures = "--figures=eval/puzzles,eval/exact_accuracy_by_step,eval/none"
    _main("seeds", "--config=x.py:laptop", "--seeds=3,4", figures, "--", "--config.steps=4")
    rows = _rows(capsys.readouterr().out)
    assert [row[0] for row in rows] == ["3", "4"]
    for _, seconds, puzzles, by_step, none in rows:
        assert float(seconds.removesuffix(" s")) >= 0  # the stand-in is quick
        assert (puzzles, none) == ("8", "—")
        assert [float(share) for share in by_step.split(", ")] == [0.25, 0.5]
    given = [json.loads(line) for line in (tmp_path / "flags").read_text().splitlines()]
    assert given == [
        {"--config": "x.py:laptop", "--config.seed": seed, "--config.steps": "4"}
        for seed in ("3", "4")
    ]


def test_puzzle_table(monkeypatch):
    """What a step needs besides its table does not depend on how large that is."""
    from puzzle_table import measure

    monkeypatch.setattr("puzzle_table.HRMConfig", lambda **sizes: HRMConfig(**{**sizes, **SMALL}))
    small, large = (measure(number, 64, 4, 1) for number in (100, 20_000))
    assert large.table == 20_000 * 64 * 4 // 4
    assert large.in_place - small.in_place == large.table - small.table
    assert large.scratch - small.scratch < large.table // 10
    assert large.peak > large.seconds > 0


@pytest.mark.parametrize(
    ("positions", "q_target", "layers"), [("rope", "second_forward", 2), ("learned", "none", 1)]
)
def test_the_pytorch_baseline_computes_the_same_training_step(positions, q_target, layers):
    torch = pytest.importorskip("torch")
    from torch_hrm import TorchTrainer

    config = HRMConfig(
        seq_len=16,
        vocab_size=6,
        puzzle_emb_ndim=40,
        hidden_size=32,
        num_heads=2,
        H_layers=1,
        L_layers=layers,
        halt_max_steps=3,
        q_target=q_target,
        L_cycles=layers,
        halt_exploration_prob=0.0,
        pos_encodings=positions,
        forward_dtype="float32",
    )
    rule = PuzzleOptimizerConfig(
        name="adam_atan2",
        learning_rate=1e-3,
        warmup_steps=0,
        lr_min_ratio=1.0,
        weight_decay=0.1,
        puzzle_emb_lr=1e-3,
        puzzle_emb_weight_decay=0.1,
    )
    variables = jax.jit(lambda: recurrent.init(config, jax.random.key(0)))()
    tokens = np.random.default_rng(1).integers(1, 6, (2, 4, 16))
    batch = {"inputs": tokens[0], "labels": tokens[1], "puzzle_identifiers": np.zeros(4, int)}
    batch = {name: value.astype(np.int32) for name, value in batch.items()}
    ours = ACTTrainer(config, rule, "stablemax", 1000)
    state, step = jax.jit(ours.init)(jax.random.key(1), variables, batch), jax.jit(ours.step)
    theirs = TorchTrainer(config, 4, compiled=False)
    prefix = "model.inner."

    def references(variables):
        named = to_reference(variables)
        return {k.removeprefix(prefix): torch.from_numpy(np.array(v)) for k, v in named.items()}

    theirs.model.load_state_dict(references(variables), strict=True)
    in_torch = {name: torch.from_numpy(value.astype(np.int64)) for name, value in batch.items()}
    for _ in range(2):  # in the second step the carry matters
        state, metrics = step(state, batch, jax.random.key(2))
        loss = theirs.train_step(in_torch, lr=1e-3, decay=0.1)
        np.testing.assert_allclose(metrics["loss"][0], loss, rtol=1e-5)
    np.testing.assert_allclose(state.rows.z_H, theirs.z_H, atol=2e-5)
    after = theirs.model.state_dict()
    for name, value in references(puzzle_weights(state)).items():
        np.testing.assert_allclose(after[name].detach(), value, atol=1e-5, err_msg=name)


def test_the_engine_gives_the_answers_of_transformers(capsys):
    pytest.importorskip("transformers")
    sizes = {"hidden": 64, "layers": 1, "slots": 2, "rounds": 1, "requests": 3}
    sizes |= {"prompt": 20, "answer": 10, "threads": 1, "shared": 40, "speculate": 2}
    _main("engine", *(f"--{name}={value}" for name, value in sizes.items()))
    rows = _rows(capsys.readouterr().out)
    kept = "hrm_jax, prefixes kept"
    names = ("hrm_jax", "hrm_jax, 4 adapters", "hrm_jax, 2 guessed", kept, "transformers")
    for (number, engine, rate, ratio, *_), name in zip(rows, names, strict=True):
        assert (number, engine) == ("3", name)
        assert float(rate) > 0
        assert float(ratio) > 0


def test_attention(capsys):
    sizes = "--batch=2 --heads=2 --head_size=16 --dtype=float32 --calls=2 --rounds=1 --product=64"
    _main("attention", *sizes.split(), "--lengths=20", "--causal")
    printed = capsys.readouterr().out
    _main("attention", *sizes.split(), "--lengths=150", "--engines", "pallas")
    rows = _rows(printed.split("not run:")[0])
    passes = ("forward", "forward and backward")
    ways = [("no", name) for name in ("xla", "pallas", "jax.nn", "xla, turned", "pallas, turned")]
    ways += [("yes", name) for name in ("xla", "pallas", "jax.nn")]
    expected = {("20", *way, which) for way in ways for which in passes}
    assert {tuple(row[:4]) for row in rows} >= expected
    long = _rows(capsys.readouterr().out)
    assert [tuple(row[:4]) for row in long] == [("150", "no", "pallas", which) for which in passes]
    rows += long
    assert all(float(cell.replace(",", "")) > 0 for row in rows for cell in row[4:5])
    assert "not run: cudnn, S 20: impl='cudnn': expected bfloat16" in printed
    assert "S ≤ 32, C 16, float32': '" in printed


TINY_CONFIG = """
from ml_collections import ConfigDict

from hrm_jax import tasks


def get_config(preset):
    config = ConfigDict(tasks.defaults("sudoku"))
    config.data.update(size=4, num_train=8, num_test=4)
    config.model.update(hidden_size=32, num_heads=2, H_layers=1, L_layers=1, puzzle_emb_ndim=32)
    config.model.update(H_cycles=1, L_cycles=1)
    config.model.forward_dtype = "float32"
    return config
"""


def test_scaling(capsys, tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(TINY_CONFIG)
    config = f"{path}:laptop,model.name=hrm,model.halt_max_steps=2,model.q_target=none"
    _main("scaling", f"--config={config}", "--devices", "1", "2", "--rows=2")
    weak_and_strong, estimate = capsys.readouterr().out.split("Estimate")
    rows = _rows(weak_and_strong)
    assert [row[1:4] for row in rows] == [
        ["weak", "1", "2"], ["weak", "2", "2"], ["strong", "1", "2"], ["strong", "2", "1"],
    ]  # fmt: skip
    share = [float(row[5].rstrip("%")) for row in rows]
    assert share[0] == share[2] == 100
    assert share[1] == pytest.approx(100, abs=3)
    assert share[3] == pytest.approx(50, abs=3)
    assert rows[0][7] == "—"
    assert "all-reduce" in rows[1][7]
    assert rows[1][6] == rows[3][6]  # sums of gradients: as large for any number of rows
    assert [row[3] for row in _rows(estimate)] == ["8", "256"]


def test_gpu_program(capsys, tmp_path):
    try:
        gpu_compiler.devices()
    except RuntimeError as error:
        pytest.skip(str(error))
    path = tmp_path / "tiny.py"
    path.write_text(TINY_CONFIG)
    sizes = "model.hidden_size=128,model.puzzle_emb_ndim=128,model.forward_dtype=bfloat16"
    step = f"{path}:laptop,model.name=hrm,model.halt_max_steps=2,model.q_target=none,{sizes}"
    _main("gpu_program", f"--step={step}", "--slots=4", "--lengths=20", "--head_size=32")
    whole, rest = capsys.readouterr().out.split("One of these steps")
    parts, taken = rest.split("What a program")
    training, evaluation = _rows(whole)
    assert step in training[0]
    assert evaluation[0].startswith("evaluation, one ACT step of 4 puzzles")
    for row in (training, evaluation):
        assert all(float(cell.replace(",", "")) >= 0 for cell in row[1:])
        assert int(row[3]) > 10
    assert sum(int(row[2]) for row in _rows(parts)) == int(training[3])
    if jax.__version__.startswith("0.10."):  # later ones write no PTX
        assert {"attention_self", "attention_short_back"} <= {row[3] for row in _rows(taken)}

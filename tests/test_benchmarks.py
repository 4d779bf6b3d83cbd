"""The benchmark programs run, and their figures are numbers that make sense; never how fast."""

import importlib.util
import pathlib
import re
import sys

import jax
import numpy as np
import pytest

from hrm_jax.interop.hrm_names import to_reference
from hrm_jax.models import hrm
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.optim.build import OptimizerConfig
from hrm_jax.tasks.act_training import ACTTrainer

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


def _module(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def _main(name):
    return _module(name).main


def test_hrm_step(capsys):
    sizes = {"hidden": 32, "heads": 2, "layers": 1, "batch": 4, "microbatch": 2, "max_steps": 3}
    sizes |= {"size": 4, "puzzles": 6, "rounds": 1}
    _main("hrm_step")([f"--{name}={value}" for name, value in sizes.items()])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == 7
    for line in lines:
        assert float(re.search(r"([\d.]+) \S+$", line)[1]) > 0


def test_better_answers(capsys, trained):
    flags = ["--votes=2", "--last=2", "--max_steps=4", "--limit=4", "--slots=4"]
    _main("better_answers")([f"--workdir={trained}", *flags])
    _, _, *rows = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
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
    for _, _, solved, blanks, passes, puzzles in cells:
        assert 0 <= float(solved[:-1]) <= 100
        assert 0 <= float(blanks[:-1]) <= 100
        assert 1 <= float(passes) <= 16
        assert puzzles == "4"
    assert float(cells[1][4]) > float(cells[0][4])


def test_data_pipeline(capsys):
    _main("data_pipeline")(["--batch=16", "--steps=2"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[-4] for row in rows] == ["prefetched", "spot"]
    assert all(0 < float(row[-1]) < 100 for row in rows)


def test_puzzle_table():
    """What a step needs besides its table does not depend on how large that is."""
    measure = _module("puzzle_table").measure
    small, large = (measure(number, 64, 4, 1) for number in (100, 20_000))
    assert large.table == 20_000 * 64 * 4 // 4
    assert large.in_place - small.in_place == large.table - small.table
    assert large.scratch - small.scratch < large.table // 10
    assert large.peak > large.seconds > 0


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_the_pytorch_baseline_computes_the_same_training_step(positions, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from torch_hrm import TorchTrainer

    config = HRMConfig(
        seq_len=16,
        vocab_size=6,
        puzzle_emb_ndim=40,
        hidden_size=32,
        num_heads=2,
        H_layers=1,
        L_layers=2,
        halt_max_steps=3,
        halt_exploration_prob=0.0,
        pos_encodings=positions,
        forward_dtype="float32",
    )
    rule = OptimizerConfig(
        name="adam_atan2",
        learning_rate=1e-3,
        warmup_steps=0,
        lr_min_ratio=1.0,
        weight_decay=0.1,
        puzzle_emb_lr=1e-3,
        puzzle_emb_weight_decay=0.1,
    )
    variables = hrm.init(config, jax.random.key(0))
    tokens = np.random.default_rng(1).integers(1, 6, (2, 4, 16))
    batch = {"inputs": tokens[0], "labels": tokens[1], "puzzle_identifiers": np.zeros(4, int)}
    batch = {name: value.astype(np.int32) for name, value in batch.items()}
    ours = ACTTrainer(config, rule, "stablemax", 1000)
    state = ours.init(jax.random.key(1), variables, batch)
    theirs = TorchTrainer(config, 4, compiled=False)
    prefix = "model.inner."

    def references(variables):
        named = to_reference(variables)
        return {k.removeprefix(prefix): torch.from_numpy(np.array(v)) for k, v in named.items()}

    theirs.model.load_state_dict(references(variables), strict=True)
    in_torch = {name: torch.from_numpy(value.astype(np.int64)) for name, value in batch.items()}
    for _ in range(2):  # in the second step the carry matters
        state, metrics = jax.jit(ours.step)(state, batch, jax.random.key(2))
        loss = theirs.train_step(in_torch, lr=1e-3, decay=0.1)
        np.testing.assert_allclose(metrics["loss"][0], loss, rtol=1e-5)
    np.testing.assert_allclose(state.carry.z_H, theirs.z_H, atol=2e-5)
    after = theirs.model.state_dict()
    for name, value in references(state.variables()).items():
        np.testing.assert_allclose(after[name].detach(), value, atol=1e-5, err_msg=name)

"""`launch/progress.py` and `generate.py --report`."""

import json

import pytest

from hrm_jax import experiment
from hrm_jax.trained.progress import progress
from hrm_jax.training.workdir import WorkdirError

CONFIG = {
    **{"task": "text", "steps": 4, "batch_size": 4, "log_every": 1, "eval_every": 2},
    **{"checkpoint_every": 2, "tensorboard": False},
    "data": {"length": 16, "eval_stride": 8, "eval_windows": 8, "document": "line"},
    "model": {
        **{"name": "transformer", "hidden_size": 16, "num_heads": 2, "ffn_size": 32},
        **{"num_layers": 1, "max_length": 32, "dropout": 0.0},
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("progress")
    (folder / "text.txt").write_text("\n".join(f"línea {i} de veinte" for i in range(20)))
    config = {**CONFIG, "data": {**CONFIG["data"], "train": str(folder / "text.txt")}}
    experiment.train(config, folder / "run", progress=False)
    return folder / "run"


def test_progress_of_a_run(run, script, capsys):
    found = progress(run)
    assert found.metric == "eval/bits_per_byte"
    assert [step for step, _ in found.evaluations] == [2, 4]
    assert found.done
    assert found.seconds_left is None
    assert script("progress").main([f"--workdir={run}", "--follow"]) == 0
    shown = capsys.readouterr().out
    (first, second), value = found.evaluations, found.evaluations[1][1]
    assert f"{value:.6g}" in shown
    assert f"{(second[1] - first[1]) / first[1]:+.1%}" in shown
    assert shown.rstrip().endswith("done.")
    assert script("progress").main([f"--workdir={run}", "--metric=eval/bytes"]) == 0
    assert "eval/bytes" in capsys.readouterr().out


def test_a_run_in_its_middle(run):
    records = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    records = [x for x in records if x["step"] <= 2]
    copy = run.parent / "copy"
    copy.mkdir()
    (copy / "config.json").write_text((run / "config.json").read_text())
    lines = [json.dumps({**x, "train/steps_per_second": 0.01}) for x in records]
    (copy / "metrics.jsonl").write_text("\n".join(lines))
    found = progress(copy)
    assert found.seconds_left == pytest.approx(200)
    assert found.lines()[-1] == "step 2 of 4, about 3 min left."


def test_what_is_wrong_is_named(run, script, tmp_path, capsys):
    with pytest.raises(WorkdirError, match="eval/bits_per_byte"):
        progress(run, "eval/bits_per_bite")
    for args, said in (
        ((f"--workdir={tmp_path}",), str(tmp_path)),
        ((f"--workdir={run}", "--every=1"), "--follow"),
    ):
        assert script("progress").main(list(args)) == 2
        assert said in capsys.readouterr().err


def test_a_report_of_what_was_written(run, script, tmp_path, capsys):
    path = tmp_path / "out.json"
    flags = [f"--workdir={run}", "--prompt=línea", "--max_new_tokens=12", f"--report={path}"]
    assert script("generate").main(flags) == 0
    told = json.loads(path.read_text())
    assert told["text"] == capsys.readouterr().out.removesuffix("\n")
    assert told["prompt"] == "línea"
    assert told["tokens"] == 12
    assert told["perplexity"] > 1
    assert 0 <= told["repetition"] <= 1

"""The benchmark programs run, and their figures are numbers that make sense; never how fast."""

import importlib.util
import pathlib
import re

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


def _main(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_hrm_step(capsys):
    sizes = {"hidden": 32, "heads": 2, "layers": 1, "batch": 4, "microbatch": 2, "max_steps": 3}
    sizes |= {"size": 4, "puzzles": 6, "rounds": 1}
    _main("hrm_step")([f"--{name}={value}" for name, value in sizes.items()])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == 7
    for line in lines:
        assert float(re.search(r"([\d.]+) \S+$", line)[1]) > 0


def test_data_pipeline(capsys):
    _main("data_pipeline")(["--batch=16", "--steps=2"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[-4] for row in rows] == ["prefetched", "spot"]
    assert all(0 < float(row[-1]) < 100 for row in rows)

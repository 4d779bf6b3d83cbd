"""Held-out figures and wall time of a whole training command, seed by seed.

    python benchmarks/seeds.py --config=configs/maze.py:laptop --figures=eval/optimal,eval/valid
    python benchmarks/seeds.py --config=configs/spanish_lm.py:laptop --figures=eval/bits_per_byte \\
        --seeds=0 -- --config.model.name=transformer

Each seed is trained by `launch/train.py` in a process of its own, from nothing; what follows `--`
is given to it. Figures are those of the last evaluation.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from report import ROOT, Table, add_save_flag

from hrm_jax.training.metrics import read_metrics


def train(config: str, seed: int, flags: list[str]) -> tuple[float, dict[str, Any]]:
    """Trains in a folder that is thrown away.

    Returns:
        Wall time of the command in seconds, and the figures of its last evaluation.

    Raises:
        subprocess.CalledProcessError: The training failed; it has said why.
    """
    with tempfile.TemporaryDirectory(prefix="hrm_jax_seed_") as folder:
        command = [sys.executable, str(ROOT / "launch" / "train.py"), f"--config={config}"]
        command += [f"--config.seed={seed}", f"--workdir={folder}", *flags]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        lines = read_metrics(pathlib.Path(folder) / "metrics.jsonl")
    return seconds, [line for line in lines if "eval/seconds" in line][-1]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "—" if value is None else f"{value:.4g}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="config file, preset after a colon")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--figures", default="eval/exact_accuracy", help="of metrics.jsonl")
    parser.add_argument("flags", nargs="*", help="further flags of launch/train.py, after --")
    add_save_flag(parser)
    args = parser.parse_args(argv)
    figures = args.figures.split(",")
    title = f"{args.config}, seed by seed"
    note = "Wall time is that of the whole command, what is compiled before a first step included."
    table = Table("seeds", title, ("seed", "wall time", *figures), [note])
    for seed in map(int, args.seeds.split(",")):
        seconds, found = train(args.config, seed, args.flags)
        table.add(seed, f"{seconds:.1f} s", *(_shown(found.get(name)) for name in figures))
    table.save(args.save)


if __name__ == "__main__":
    main()

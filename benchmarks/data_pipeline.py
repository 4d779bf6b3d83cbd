"""Whether the device ever waits for data: time to fetch a batch against time of a step.

    python benchmarks/data_pipeline.py [--batch=64] [--steps=200]

Trains the model of 6×6 Sudokus (`configs/sudoku.py:hrm6` sizes) and prints the share of the wall
time that the loop spends waiting for the next batch, with the prefetching iterator and, as a
baseline in the same process, making every batch on the spot.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import jax
from report import Table, add_save_flag

from hrm_jax import tasks
from hrm_jax.compilation import jit
from hrm_jax.data.pipeline import PuzzleBatches

COLUMNS = ("", "step ms", "wait µs", "wait %")
MODEL = {
    "hidden_size": 64,
    "num_heads": 2,
    "H_layers": 2,
    "L_layers": 2,
    "puzzle_emb_ndim": 64,
    "halt_max_steps": 4,
    "forward_dtype": "float32",
    "q_target": "none",
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    add_save_flag(parser)
    args = parser.parse_args(argv)
    config = {"task": "sudoku", "batch_size": args.batch, "microbatch_size": 16, "model": MODEL}
    task = tasks.build(tasks.parse(config))
    state = jit(task.init)(jax.random.key(0))
    source = PuzzleBatches(task.train, args.batch, seed=0)
    step = jit(task.step).lower(state, source[0]).compile()
    on_the_spot: Iterator[Any] = (source[i] for i in range(10**9))

    note = f"{args.steps} steps of {args.batch} puzzles, each waited for."
    table = Table("data_pipeline", "Waiting for data", COLUMNS, [note])
    for name, iterator in (("prefetched", task.batches()), ("on the spot", on_the_spot)):
        waited = 0.0
        state, metrics = step(state, next(iterator))
        jax.block_until_ready(metrics)
        start = time.perf_counter()
        for _ in range(args.steps):
            before = time.perf_counter()
            batch = next(iterator)
            waited += time.perf_counter() - before
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
        total = time.perf_counter() - start
        each, wait = total / args.steps, waited / args.steps
        table.add(name, f"{each * 1e3:.2f}", f"{wait * 1e6:.0f}", f"{wait / each * 100:.2f}")
    table.save(args.save)


if __name__ == "__main__":
    main()

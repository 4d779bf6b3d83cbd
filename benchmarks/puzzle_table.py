"""Memory and time of a training step against the number of puzzle identifiers.

    python benchmarks/puzzle_table.py [--identifiers=1000,100000,1000000] [--width=512] [--steps=20]

The network is small (D 64, one block in each module, two ACT steps, 16 tokens, batch 32), so that
the table of --width columns is nearly all there is; its optimizer keeps an average of the weights,
as the presets do. The step is the one that the training loop compiles. For each number of
identifiers, in a process of its own:

table                   size of the table, float32
state and batch         what the compiled step is given, the table among it
of it updated in place  how much of that it returns in the same memory (donated)
scratch of the step     what it needs besides while it runs (`memory_analysis` of the program)
peak of the process     its greatest resident memory, Python and XLA included
step ms                 median time of a step

Sizes are MiB on one device. The table is on one device or, with `shard_tables`, its columns are
spread over --devices devices, here parts of the same CPU; the peak is that of all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import resource
import statistics
import time

import jax
import jax.numpy as jnp
from report import Table, add_save_flag

from hrm_jax.compilation import compile_step, jit
from hrm_jax.models import recurrent
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.tasks.base import State
from hrm_jax.tasks.puzzles.act_training import ACTTrainer, PuzzleOptimizerConfig
from hrm_jax.training.sharding import make_mesh, place_batch, state_shardings

MIB = 2**20
COLUMNS = (
    *("identifiers", "table", "state and batch", "of it updated in place", "scratch of the step"),
    *("peak of the process", "step ms"),
)


@dataclasses.dataclass(frozen=True)
class Figures:
    """What was measured; sizes in bytes, for one device."""

    table: int
    arguments: int
    in_place: int
    scratch: int
    peak: int
    seconds: float


def measure(identifiers: int, width: int, devices: int, steps: int) -> Figures:
    """Runs some steps with a table of that size, divided over that many devices."""
    model = HRMConfig(
        seq_len=16, vocab_size=6, num_puzzle_identifiers=identifiers, puzzle_emb_ndim=width,
        hidden_size=64, num_heads=2, H_layers=1, L_layers=1, halt_max_steps=2,
        forward_dtype="float32",
    )  # fmt: skip
    trainer = ACTTrainer(model, PuzzleOptimizerConfig(ema=0.999), "stablemax", 1000)
    keys = jax.random.split(jax.random.key(0), steps + 1)
    rows = 32
    batches = [
        {
            "inputs": jax.random.randint(key, (rows, 16), 1, 6),
            "labels": jax.random.randint(key, (rows, 16), 1, 6),
            "puzzle_identifiers": jax.random.randint(key, (rows,), 1, identifiers),
        }
        for key in keys
    ]

    def init(key: jax.Array) -> State:
        empty = jax.tree.map(jnp.zeros_like, batches[0])
        return trainer.init(key, recurrent.init(model, key), empty)

    mesh = make_mesh(devices=jax.devices()[:devices])
    shapes = jax.eval_shape(init, keys[0])
    shardings = state_shardings(shapes, mesh, shard_tables=devices > 1)
    state = jit(init, out_shardings=shardings)(keys[0])
    placed = [place_batch(jax.device_get(batch), mesh) for batch in batches]
    step = jit(trainer.step, donate_argnums=0, out_shardings=(shardings, None))
    compiled = compile_step(step, state, placed[0], keys[0])
    memory = compiled.memory_analysis()
    seconds = []
    for key, batch in zip(keys, placed, strict=True):
        start = time.perf_counter()
        state, metrics = compiled(state, batch, key)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
    return Figures(
        table=4 * identifiers * width // devices,
        arguments=memory.argument_size_in_bytes,
        in_place=memory.alias_size_in_bytes,
        scratch=memory.temp_size_in_bytes,
        peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        seconds=statistics.median(seconds[1:]),
    )


def _in_new_process(identifiers: int, width: int, devices: int, steps: int) -> Figures:
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    return measure(identifiers, width, devices, steps)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--identifiers", default="1000,100000,1000000")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    add_save_flag(parser)
    args = parser.parse_args(argv)

    note = f"A training step with a puzzle table of {args.width} columns, MiB on one device."
    table = Table("puzzle_table", "A million puzzle identifiers", COLUMNS, [note])
    context = multiprocessing.get_context("spawn")
    for number in map(int, args.identifiers.split(",")):
        for spread, devices in (
            ("", 1),
            (f", `shard_tables`, {args.devices} devices", args.devices),
        ):
            with context.Pool(1) as pool:
                found = pool.apply(_in_new_process, (number, args.width, devices, args.steps))
            sizes = (found.table, found.arguments, found.in_place, found.scratch, found.peak)
            cells = [f"{size / MIB:,.1f}" for size in sizes]
            table.add(f"{number:,}{spread}", *cells, f"{found.seconds * 1e3:.2f}")
    table.save(args.save)


if __name__ == "__main__":
    main()

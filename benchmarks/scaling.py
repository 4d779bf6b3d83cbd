"""What a training step computes and moves on each of several devices, from the compiled program.

    python benchmarks/scaling.py --save
    python benchmarks/scaling.py --compiler=gpu --save=scaling_gpu
    python benchmarks/scaling.py --config=configs/sudoku.py:paper,model.name=trm --fsdp=2

Nothing is run and no time is measured: for 1, 2, 4 and 8 simulated devices the step that the
training loop would run is compiled, for this machine's processor or for H200s (which need not be
there, see `benchmarks/analysis/gpu_compiler.py`), and its text says how many floating-point
operations its products of matrices take on one device (loops counted as often as they turn) and how
many bytes the collectives move from it. "Weak" keeps the rows of a device, "strong" those of all
together.

A second table is an estimate, not a measurement, for 8 and 256 GPUs: operations and bytes of the
compiled step against the rates that --tflops and --bandwidth name. With b rows on a device and none
of the communication hidden behind the computation, a step takes b·t + c: t for the operations of a
row, c for the collectives, which do not depend on b (they sum gradients). Below b = c/t rows on a
device communication takes longer than computation.
"""

from __future__ import annotations

import os

_DEVICES = 8
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={_DEVICES}")

import argparse  # noqa: E402
import ast  # noqa: E402
import collections  # noqa: E402
import contextlib  # noqa: E402
import dataclasses  # noqa: E402
import math  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
from analysis import gpu_compiler  # noqa: E402
from analysis.collectives import Collective, collectives  # noqa: E402
from analysis.costs import product_flops  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402
from report import Table, add_save_flag  # noqa: E402

from hrm_jax import tasks  # noqa: E402
from hrm_jax.compilation import jit  # noqa: E402
from hrm_jax.training.sharding import divided_step, make_mesh, state_shardings  # noqa: E402

CONFIGS = (
    "configs/sudoku.py:paper",
    "configs/sudoku.py:paper,model.name=trm,model.L_layers=2,model.H_cycles=3,model.L_cycles=6",
    "configs/spanish_lm.py:paper",
    "configs/spanish_lm.py:paper,model.name=transformer",
)
COLUMNS = (
    *("config", "scaling", "devices", "rows of a device", "GFLOP of a device", "of one device's"),
    *("MB moved by a device", "collectives"),
)
ESTIMATE = (
    *("config", "parameters", "GFLOP of a row", "GPUs", "MB moved by a device", "collectives, ms"),
    *("rows of a device where they take as long as computation", "with the config's batch"),
)
WHY = """What is sent: the gradients are summed over all devices (all-reduce: their bytes,
2(n-1)/n times), with them a few numbers to count with. Every device keeps the whole puzzle table
and gets the rows that the others have changed (all-gather). Along fsdp each device also gets the
parts of the parameters that it does not hold, once a step (all-gather), and keeps its part of the
summed gradients (a GPU: reduce-scatter; a CPU: all-reduce and slice). Activations and carries never
leave their device. """
OF_CPU = """The CPU's compiler sums the gradient of a shared weight once for each time it is used
with gradient, 7 times in TRM, once for each microbatch (here there are none), and in float32. The
GPU's does not (`--compiler=gpu`)."""
OF_GPU = """XLA's GPU compiler adds up first, on each device, the gradients of a shared weight (TRM)
and those of microbatches. What comes from one product it sums over the devices in that product's
dtype, bfloat16: half the bytes; microbatches it adds in it too, and shared weights in float32."""


@dataclasses.dataclass(frozen=True)
class Step:
    """A compiled step: operations and collectives of one device, parameters of all."""

    flops: float
    collectives: list[Collective]
    parameters: int


def parse(text: str, **replaced: Any) -> tuple[Any, int]:
    """The configuration "file.py:preset,field=value,…", and the batch size that it names.

    Args:
        text: A file, perhaps a preset, perhaps fields.
        **replaced: Fields that are other than there.
    """
    source, *fields = text.split(",")
    path, _, preset = source.partition(":")
    config = tasks.file_config(path, preset)
    for field in fields:
        name, _, value = field.partition("=")
        with contextlib.suppress(ValueError, SyntaxError):  # else it is a string
            value = ast.literal_eval(value)
        config.update_from_flattened_dict({name: value})
    return tasks.parse(config.to_dict() | replaced), config.batch_size


def compiled(task: Any, devices: list[jax.Device]) -> Any:
    """The program of the step that the training loop runs on these devices."""
    config = task.config
    mesh = make_mesh(config.mesh, devices)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    shardings = state_shardings(
        shapes, mesh, shard_tables=config.shard_tables, smallest=config.mesh.smallest
    )

    def placed(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    by_row = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    batch = {k: placed(v, by_row) for k, v in next(task.batches()).items()}
    here = devices[0] in jax.devices()
    step = divided_step(task.step, mesh, shardings, jit if here else jax.jit)
    state = jax.tree.map(placed, shapes, shardings)
    with jax.set_mesh(mesh):
        return gpu_compiler.compiled(step.lower(state, batch))


def _kinds(found: list[Collective]) -> str:
    moved: collections.Counter[str] = collections.Counter()
    for one in found:
        moved[one.kind] += one.moved_bytes
    return ", ".join(f"{k} {v / 1e6:.3g} MB" for k, v in moved.most_common() if v) or "—"


def moved_bytes(found: list[Collective], devices: int) -> int:
    """Bytes that a device sends where so many devices do the same."""
    return sum(dataclasses.replace(one, group=devices).moved_bytes for one in found)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", action="append", metavar="FILE:PRESET[,FIELD=VALUE…]")
    parser.add_argument("--rows", type=int, default=8, help="of all devices (strong), of 1 (weak)")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--compiler", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--fsdp", type=int, default=1, help="devices that share the parameters")
    parser.add_argument(
        "--tflops", type=float, default=400, help="sustained by a GPU (an assumption)"
    )
    parser.add_argument(
        "--bandwidth", type=float, nargs=2, default=[450, 50], metavar="GB/s",
        help="of a GPU within 8 (NVLink 4, one direction) and among 256 (400 Gb/s network)",
    )  # fmt: skip
    add_save_flag(parser)
    args = parser.parse_args(argv)
    gpu = args.compiler == "gpu"
    table = Table(
        "scaling", "Operations and bytes of a training step on several devices", COLUMNS,
        notes=[
            f"Compiled for {gpu_compiler.KIND if gpu else 'CPU'} devices, "
            f"{args.fsdp} of them along fsdp. Nothing was timed.",
            WHY + (OF_GPU if gpu else OF_CPU),
        ],
    )  # fmt: skip
    largest = max(args.devices)
    try:
        available = gpu_compiler.devices(largest) if gpu else jax.devices()
    except RuntimeError as error:
        parser.error(str(error))
    steps = {}
    for name in args.config or CONFIGS:
        made: dict[tuple[int, int], Step] = {}
        for kind, devices in [(k, n) for k in ("weak", "strong") for n in sorted(args.devices)]:
            total = args.rows * devices if kind == "weak" else args.rows
            mesh = {"fsdp": math.gcd(args.fsdp, devices)}
            config, batch = parse(name, batch_size=total, microbatch_size=0, mesh=mesh)
            if (devices, total) not in made:
                task = tasks.build(config)
                program = compiled(task, available[:devices])
                shapes = jax.eval_shape(task.init, jax.random.key(0))
                parameters = sum(x.size for x in jax.tree.leaves(shapes.params))
                made[devices, total] = Step(
                    product_flops(program), collectives(program), parameters
                )
            step = made[devices, total]
            alone = made[min(args.devices), args.rows]
            table.add(
                f"`{name}`", kind, devices, f"{total / devices:g}", f"{step.flops / 1e9:,.2f}",
                f"{step.flops / alone.flops:.1%}",
                f"{moved_bytes(step.collectives, devices) / 1e6:,.1f}",
                _kinds(step.collectives),
            )  # fmt: skip
        steps[name] = (made[largest, args.rows * largest], batch)
    table.save(args.save)

    print()
    estimate = Table(
        "scaling_estimate", "Estimate: where communication overtakes computation", ESTIMATE,
        notes=[
            f"Arithmetic, not a measurement: {args.tflops:g} TFLOP/s of a GPU, "
            f"{args.bandwidth[0]:g} GB/s among 8 and {args.bandwidth[1]:g} GB/s among 256, nothing "
            "of the communication hidden. The last column is the share of a step that computes."
        ],
    )  # fmt: skip
    for name, (step, batch) in steps.items():
        for devices, bandwidth in zip((8, 256), args.bandwidth, strict=True):
            row = step.flops / args.rows / (args.tflops * 1e12)
            moved = moved_bytes(step.collectives, devices)
            waiting = moved / (bandwidth * 1e9)
            of_device = batch / devices
            share = of_device * row / (of_device * row + waiting)
            estimate.add(
                f"`{name}`", f"{step.parameters:,}", f"{step.flops / args.rows / 1e9:,.2f}",
                devices, f"{moved / 1e6:,.1f}", f"{waiting * 1e3:.2f}", f"{waiting / row:.1f}",
                f"{share:.0%} at {of_device:g} rows",
            )  # fmt: skip
    estimate.save(None if args.save is None else f"{args.save or 'scaling'}_estimate")


if __name__ == "__main__":
    main()

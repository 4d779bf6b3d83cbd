"""What XLA's GPU compiler makes of steps, evaluation and attention, where there is no GPU.

    python benchmarks/gpu_program.py --save            # needs pip install -e '.[gpu_compiler]'
    python benchmarks/gpu_program.py --step=configs/sudoku.py:paper,batch_size=96 --parts=30

Nothing is run and no time is measured: steps are compiled for an H200
(`benchmarks/analysis/gpu_compiler.py`), and their text says which kernels a step starts and what
each of them computes, reads and writes. "Least time" is an estimate from that: kernels one after
the other, each as fast as the larger of its operations over --tflops and its bytes over --bandwidth
allow. A real step takes longer, for no kernel reaches those; it says what fusing can save, and
where the rest goes. Without a device XLA cannot choose kernels by trial: products of matrices are
its own Triton kernels here, cuBLAS's only where it cannot write one.

The second table divides one step by kind of kernel, the third says what a program of each attention
kernel takes: where registers do not last, a thread spills them to memory.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from analysis import gpu_compiler
from analysis.costs import Kernel, kernels
from report import Table, add_save_flag
from scaling import compiled, parse

from hrm_jax import tasks
from hrm_jax.kernels.attention import attention, self_attention
from hrm_jax.kernels.rotary import rotary_tables
from hrm_jax.models import act

SUDOKU = "configs/sudoku.py:paper,batch_size=768,microbatch_size=0"
TRM = f"{SUDOKU},model.name=trm,model.L_layers=2,model.H_cycles=3,model.L_cycles=6"
ARC = "configs/arc.py:paper,data.canvas=30"
STEPS = (
    *(f"{SUDOKU},model.attention={engine}" for engine in ("xla", "pallas")),
    *(f"{TRM},model.attention={engine}" for engine in ("xla", "pallas")),
    *(f"{ARC},model.attention={engine}" for engine in ("xla", "pallas")),
    f"{ARC},microbatch_size=0,model.attention=pallas",
)
COLUMNS = (
    *("step", "TFLOP of products", "GB moved", "kernels started", "least time, ms"),
    *("state and batch, GiB", "scratch, GiB"),
)
PARTS = ("kernels", "of", "started", "TFLOP", "GB moved", "least time, ms")
KERNELS = (
    "S",
    "C",
    "dtype",
    "kernel",
    "threads",
    "registers",
    "spilled bytes",
    "programs of an SM",
)


def least_ms(found: Iterable[Kernel], rate: float, bandwidth: float) -> float:
    """Milliseconds of these kernels, one after the other, at FLOP/s and bytes/s."""
    return 1e3 * sum(
        kernel.times * max(kernel.flops / rate, kernel.moved_bytes / bandwidth) for kernel in found
    )


def part(kernel: Kernel) -> tuple[str, str]:
    """What a kernel is, and of which layers it is."""
    kind = kernel.name if kernel.kind == "fusion" else kernel.kind
    if "triton" in kind:
        kind = "attention"
    layers = re.findall(r"self_attn|mlp|embed|read|optimizer|norm", kernel.source)
    way = "backward" if "transpose(jvp" in kernel.source else "forward"
    return kind, f"{layers[-1] if layers else 'others'}, {way}"


def evaluation(task: Any, slots: int) -> Any:
    """The compiled solver of puzzles with so many slots; of its loop one turn is counted."""
    config = task.config.model
    variables = task.weights(jax.eval_shape(task.init, jax.random.key(0)))
    shapes = (variables, *(jax.ShapeDtypeStruct(s, jnp.int32) for s in (
        (4 * slots, config.seq_len), (4 * slots,), ()
    )))  # fmt: skip

    def solve(*args: Any) -> Any:
        solved = act.solve(config, *args, slots=slots, halting="q")
        return solved.predictions, solved.steps

    return gpu_compiler.compile_for_gpu(solve, *shapes)


def with_gradients(function: Callable[..., Any], *operands: Any) -> tuple[Any, ...]:
    """A function's output and gradients, and what it takes: (function, operands, gradient)."""

    def run(operands: Any, gradient: Any) -> Any:
        out, back = jax.vjp(function, *operands)
        return out, back(gradient)

    return run, operands, jax.eval_shape(function, *operands)


def attention_kernels(length: int, size: int, dtype: Any) -> dict[str, gpu_compiler.Resources]:
    """What the kernels of attention and of self-attention take."""
    q = jax.ShapeDtypeStruct((2, length, 8, size), dtype)
    qkv = jax.ShapeDtypeStruct((2, length, 3, 8, size), dtype)
    rotary = rotary_tables(length, size, 1e4)
    found = {}
    for function, operands in (
        (lambda q, k, v: attention(q, k, v, impl="pallas"), (q, q, q)),
        (lambda qkv: self_attention(qkv, rotary, impl="pallas"), (qkv,)),
    ):
        found |= gpu_compiler.kernel_resources(*with_gradients(function, *operands))
    return {name: used for name, used in sorted(found.items()) if name.startswith("attention")}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step", action="append", metavar="FILE:PRESET[,FIELD=VALUE…]")
    parser.add_argument("--parts", type=int, default=14, help="rows of the second table")
    parser.add_argument("--slots", type=int, default=768, help="of evaluation, of the first two")
    parser.add_argument("--lengths", type=int, nargs="*", default=[82, 901])
    parser.add_argument("--head_size", type=int, default=64)
    parser.add_argument("--tflops", type=float, default=790, help="of a bare product in bfloat16")
    parser.add_argument("--bandwidth", type=float, default=4800, help="of the memory, GB/s")
    add_save_flag(parser)
    args = parser.parse_args(argv)
    rate, bandwidth = args.tflops * 1e12, args.bandwidth * 1e9
    compiled_for = f"Compiled for an {gpu_compiler.KIND}, which was not there; nothing was timed."
    estimate = (
        f"Least time is an estimate: {args.tflops:g} TFLOP/s, {args.bandwidth:g} GB/s. What "
        "attention's own kernels compute is not counted in TFLOP, nor in time where bytes take it."
    )
    table = Table(
        "gpu_program", "A training step as compiled for a GPU", COLUMNS,
        notes=[compiled_for, estimate],
    )  # fmt: skip
    try:
        devices = gpu_compiler.devices()
    except RuntimeError as error:
        parser.error(str(error))
    divided: list[Any] = []

    def add(what: str, program: Any) -> list[Kernel]:
        found, memory = kernels(program), program.memory_analysis()
        table.add(
            what,
            f"{sum(kernel.flops * kernel.times for kernel in found) / 1e12:.2f}",
            f"{sum(kernel.moved_bytes * kernel.times for kernel in found) / 1e9:.1f}",
            sum(kernel.times for kernel in found),
            f"{least_ms(found, rate, bandwidth):.1f}",
            f"{memory.argument_size_in_bytes / 2**30:.2f}",
            f"{memory.temp_size_in_bytes / 2**30:.2f}",
        )
        return found

    for place, step in enumerate(args.step or STEPS):
        task = tasks.build(parse(step)[0])
        found = add(f"`{step}`", compiled(task, devices))
        if not divided or step == STEPS[1]:
            divided = [step, found]
        if place < 2 and hasattr(task.config.model, "halt_max_steps"):
            what = f"evaluation, one ACT step of {args.slots} puzzles, `{step}`"
            add(what, evaluation(task, args.slots))
    table.save(args.save)

    step, found = divided
    parts = Table(
        "gpu_program_parts", "One of these steps by kind of kernel", PARTS,
        notes=[f"`{step}`.", compiled_for, estimate],
    )  # fmt: skip
    groups: dict[tuple[str, str], list[Kernel]] = collections.defaultdict(list)
    for kernel in found:
        groups[part(kernel)].append(kernel)
    order = sorted(groups, key=lambda key: -least_ms(groups[key], rate, bandwidth))
    rest = [kernel for key in order[args.parts :] for kernel in groups[key]]
    shown = [(key, groups[key]) for key in order[: args.parts]]
    for (kind, where), some in [*shown, (("others", "all"), rest)]:
        parts.add(
            kind, where, sum(kernel.times for kernel in some),
            f"{sum(kernel.flops * kernel.times for kernel in some) / 1e12:.2f}",
            f"{sum(kernel.moved_bytes * kernel.times for kernel in some) / 1e9:.2f}",
            f"{least_ms(some, rate, bandwidth):.2f}",
        )  # fmt: skip
    parts.save(None if args.save is None else f"{args.save or 'gpu_program'}_parts")

    taken = Table(
        "gpu_program_kernels", "What a program of each attention kernel takes", KERNELS,
        notes=[
            compiled_for,
            "An SM has 65,536 registers; programs of an SM are as many as those last for.",
        ],
    )  # fmt: skip
    for length, dtype in itertools.product(args.lengths, (jnp.bfloat16, jnp.float32)):
        try:
            kernels_of = attention_kernels(length, args.head_size, dtype)
        except RuntimeError as error:
            taken.notes.append(f"Not known: {error}")
            break
        for name, used in kernels_of.items():
            taken.add(
                length, args.head_size, jnp.dtype(dtype).name, name, *used,
                65536 // (used.threads * -(-used.registers // 8) * 8),
            )  # fmt: skip
    taken.save(None if args.save is None else f"{args.save or 'gpu_program'}_kernels")


if __name__ == "__main__":
    main()

"""Time of HRM training steps and evaluation, beside bare matrix products of the same shapes.

    python benchmarks/hrm_step.py --hidden=128 --layers=2 --batch=128 --max_steps=8
    python benchmarks/hrm_step.py --hidden=512 --layers=4 --batch=16 --max_steps=16
    python benchmarks/hrm_step.py --preset=paper                    # one large GPU

For each size: time of a full training step (second forward, gradients, optimizer, puzzle table,
augmentation), rows/s, achieved GFLOP/s (matrix products only, counted below), the rate that the
same products reach on their own in the same process, and the fraction of it; the fraction of the
rate of one large product (model FLOP utilisation, against what this device reaches and not what
its data sheet says); the memory of the compiled step; then evaluation in puzzles/s, with all steps
(`fixed`) and with halting. Measurements are interleaved, medians quoted.
--chunk runs several optimizer steps in one program, so that starting programs can be told from
running them; --profile writes a trace of a few steps for TensorBoard or Perfetto.
With --torch (CPU), the same step and evaluation in PyTorch with `torch.compile` (`torch_hrm.py`;
bfloat16 by autocast), in a process of its own, are measured in turn with ours, with the ratios.

Halting depends on the weights. With --workdir, those of a trained run are measured, on its own
puzzles. Without, weights are random and never want to halt, so every row is stopped after
--halt_after steps instead, and the table says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from report import Table, add_save_flag

from hrm_jax.compilation import compile_step, jit, run_in_main_thread
from hrm_jax.interop.hrm_names import to_reference
from hrm_jax.layers.feed_forward import swiglu_width
from hrm_jax.models import act, recurrent
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.tasks.puzzles.act_training import ACTTrainer, PuzzleOptimizerConfig
from hrm_jax.trained.evaluate import held_out
from hrm_jax.trained.load import load

COLUMNS = ("", "value", "unit")
PRODUCTS = 4  # large ones in a program, so that starting it does not count


def products(config: HRMConfig, rows: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes of the products of one block: (left, right); batched ones have rank 3."""
    length = config.prefix_len + config.seq_len
    tokens, hidden, heads = rows * length, config.hidden_size, config.num_heads
    width, head = swiglu_width(hidden, config.expansion, config.width_multiple), hidden // heads
    return [
        ((tokens, hidden), (hidden, 3 * hidden)),
        ((tokens, hidden), (hidden, hidden)),
        ((tokens, hidden), (hidden, 2 * width)),
        ((tokens, width), (width, hidden)),
        ((rows * heads, length, head), (rows * heads, head, length)),
        ((rows * heads, length, length), (rows * heads, length, head)),
    ]


def block_flops(config: HRMConfig, rows: int) -> float:
    """Floating-point operations of one block's products."""
    total = 0.0
    for left, right in products(config, rows):
        total += 2.0 * np.prod(left) * right[-1]
    return total


def blocks(config: HRMConfig, train: bool) -> int:
    """Blocks run in a step, a backward pass counted as two."""
    forward = config.H_cycles * (config.L_cycles * config.L_layers + config.H_layers)
    if not train:
        return forward
    second = forward if config.q_target == "second_forward" else 0
    return forward + second + 2 * (config.L_layers + config.H_layers)


def ready(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """Compiles, and returns what runs once and waits."""
    compiled = jit(function).lower(*args).compile()
    return lambda: jax.block_until_ready(compiled(*args))


def bare(config: HRMConfig, rows: int, repeats: int = 8) -> Callable[[], Any]:
    """All products of a block, nothing else, `repeats` times, each time on other left operands."""
    key, dtype = jax.random.key(0), config.dtype
    operands = [
        (jax.random.normal(key, (repeats, *left), dtype), jax.random.normal(key, right, dtype))
        for left, right in products(config, rows)
    ]

    def run(operands: Any) -> Any:
        lefts, rights = [a for a, _ in operands], [b for _, b in operands]
        made = [jnp.zeros((*a.shape[1:-1], b.shape[-1]), dtype) for a, b in operands]

        def body(_: Any, some: Any) -> Any:
            return [a @ b for a, b in zip(some, rights, strict=True)], None

        return jax.lax.scan(body, made, lefts)[0]

    return ready(run, operands)


def one_product(size: int, dtype: Any, repeats: int) -> Callable[[], Any]:
    """A product of [size, size] matrices, `repeats` times in one program."""
    square = jax.random.normal(jax.random.key(0), (size, size), dtype) / size**0.5
    return ready(lambda a: jax.lax.fori_loop(0, repeats, lambda _, x: x @ a, a), square)


def median_times(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, measured in turn."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def torch_runs(
    config: HRMConfig, variables: Any, batch: dict[str, Any], inputs: np.ndarray
) -> dict[str, Callable[[], Any]]:
    """A training step and the evaluation of the same model by PyTorch in a process beside ours."""
    from torch_hrm import serve

    here, there = multiprocessing.Pipe()
    weights = {name: np.array(value) for name, value in to_reference(variables).items()}
    arrays = {name: np.asarray(value) for name, value in batch.items()}
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(there, config, weights, arrays, inputs), daemon=True
    )
    process.start()
    there.close()

    def request(name: str) -> Callable[[], Any]:
        def run() -> None:
            here.send(name)
            here.recv()

        return run

    return {"torch training": request("train"), "torch evaluation": request("evaluate")}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=("paper",), help="the paper's sizes, batch 768, bf16")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--heads", type=int, help="default: hidden / 32")
    parser.add_argument("--layers", type=int, default=2, help="of each module")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--microbatch", type=int, help="default: on a CPU 8, or 16 from D 512 on; else the batch"
    )
    parser.add_argument("--max_steps", type=int, default=8)
    parser.add_argument("--size", type=int, default=9, help="side of the board; 30 as in ARC")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--attention", choices=("auto", "xla", "pallas", "cudnn"), default="auto")
    parser.add_argument("--q_target", choices=("second_forward", "none"), default="second_forward")
    parser.add_argument("--puzzles", type=int, default=256, help="puzzles in evaluation")
    parser.add_argument("--slots", type=int, help="default: the microbatch")
    parser.add_argument("--halt_after", type=int, help="default: a third of max_steps")
    parser.add_argument("--torch", action="store_true", help="also time HRM in PyTorch")
    parser.add_argument("--workdir", help="measure a trained run's model instead")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=1, help="optimizer steps in one program")
    parser.add_argument("--product", type=int, help="default: 1024 on a CPU, else 8192")
    parser.add_argument("--profile", metavar="FOLDER", help="write a trace of a few steps there")
    add_save_flag(parser)
    args = parser.parse_args(argv)
    if args.preset:
        parser.set_defaults(
            hidden=512, heads=8, layers=4, batch=768, max_steps=16, dtype="bfloat16", puzzles=3072
        )
        args = parser.parse_args(argv)
    run_in_main_thread()  # as launch/train.py

    cells = args.size**2
    config = HRMConfig(
        seq_len=cells,
        vocab_size=args.size + 2,
        puzzle_emb_ndim=args.hidden,
        hidden_size=args.hidden,
        num_heads=args.heads or args.hidden // 32,
        H_layers=args.layers,
        L_layers=args.layers,
        halt_max_steps=args.max_steps,
        q_target=args.q_target,
        forward_dtype=args.dtype,
        attention=args.attention,
    )
    key = jax.random.key(0)
    inputs = np.asarray(jax.random.randint(key, (args.puzzles, cells), 1, args.size + 2))
    if args.workdir:
        model = load(args.workdir)
        config, variables = model.config, model.variables
        inputs = held_out(args.workdir).inputs[: args.puzzles].astype(np.int32)
    else:
        variables = jit(lambda: recurrent.init(config, key))()
    cpu = jax.default_backend() == "cpu"
    rows = (8 if config.hidden_size < 512 else 16) if cpu else args.batch
    micro = args.microbatch or min(rows, args.batch)
    slots = args.slots or micro
    trainer = ACTTrainer(config, PuzzleOptimizerConfig(), "stablemax", 1000, micro)
    batch = {
        "inputs": jnp.asarray(np.resize(inputs, (args.batch, inputs.shape[1]))),
        "labels": jnp.asarray(np.resize(inputs, (args.batch, inputs.shape[1]))),
        "puzzle_identifiers": jnp.zeros(args.batch, jnp.int32),
    }
    state = jit(trainer.init)(key, variables, batch)
    identifiers = jnp.zeros(len(inputs), jnp.int32)

    def evaluation(halting: act.Halting, max_steps: int) -> Callable[[], act.Solved]:
        def solve(weights: Any, tokens: Any) -> act.Solved:
            return act.solve(
                config,
                weights,
                tokens,
                identifiers,
                jnp.int32(len(inputs)),
                slots=slots,
                halting=halting,
                max_steps=max_steps,
            )

        return ready(solve, variables, inputs)

    step_key = jax.random.key(1)

    def steps_of(state: Any, batch: Any, key: Any) -> Any:
        def body(state: Any, _: Any) -> Any:
            return trainer.step(state, batch, key)

        return jax.lax.scan(body, state, length=args.chunk)

    step = trainer.step if args.chunk == 1 else steps_of
    program = compile_step(jit(step, donate_argnums=0), state, batch, step_key)
    memory = program.memory_analysis()
    current = [state]

    def train() -> None:
        current[0], metrics = program(current[0], batch, step_key)
        jax.block_until_ready((current[0], metrics))

    side = args.product or (1024 if cpu else 8192)
    full = config.halt_max_steps
    after = args.halt_after or max(1, full // 3)
    runs = {
        "train": train,
        "bare": bare(config, micro),
        "product": one_product(side, config.dtype, PRODUCTS),
        "fixed": evaluation("fixed", full),
        "halting": evaluation("q", full) if args.workdir else evaluation("fixed", after),
    }
    if args.torch:
        runs |= torch_runs(config, variables, batch, inputs)
    steps = float(runs["halting"]().steps.mean())
    seconds = median_times(runs, args.rounds)
    seconds["train"] /= args.chunk
    if args.profile:
        with jax.profiler.trace(args.profile):
            for _ in range(3):
                train()

    train_rate = blocks(config, True) * block_flops(config, args.batch) / seconds["train"] / 1e9
    bare_rate = 8 * block_flops(config, micro) / seconds["bare"] / 1e9
    product_rate = PRODUCTS * 2.0 * side**3 / seconds["product"] / 1e9
    parameters = sum(x.size for x in jax.tree.leaves(variables["params"]))
    facts = dataclasses.asdict(config)
    shown = ("hidden_size", "num_heads", "H_layers", "L_layers", "halt_max_steps", "q_target")
    note = f"{config.forward_dtype}, {parameters:,} parameters, "
    note += ", ".join(f"{k} {facts[k]}" for k in (*shown, "attention"))
    note += f", batch {args.batch}, microbatch {micro}, sequence {config.seq_len}, slots {slots}"
    title = f"HRM training step and evaluation, D {config.hidden_size}, batch {args.batch}"
    table = Table("hrm_step", title, COLUMNS, notes=[note])
    fixed, halting = len(inputs) / seconds["fixed"], len(inputs) / seconds["halting"]
    weights = "trained weights" if args.workdir else "set by --halt_after"
    rows = [
        ("training step", seconds["train"] * 1e3, "ms"),
        ("training", args.batch / seconds["train"], "rows/s"),
        ("training, products only", train_rate, "GFLOP/s"),
        ("bare products, same shapes", bare_rate, "GFLOP/s"),
        ("fraction of bare products", train_rate / bare_rate * 100, "%"),
        ("one large product", product_rate, "GFLOP/s"),
        ("model FLOP utilisation of it", train_rate / product_rate * 100, "%"),
        ("memory: state and batch", memory.argument_size_in_bytes / 2**20, "MiB"),
        ("memory: scratch of the step", memory.temp_size_in_bytes / 2**20, "MiB"),
        (f"evaluation, fixed {config.halt_max_steps} steps", fixed, "puzzles/s"),
        (f"evaluation, halting after {steps:.2f} ({weights})", halting, "puzzles/s"),
    ]
    if args.torch:
        rate = len(inputs) / seconds["torch evaluation"]
        faster = seconds["torch training"] / seconds["train"]
        rows += [
            ("PyTorch training step", seconds["torch training"] * 1e3, "ms"),
            ("our training speed over PyTorch's", faster, "x"),
            ("PyTorch evaluation, all steps", rate, "puzzles/s"),
            ("our evaluation over PyTorch's, all steps", fixed / rate, "x"),
            ("our evaluation over PyTorch's, halting", halting / rate, "x"),
        ]
    for name, value, unit in rows:
        table.add(name, f"{value:,.2f}", unit)
    table.save(args.save)


if __name__ == "__main__":
    main()

"""Time of attention by each engine, forward and with its gradients.

    python benchmarks/attention.py                      # batch 768, 8 heads of 64, S 82 and 901
    python benchmarks/attention.py --tune --engines pallas

Engines: `xla`, `pallas` and `cudnn` of `hrm_jax.kernels.attention`, `jax.nn` (its own XLA path) and
`tokamax`, where they are installed and can take the sizes; what cannot run is said with its reason.
"turned" is self-attention as in HRM's layers: q, k and v stand side by side, q and k are turned by
their positions first (rotary), and the gradient is that of all three together. Its forward pass is
measured with a copy of the output into q's place, which feeds the next call.
Time is the device's: one program calls the engine many times, each on what the one before gave,
so that starting programs does not count. Engines take turns, medians are quoted. The roofline is
measured in the same process: the rate of one large product of matrices in this dtype, and that of
copying memory. An engine's share is the least time that its operations (4 B H S² C, gradients 2.5
times that, half of it if causal) and its operands' bytes allow, over the time it took.
--tune tries tile sizes of the kernels. The last lines are what `MEASURED` of
hrm_jax/kernels/attention.py should hold for this device.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from report import Table, add_save_flag

from hrm_jax.kernels.attention import attention, kind_of, self_attention
from hrm_jax.kernels.pallas_attention import Tiles, held_whole, pallas_attention
from hrm_jax.kernels.rotary import rotary_tables

COLUMNS = ("S", "causal", "engine", "pass", "µs", "TFLOP/s", "of the roofline", "over cudnn")

Engine = Callable[..., jax.Array]


def engines(causal: bool) -> dict[str, Engine]:
    """Name and function of (q, k, v), each [B, S, H, C]."""
    found: dict[str, Engine] = {
        name: functools.partial(attention, causal=causal, impl=name)
        for name in ("xla", "pallas", "cudnn")
    }
    found["jax.nn"] = functools.partial(
        jax.nn.dot_product_attention, is_causal=causal, implementation="xla"
    )
    try:
        import tokamax
    except ImportError:
        return found
    return {**found, "tokamax": functools.partial(tokamax.dot_product_attention, is_causal=causal)}


def tunings(length: int, size: int, dtype: jnp.dtype, causal: bool) -> Iterator[tuple[str, Engine]]:
    """The kernels under every sensible setting."""
    short = held_whole(length, size, dtype)
    if short:
        choices = [
            Tiles(warps=warps, back_warps=back, stages=stages)
            for warps, back, stages in itertools.product((2, 4, 8), (4, 8, 16), (1, 2))
        ]
    else:
        choices = [
            Tiles(rows, columns, rows, columns, warps, warps, stages)
            for rows, columns, warps, stages in itertools.product(
                (32, 64, 128), (32, 64, 128), (4, 8), (2, 3)
            )
        ]
    for tiles in choices:
        name = "" if short else f"{tiles.rows}×{tiles.columns}, "
        name += f"{tiles.warps}/{tiles.back_warps} warps, {tiles.stages} stages"
        yield name, lambda q, k, v, t=tiles: pallas_attention(q, k, v, None, causal, tiles=t)


def repeated(function: Callable[..., Any], operands: tuple[Any, ...], times: int) -> Any:
    """A compiled program that calls `function` `times` times, its first operand fed back."""

    def run(*operands: Any) -> Any:
        first, *rest = operands
        return jax.lax.fori_loop(0, times, lambda _, x: function(x, *rest), first)

    return jax.jit(run).lower(*operands).compile()


def with_gradients(engine: Engine) -> Engine:
    """Output and all three gradients, added up so that none can be left out."""

    def run(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        out, back = jax.vjp(engine, q, k, v)
        dq, dk, dv = back(out)
        return (dq + 1e-3 * dk + 1e-3 * dv).astype(q.dtype)

    return run


def turned(length: int, size: int) -> dict[str, dict[str, Engine]]:
    """Functions of q, k and v side by side [B, S, 3, H, C], by engine and pass."""
    rotary = rotary_tables(length, size, 1e4)

    def functions(impl: Any) -> dict[str, Engine]:
        engine = functools.partial(self_attention, rotary=rotary, impl=impl)

        def both(qkv: jax.Array) -> jax.Array:
            out, back = jax.vjp(engine, qkv)
            return back(out)[0]

        return {"forward": lambda qkv: qkv.at[:, :, 0].set(engine(qkv)), "both": both}

    return {f"{impl}, turned": functions(impl) for impl in ("xla", "pallas")}


def medians(programs: dict[Any, tuple[Any, Any, int]], rounds: int) -> dict[Any, float]:
    """Seconds of one call of each (program, operands, calls in it), measured in turn."""
    times: dict[Any, list[float]] = {name: [] for name in programs}
    for _ in range(rounds + 1):
        for name, (program, operands, calls) in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*operands))
            times[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def roofline(dtype: Any, size: int, rounds: int) -> tuple[float, float]:
    """Operations a second of a product of [size, size] matrices, and bytes a second of a copy."""
    square = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = repeated(lambda a, b: a @ b, (square / size, square), 4)
    copy = repeated(lambda a: a + 1, (jnp.tile(square, (2, 1)),), 4)
    programs = {"product": (product, (square / size, square), 4)}
    programs["copy"] = (copy, (jnp.tile(square, (2, 1)),), 4)
    seconds = medians(programs, rounds)
    moved = 2 * 2 * square.nbytes
    return 2.0 * size**3 / seconds["product"], moved / seconds["copy"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[82, 901])
    parser.add_argument("--batch", type=int, default=768, help="at S 82; less in longer sequences")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head_size", type=int, default=64)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--causal", action="store_true", help="measure causal attention too")
    parser.add_argument("--engines", nargs="+", help="only these")
    parser.add_argument("--tune", action="store_true", help="try tile sizes of the kernels")
    parser.add_argument("--calls", type=int, default=20, help="in one program")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--product", type=int, default=8192, help="size of the bare product")
    add_save_flag(parser)
    args = parser.parse_args(argv)

    dtype = jnp.dtype(args.dtype)
    rate, bandwidth = roofline(dtype, args.product, args.rounds)
    device = jax.devices()[0].device_kind
    table = Table(
        "attention",
        f"Attention, {args.dtype}, {args.heads} heads of {args.head_size}",
        COLUMNS,
        notes=[
            f"{device}. Measured in the same process: {rate / 1e12:.1f} TFLOP/s of a product of "
            f"{args.product} × {args.product} matrices, {bandwidth / 1e9:.0f} GB/s of a copy."
        ],
    )
    winners, failures = [], []
    for length, causal in itertools.product(args.lengths, (False, True)[: 1 + args.causal]):
        batch = max(1, args.batch * 82 // max(length, 82))
        shape = (batch, length, args.heads, args.head_size)
        keys = jax.random.split(jax.random.key(0), 3)
        operands = tuple(jax.random.normal(key, shape, dtype) for key in keys)
        chosen = {n: e for n, e in engines(causal).items() if n in (args.engines or [n])}
        if args.tune:
            chosen |= dict(tunings(length, args.head_size, dtype, causal))
        passes = {
            name: {"forward": engine, "both": with_gradients(engine)}
            for name, engine in chosen.items()
        }
        together = (jnp.stack(operands, axis=2),)
        if not causal:
            passes |= {
                name: functions
                for name, functions in turned(length, args.head_size).items()
                if name in (args.engines or [name])
            }
        programs = {}
        for name, functions in passes.items():
            given = together if name.endswith("turned") else operands
            for kind, function in functions.items():
                try:
                    program = repeated(function, given, args.calls)
                    jax.block_until_ready(program(*given))
                except Exception as error:  # whatever an engine cannot do, the others can
                    why = str(error).strip().splitlines()[:1]
                    failures.append(f"{name}, S {length}: {''.join(why)[:200]}")
                    break
                programs[name, kind] = (program, given, args.calls)
        seconds = medians(programs, args.rounds)
        forward = 4.0 * batch * args.heads * length**2 * args.head_size * (0.5 if causal else 1)
        size = operands[0].nbytes
        work = {"forward": (forward, 4 * size), "both": (3.5 * forward, 11 * size)}
        for (name, kind), taken in seconds.items():
            flops, moved = work[kind]
            least = max(flops / rate, moved / bandwidth)
            cudnn = None if name.endswith("turned") else seconds.get(("cudnn", kind))
            table.add(
                length, "yes" if causal else "no", name,
                "forward" if kind == "forward" else "forward and backward",
                f"{taken * 1e6:,.0f}", f"{flops / taken / 1e12:.1f}", f"{least / taken:.0%}",
                f"{cudnn / taken:.2f}×" if cudnn else "—",
            )  # fmt: skip
        ours = {n: s for (n, k), s in seconds.items() if k == "both" and n in engines(causal)}
        ours = {n: s for n, s in ours.items() if n in ("xla", "pallas", "cudnn")}
        if ours and not causal:
            kind = kind_of(device, length, args.head_size, dtype)
            winners.append(f"    {kind!r}: {min(ours, key=ours.__getitem__)!r},")
    for failure in dict.fromkeys(failures):
        print(f"not run: {failure}")
        table.notes.append(f"Not run: {failure}")
    print("\nMEASURED = {", *winners, "}", sep="\n")
    table.save(args.save)


if __name__ == "__main__":
    main()

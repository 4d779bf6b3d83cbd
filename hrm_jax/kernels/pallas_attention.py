"""Attention as Pallas kernels for GPUs, forward and backward.

Two pairs of kernels. Up to `SHORT` positions, a program holds the whole matrix of scores of a head
(FlashAttention's tiling has nothing to tile), and the backward pass recomputes it from q, k and v
alone: nothing else is saved, and one kernel writes all three gradients. Longer sequences go through
tiles with an online softmax, and the backward pass through two kernels, one for the gradient of q
and one for those of k and v.

All sums are float32. Lengths that are no multiple of a tile are masked where they are loaded and
stored. Triton needs tiles that are powers of two, so head sizes are 16, 32, 64 or 128.

This is the only file that knows Pallas, and it asks for Triton explicitly (a bare `pallas_call` is
lowered to Mosaic). JAX 0.11 deprecates Pallas' Triton backend. On the way to Mosaic GPU the four
kernel bodies stay what they are in their arithmetic; `load`, `store` and `dot` become copies into
shared memory (`plgpu.copy_gmem_to_smem`), `plgpu.wgmma` and `commit_smem_to_gmem`, and tails have
to be padded in shared memory, where masks end.

References:
    Dao, FlashAttention-2, algorithms 1 and 2 (https://arxiv.org/abs/2307.08691).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from hrm_jax.kernels.rotary import Rotary

SHORT = 128
"""Positions up to which a program can hold a whole matrix of scores, see `held_whole`."""

HEAD_SIZES = (16, 32, 64, 128)

_LOG2E = math.log2(math.e)
_MASKED = -1e30  # finite: a tile without a visible key must not give NaN


Dot = Callable[..., Array]


def _dot(compiled: bool) -> Dot:
    """The product of two tiles in float32, with "a" or "b" of them transposed.

    Float32 tiles are multiplied on tensor cores as three products of TF32 (error about 1e-6): exact
    products would be thousands of scalar instructions, which take ptxas half a minute and spill.
    """
    three = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3
    precision = three if compiled else jax.lax.Precision.HIGHEST

    def dot(a: Array, b: Array, transposed: str = "") -> Array:
        exact = precision if a.dtype == jnp.float32 else None
        return triton.dot(a, b, "a" in transposed, "b" in transposed, precision=exact)

    return dot


def _load(ref: Any, start: Any, size: int, *head: Any, columns: Any = slice(None)) -> Array:
    """`size` rows [size, C] of a ref [S, *, C] from `start` on, zeros behind its end."""
    at, mask = _rows(ref, start, size, head, columns)
    return triton.load(at, mask=mask, other=0.0)


def _store(ref: Any, start: Any, values: Array, *head: Any, columns: Any = slice(None)) -> None:
    """Stores rows from `start` on, those that are inside the ref."""
    at, mask = _rows(ref, start, values.shape[0], head, columns)
    triton.store(at, values.astype(ref.dtype), mask=mask)


def _rows(ref: Any, start: Any, size: int, head: Any, columns: Any) -> tuple[Any, Array]:
    """Where rows are, and which of them are inside the ref."""
    at = ref.at[(pl.ds(start, size), *(jnp.int32(index) for index in head), columns)]
    inside = start + jnp.arange(size) < ref.shape[0]
    return at, jnp.broadcast_to(inside[:, None], at.shape)


def _load_numbers(ref: Any, start: Any, size: int, *head: Any) -> Array:
    """`size` numbers of a ref [*, S] from `start` on, zeros behind its end."""
    inside = start + jnp.arange(size) < ref.shape[-1]
    return triton.load(ref.at[(*head, pl.ds(start, size))], mask=inside, other=0.0)


def _visible(rows: Any, columns: Any, valid: Any, causal: bool) -> Array:
    """Which keys (columns) a query (row) sees: those before `valid` and, if causal, up to it."""
    shown = jnp.broadcast_to((columns < valid)[None, :], (rows.shape[0], columns.shape[0]))
    return shown & (rows[:, None] >= columns[None, :]) if causal else shown


def _valid(lengths: list[Any], keys: int) -> Any:
    """How many keys there are: the row's length, where it is given."""
    return lengths[0][0] if lengths else keys


def _short_weights(
    dot: Dot, q: list[Array], k: list[Array], valid: Any, causal: bool
) -> tuple[Array, float]:
    """The softmax of all scores of a head [Sq, Sk], float32, and what scores are scaled by.

    q and k come in as many parts along C as they were turned in.
    """
    scale = sum(part.shape[1] for part in q) ** -0.5
    scores = sum(dot(a, b, "b") for a, b in zip(q, k, strict=True)) * (scale * _LOG2E)
    rows, columns = jnp.arange(scores.shape[0]), jnp.arange(scores.shape[1])
    scores = jnp.where(_visible(rows, columns, valid, causal), scores, _MASKED)
    weights = jnp.exp2(scores - jnp.max(scores, axis=1)[:, None])
    return weights / jnp.sum(weights, axis=1)[:, None], scale


def _score_gradients(
    dot: Dot, weights: Array, scale: float, v: Array, do: Array, dtype: Any
) -> Array:
    """The gradient of the scores, scaled, from the weights and the output's gradient."""
    dweights = dot(do, v, "b")
    mean = jnp.sum(weights * dweights, axis=1)
    return (weights * (dweights - mean[:, None]) * scale).astype(dtype)


def _short_forward(
    q_ref: Any, k_ref: Any, v_ref: Any, *refs: Any,
    dot: Dot, sizes: tuple[int, int], causal: bool,
) -> None:  # fmt: skip
    *lengths, o_ref = refs
    rows, columns = sizes
    q, k = _load(q_ref, 0, rows), _load(k_ref, 0, columns)
    weights, _ = _short_weights(dot, [q], [k], _valid(lengths, k_ref.shape[0]), causal)
    v = _load(v_ref, 0, columns)
    _store(o_ref, 0, dot(weights.astype(v.dtype), v))


def _short_backward(
    q_ref: Any, k_ref: Any, v_ref: Any, do_ref: Any, *refs: Any,
    dot: Dot, sizes: tuple[int, int], causal: bool,
) -> None:  # fmt: skip
    """All query heads of a key head, one after the other; q and do are [S, G, C] here."""
    *lengths, dq_ref, dk_ref, dv_ref = refs
    (_, groups, head), (rows, columns) = q_ref.shape, sizes
    k, v = _load(k_ref, 0, columns), _load(v_ref, 0, columns)
    valid = _valid(lengths, k_ref.shape[0])

    def body(group: Any, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        dk, dv = sums
        q = _load(q_ref, 0, rows, group)
        do = _load(do_ref, 0, rows, group)
        weights, scale = _short_weights(dot, [q], [k], valid, causal)
        dv = dv + dot(weights.astype(do.dtype), do, "a")
        dscores = _score_gradients(dot, weights, scale, v, do, q.dtype)
        _store(dq_ref, 0, dot(dscores, k), group)
        return dk + dot(dscores, q, "a"), dv

    zeros = jnp.zeros((columns, head), jnp.float32)
    dk, dv = body(jnp.int32(0), (zeros, zeros))
    if groups > 1:
        dk, dv = jax.lax.fori_loop(1, groups, body, (dk, dv))
    _store(dk_ref, 0, dk)
    _store(dv_ref, 0, dv)


def _turn(
    left: Array, right: Array, tables: tuple[Array, ...], back: bool = False
) -> tuple[Array, Array]:
    """Both halves of queries or keys, turned by their position's angle, or back; float32."""
    cos, sin = tables
    sin = -sin if back else sin
    return left * cos - right * sin, right * cos + left * sin


def _load_turned(qkv_ref: Any, which: int, rows: int, tables: tuple[Array, ...]) -> list[Array]:
    """Queries (0) or keys (1) of all positions, whole or, where they are turned, as two halves."""
    if not tables:
        return [_load(qkv_ref, 0, rows, which)]
    half = qkv_ref.shape[-1] // 2
    left, right = (
        _load(qkv_ref, 0, rows, which, columns=pl.ds(start, half)) for start in (0, half)
    )
    turned = _turn(left.astype(jnp.float32), right.astype(jnp.float32), tables)
    return [part.astype(left.dtype) for part in turned]


def _self_forward(qkv_ref: Any, *refs: Any, dot: Dot, rows: int) -> None:
    """One head of self-attention; refs are [S, 3, C], cosines and sines [S, C/2] or none, o."""
    *angles, o_ref = refs
    tables = tuple(_load(ref, 0, rows) for ref in angles)
    q, k = (_load_turned(qkv_ref, which, rows, tables) for which in (0, 1))
    weights, _ = _short_weights(dot, q, k, qkv_ref.shape[0], False)
    v = _load(qkv_ref, 0, rows, 2)
    _store(o_ref, 0, dot(weights.astype(v.dtype), v))


def _self_backward(qkv_ref: Any, do_ref: Any, *refs: Any, dot: Dot, rows: int) -> None:
    """Gradient of q, k and v [S, 3, C] of one head, q and k before they were turned."""
    *angles, dqkv_ref = refs
    tables = tuple(_load(ref, 0, rows) for ref in angles)
    q, k = (_load_turned(qkv_ref, which, rows, tables) for which in (0, 1))
    v, do = _load(qkv_ref, 0, rows, 2), _load(do_ref, 0, rows)
    weights, scale = _short_weights(dot, q, k, qkv_ref.shape[0], False)
    _store(dqkv_ref, 0, dot(weights.astype(do.dtype), do, "a"), 2)
    dscores = _score_gradients(dot, weights, scale, v, do, v.dtype)
    dq, dk = [dot(dscores, part) for part in k], [dot(dscores, part, "a") for part in q]
    for which, parts in enumerate((dq, dk)):
        if not tables:
            _store(dqkv_ref, 0, parts[0], which)
            continue
        half = dqkv_ref.shape[-1] // 2
        for start, part in zip(
            (0, half), _turn(parts[0], parts[1], tables, back=True), strict=True
        ):
            _store(dqkv_ref, 0, part, which, columns=pl.ds(start, half))


def _tiles_seen(start: Any, rows: int, columns: int, valid: Any, causal: bool) -> Any:
    """How many tiles of keys the queries from `start` on need."""
    last = jnp.minimum(valid, start + rows) if causal else valid
    return pl.cdiv(last, columns)


def _tiled_forward(
    q_ref: Any, k_ref: Any, v_ref: Any, *refs: Any,
    dot: Dot, sizes: tuple[int, int], causal: bool,
) -> None:  # fmt: skip
    *lengths, o_ref, total_ref = refs
    queries, keys, (rows, columns) = q_ref.shape[0], k_ref.shape[0], sizes
    start = jax.lax.rem(pl.program_id(0), pl.cdiv(queries, rows)) * rows
    places = start + jnp.arange(rows)
    q = _load(q_ref, start, rows)
    valid = _valid(lengths, keys)
    scale = q.shape[1] ** -0.5 * _LOG2E

    def body(tile: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        mixed, top, total = carry
        at = tile * columns
        k, v = _load(k_ref, at, columns), _load(v_ref, at, columns)
        shown = _visible(places, at + jnp.arange(columns), valid, causal)
        scores = jnp.where(shown, dot(q, k, "b") * scale, _MASKED)
        new_top = jnp.maximum(top, jnp.max(scores, axis=1))
        weights = jnp.exp2(scores - new_top[:, None])
        shrink = jnp.exp2(top - new_top)
        total = total * shrink + jnp.sum(weights, axis=1)
        mixed = mixed * shrink[:, None] + dot(weights.astype(v.dtype), v)
        return mixed, new_top, total

    mixed, top, total = jax.lax.fori_loop(
        0,
        _tiles_seen(start, rows, columns, valid, causal),
        body,
        (
            jnp.zeros((rows, q.shape[1]), jnp.float32),
            jnp.full((rows,), _MASKED, jnp.float32),
            jnp.zeros((rows,), jnp.float32),
        ),
    )
    _store(o_ref, start, mixed / total[:, None])
    triton.store(total_ref.at[pl.ds(start, rows)], top + jnp.log2(total), mask=places < queries)


def _tile_gradients(
    dot: Dot, q: Array, k: Array, v: Array, do: Array, total: Array, mean: Array, shown: Array
) -> tuple[Array, Array]:
    """Weights of a tile, and the gradient of its scores (before scaling) as its operands' dtype."""
    scores = dot(q, k, "b") * (q.shape[1] ** -0.5 * _LOG2E)
    weights = jnp.where(shown, jnp.exp2(scores - total[:, None]), 0.0)
    dscores = weights * (dot(do, v, "b") - mean[:, None]) * q.shape[1] ** -0.5
    return weights, dscores.astype(q.dtype)


def _tiled_backward_q(
    q_ref: Any, k_ref: Any, v_ref: Any, do_ref: Any, total_ref: Any, mean_ref: Any, *refs: Any,
    dot: Dot, sizes: tuple[int, int], causal: bool,
) -> None:  # fmt: skip
    *lengths, dq_ref = refs
    queries, keys, (rows, columns) = q_ref.shape[0], k_ref.shape[0], sizes
    start = jax.lax.rem(pl.program_id(0), pl.cdiv(queries, rows)) * rows
    places = start + jnp.arange(rows)
    q, do = _load(q_ref, start, rows), _load(do_ref, start, rows)
    total = _load_numbers(total_ref, start, rows)
    mean = _load_numbers(mean_ref, start, rows)
    valid = _valid(lengths, keys)

    def body(tile: Any, dq: Array) -> Array:
        at = tile * columns
        k, v = _load(k_ref, at, columns), _load(v_ref, at, columns)
        shown = _visible(places, at + jnp.arange(columns), valid, causal)
        return dq + dot(_tile_gradients(dot, q, k, v, do, total, mean, shown)[1], k)

    tiles = _tiles_seen(start, rows, columns, valid, causal)
    zeros = jnp.zeros((rows, q.shape[1]), jnp.float32)
    _store(dq_ref, start, jax.lax.fori_loop(0, tiles, body, zeros))


def _tiled_backward_kv(
    q_ref: Any, k_ref: Any, v_ref: Any, do_ref: Any, total_ref: Any, mean_ref: Any, *refs: Any,
    dot: Dot, sizes: tuple[int, int], causal: bool,
) -> None:  # fmt: skip
    """All query heads of a key head; q and do are [S, G, C] here, total and mean [G, S]."""
    *lengths, dk_ref, dv_ref = refs
    (queries, groups, head), keys = q_ref.shape, k_ref.shape[0]
    rows, columns = sizes
    start = jax.lax.rem(pl.program_id(0), pl.cdiv(keys, columns)) * columns
    places = start + jnp.arange(columns)
    k, v = _load(k_ref, start, columns), _load(v_ref, start, columns)
    valid = _valid(lengths, keys)
    # Queries behind the end have do = 0, and so add nothing.
    first = jax.lax.div(start, rows) if causal else 0

    def body(index: Any, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        dk, dv = sums
        group, at = jax.lax.rem(index, groups), (first + jax.lax.div(index, groups)) * rows
        q = _load(q_ref, at, rows, group)
        do = _load(do_ref, at, rows, group)
        total = _load_numbers(total_ref, at, rows, group)
        mean = _load_numbers(mean_ref, at, rows, group)
        shown = _visible(at + jnp.arange(rows), places, valid, causal)
        weights, dscores = _tile_gradients(dot, q, k, v, do, total, mean, shown)
        dv = dv + dot(weights.astype(do.dtype), do, "a")
        return dk + dot(dscores, q, "a"), dv

    zeros = jnp.zeros((columns, head), jnp.float32)
    # No `jnp.where` here: of two constants, JAX 0.10's Triton lowering makes booleans.
    count = (start < valid).astype(jnp.int32) * ((pl.cdiv(queries, rows) - first) * groups)
    dk, dv = jax.lax.fori_loop(0, count, body, (zeros, zeros))
    _store(dk_ref, start, dk)
    _store(dv_ref, start, dv)


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Tile sizes and Triton's settings; the defaults are starting points, not measurements.

    They are such that an H200 has the registers for them, as `kernel_resources` of
    benchmarks/analysis/gpu_compiler.py tells: those here for 16-bit floats, `TILES_32` for float32.
    """

    rows: int = 128  # queries of a tile in the forward pass; sizes are powers of two from 16 on
    columns: int = 64  # keys
    back_rows: int = 64
    back_columns: int = 64
    warps: int = 0  # of a program (32 threads each); 0 chooses by the tile
    back_warps: int = 0
    stages: int = 2  # of the software pipeline


TILES_32 = Tiles(rows=64, columns=32, back_rows=32, back_columns=32)
"""For float32, whose products take three times the registers."""


def _power_of_two(length: int) -> int:
    return max(16, pl.next_power_of_2(length))


def held_whole(length: int, size: int, dtype: Any) -> bool:
    """Whether a program holds the scores of a head of so many positions, and all else it needs.

    Longer float32 ones, compiled for an H200, want more shared memory than a program can have.
    """
    rows = _power_of_two(length)
    if jnp.dtype(dtype).itemsize > 2:
        return rows <= SHORT // 2 and rows * size <= 2048
    return rows <= SHORT


class _Part(NamedTuple):
    """What a program gets of an array: its block at `place` of (row, head)."""

    array: Any  # or its shape
    block: tuple[int | None, ...]
    place: Callable[[Any, Any], tuple[Any, ...]]


def _call(
    body: Any,
    name: str,
    grid: tuple[int, int, int],
    operands: list[_Part],
    outputs: list[_Part],
    lengths: Int[Array, " B"] | None,
    warps: int,
    stages: int,
) -> Any:
    """One program for each tile of each head of each row (`grid`): tiles change fastest.

    `body` takes refs of operands, of the row's length where there are lengths, and of outputs.
    """
    tiles, heads, batch = grid

    def spec(part: _Part) -> pl.BlockSpec:
        def index(program: Any) -> Any:
            head = jax.lax.div(program, tiles)
            return part.place(jax.lax.div(head, heads), jax.lax.rem(head, heads))

        return pl.BlockSpec(part.block, index)

    if lengths is not None:
        valid = jnp.maximum(lengths, 1).astype(jnp.int32)
        operands = [*operands, _Part(valid, (1,), lambda row, head: (row,))]

    def call(interpret: bool) -> Any:
        def kernel(*refs: Any) -> None:
            body(*refs, dot=_dot(compiled=not interpret))

        kernel.__name__ = name  # JAX 0.11 names Triton's kernels by it
        return pl.pallas_call(
            kernel,
            grid=(tiles * heads * batch,),
            in_specs=[spec(part) for part in operands],
            out_specs=[spec(part) for part in outputs],
            out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x, _, _ in outputs],
            compiler_params=triton.CompilerParams(num_warps=warps, num_stages=stages),
            interpret=interpret,
            name=name,
        )

    # Compiled for CUDA, also when lowered elsewhere; interpreted where there is no Triton.
    arrays = (part.array for part in operands)
    return jax.lax.platform_dependent(*arrays, cuda=call(False), default=call(True))


def _own(row: Any, head: Any) -> tuple[Any, ...]:
    return row, 0, head, 0


def _shared(groups: int) -> Any:
    return lambda row, head: (row, 0, jax.lax.div(head, groups), 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attend(
    q: Array, k: Array, v: Array, lengths: Array | None, causal: bool, short: bool, tiles: Tiles
) -> Array:
    return _forward(q, k, v, lengths, causal, short, tiles)[0]


def _forward(
    q: Array, k: Array, v: Array, lengths: Array | None, causal: bool, short: bool, tiles: Tiles
) -> tuple[Array, tuple[Any, ...]]:
    (batch, queries, heads, size), (keys, key_heads) = q.shape, k.shape[1:3]
    own, shared = (None, queries, None, size), (None, keys, None, size)
    of_key = _shared(heads // key_heads)
    operands = [_Part(q, own, _own), _Part(k, shared, of_key), _Part(v, shared, of_key)]
    out = _Part(q, own, _own)
    if short:
        sizes = (_power_of_two(queries), _power_of_two(keys))
        body = functools.partial(_short_forward, sizes=sizes, causal=causal)
        warps = tiles.warps or (8 if math.prod(sizes) > 64 * 64 else 4)
        grid = (1, heads, batch)
        [o] = _call(body, "attention_short", grid, operands, [out], lengths, warps, tiles.stages)
        return o, (q, k, v, lengths)
    sizes = (tiles.rows, tiles.columns)
    body = functools.partial(_tiled_forward, sizes=sizes, causal=causal)
    total = jax.ShapeDtypeStruct((batch, heads, queries), jnp.float32)
    outputs = [out, _Part(total, (None, None, queries), lambda row, head: (row, head, 0))]
    grid = (pl.cdiv(queries, tiles.rows), heads, batch)
    warps = tiles.warps or (8 if size > 64 or tiles.rows > 64 else 4)
    o, total = _call(body, "attention_tiled", grid, operands, outputs, lengths, warps, tiles.stages)
    return o, (q, k, v, lengths, o, total)


def _backward(
    causal: bool, short: bool, tiles: Tiles, saved: tuple[Any, ...], do: Array
) -> tuple[Any, ...]:
    q, k, v, lengths, *rest = saved
    (batch, queries, heads, size), (keys, key_heads) = q.shape, k.shape[1:3]
    groups = heads // key_heads
    of_key, grouped = (None, keys, None, size), (None, queries, groups, size)
    operands = [_Part(q, grouped, _own), _Part(k, of_key, _own), _Part(v, of_key, _own)]
    operands.append(_Part(do, grouped, _own))
    outputs = [_Part(k, of_key, _own), _Part(v, of_key, _own)]
    if short:
        sizes = (_power_of_two(queries), _power_of_two(keys))
        body = functools.partial(_short_backward, sizes=sizes, causal=causal)
        warps = tiles.back_warps or (8 if math.prod(sizes) > 64 * 64 else 4)
        grid, outputs = (1, key_heads, batch), [_Part(q, grouped, _own), *outputs]
        dq, dk, dv = _call(
            body, "attention_short_back", grid, operands, outputs, lengths, warps, tiles.stages
        )
        return dq, dk, dv, None
    o, total = rest
    mean = jnp.sum(o.astype(jnp.float32) * do.astype(jnp.float32), axis=-1)
    mean = jnp.swapaxes(mean, 1, 2)  # [B, H, S]
    sizes = (tiles.back_rows, tiles.back_columns)
    warps = tiles.back_warps or (8 if size > 64 else 4)

    def numbers(count: int | None) -> list[_Part]:
        block = (None, count, queries)
        return [_Part(x, block, lambda row, head: (row, head, 0)) for x in (total, mean)]

    body = functools.partial(_tiled_backward_kv, sizes=sizes, causal=causal)
    grid = (pl.cdiv(keys, tiles.back_columns), key_heads, batch)
    operands += numbers(groups)
    dk, dv = _call(
        body, "attention_tiled_back_kv", grid, operands, outputs, lengths, warps, tiles.stages
    )
    body = functools.partial(_tiled_backward_q, sizes=sizes, causal=causal)
    grid = (pl.cdiv(queries, tiles.back_rows), heads, batch)
    one, shared = (None, queries, None, size), _shared(groups)
    operands = [_Part(q, one, _own), _Part(k, of_key, shared), _Part(v, of_key, shared)]
    operands += [_Part(do, one, _own), *numbers(None)]
    outputs = [_Part(q, one, _own)]
    [dq] = _call(
        body, "attention_tiled_back_q", grid, operands, outputs, lengths, warps, tiles.stages
    )
    return dq, dk, dv, None


_attend.defvjp(_forward, _backward)


def pallas_attention(
    q: Float[Array, "B S H C"],
    k: Float[Array, "B T K C"],
    v: Float[Array, "B T K C"],
    lengths: Int[Array, " B"] | None,
    causal: bool,
    *,
    short: bool | None = None,
    tiles: Tiles | None = None,
) -> Float[Array, "B S H C"]:
    """`hrm_jax.kernels.attention.attention` on one device, for `HEAD_SIZES`.

    Scores are held whole if `short`, else where `held_whole` says so.
    """
    if short is None:
        short = held_whole(max(q.shape[1], k.shape[1]), q.shape[-1], q.dtype)
    if tiles is None:
        tiles = TILES_32 if q.dtype.itemsize > 2 else Tiles()
    return _attend(q, k, v, lengths, causal, short, tiles)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _attend_self(qkv: Array, angles: tuple[Array, ...], tiles: Tiles) -> Array:
    return _self_call(_self_forward, "attention_self", qkv, angles, None, tiles)


def _self_gradient(tiles: Tiles, saved: tuple[Any, ...], do: Array) -> tuple[Any, ...]:
    qkv, angles = saved
    dqkv = _self_call(_self_backward, "attention_self_back", qkv, angles, do, tiles)
    return dqkv, jax.tree.map(jnp.zeros_like, angles)


_attend_self.defvjp(lambda *args: (_attend_self(*args), args[:2]), _self_gradient)


def _self_call(
    body: Any, name: str, qkv: Array, angles: tuple[Array, ...], do: Array | None, tiles: Tiles
) -> Array:
    batch, length, _, heads, size = qkv.shape
    whole = _Part(qkv, (None, length, 3, None, size), lambda row, head: (row, 0, 0, head, 0))
    output = jax.ShapeDtypeStruct((batch, length, heads, size), qkv.dtype)
    single = _Part(output, (None, length, None, size), _own)
    tables = [_Part(table, table.shape, lambda row, head: (0, 0)) for table in angles]
    operands = [whole, *([] if do is None else [single._replace(array=do)]), *tables]
    rows = _power_of_two(length)
    warps = (tiles.warps if do is None else tiles.back_warps) or (8 if rows > 64 else 4)
    outputs = [single if do is None else whole]
    body = functools.partial(body, rows=rows)
    [out] = _call(body, name, (1, heads, batch), operands, outputs, None, warps, tiles.stages)
    return out


def pallas_self_attention(
    qkv: Float[Array, "B S 3 H C"],
    rotary: Rotary | None,
    *,
    tiles: Tiles = Tiles(),
) -> Float[Array, "B S H C"]:
    """Attention of all positions to all, on one device, where `held_whole` allows it.

    Queries, keys and values are read where one product has left them, q and k are turned on the
    way, and the gradient is written as one array: no copy of any of them is made around the kernel.
    C is one of `HEAD_SIZES`, with rotation at least 32; the halves of `rotary` are alike.
    """
    half = qkv.shape[-1] // 2
    angles = () if rotary is None else tuple(jnp.asarray(x, jnp.float32)[:, :half] for x in rotary)
    return _attend_self(qkv, angles, tiles)

"""Attention as Pallas kernels for GPUs, forward and backward.

Two pairs of kernels. Up to `SHORT` positions, a program holds the whole matrix of scores of a head
(FlashAttention's tiling has nothing to tile), and the backward pass recomputes it from q, k and v
alone: nothing else is saved, and one kernel writes all three gradients. Longer sequences go through
tiles with an online softmax, and the backward pass through two kernels, one for the gradient of q
and one for those of k and v.

All sums are float32. Lengths that are no multiple of a tile are masked where they are loaded and
stored. Triton needs tiles that are powers of two, so head sizes are 16, 32, 64, 128 or 256.

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

SHORT = 128
"""Positions up to which a program holds a whole matrix of scores."""

HEAD_SIZES = (16, 32, 64, 128, 256)

_LOG2E = math.log2(math.e)
_MASKED = -1e30  # finite: a tile without a visible key must not give NaN


def _dot(a: Array, b: Array, transposed: str = "") -> Array:
    """The product of two tiles in float32, with a or b transposed; no rounding to TF32."""
    return triton.dot(
        a,
        b,
        trans_a="a" in transposed,
        trans_b="b" in transposed,
        precision=jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None,
    )


def _load(ref: Any, start: Any, size: int, *head: Any) -> Array:
    """`size` rows [size, C] of a ref [S, *, C] from `start` on, zeros behind its end."""
    inside = start + jnp.arange(size) < ref.shape[0]
    mask = jnp.broadcast_to(inside[:, None], (size, ref.shape[-1]))
    return triton.load(ref.at[(pl.ds(start, size), *head, slice(None))], mask=mask, other=0.0)


def _store(ref: Any, start: Any, values: Array, *head: Any) -> None:
    """Stores rows from `start` on, those that are inside the ref."""
    inside = start + jnp.arange(values.shape[0]) < ref.shape[0]
    mask = jnp.broadcast_to(inside[:, None], values.shape)
    at = ref.at[(pl.ds(start, values.shape[0]), *head, slice(None))]
    triton.store(at, values.astype(ref.dtype), mask=mask)


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


def _short_weights(q: Array, k: Array, valid: Any, causal: bool) -> Array:
    """The softmax of all scores of a head [Sq, Sk], float32."""
    rows, columns = jnp.arange(q.shape[0]), jnp.arange(k.shape[0])
    scores = _dot(q, k, "b") * (q.shape[1] ** -0.5 * _LOG2E)
    scores = jnp.where(_visible(rows, columns, valid, causal), scores, _MASKED)
    weights = jnp.exp2(scores - jnp.max(scores, axis=1)[:, None])
    return weights / jnp.sum(weights, axis=1)[:, None]


def _short_forward(
    q_ref: Any, k_ref: Any, v_ref: Any, *refs: Any, sizes: tuple[int, int], causal: bool
) -> None:
    *lengths, o_ref = refs
    rows, columns = sizes
    q, k = _load(q_ref, 0, rows), _load(k_ref, 0, columns)
    weights = _short_weights(q, k, _valid(lengths, k_ref.shape[0]), causal)
    v = _load(v_ref, 0, columns)
    _store(o_ref, 0, _dot(weights.astype(v.dtype), v))


def _short_backward(
    q_ref: Any, k_ref: Any, v_ref: Any, do_ref: Any, *refs: Any,
    sizes: tuple[int, int], causal: bool,
) -> None:  # fmt: skip
    """All query heads of a key head, one after the other; q and do are [S, G, C] here."""
    *lengths, dq_ref, dk_ref, dv_ref = refs
    (_, groups, head), (rows, columns) = q_ref.shape, sizes
    scale = head**-0.5
    k, v = _load(k_ref, 0, columns), _load(v_ref, 0, columns)
    valid = _valid(lengths, k_ref.shape[0])

    def body(group: Any, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        dk, dv = sums
        q = _load(q_ref, 0, rows, group)
        do = _load(do_ref, 0, rows, group)
        weights = _short_weights(q, k, valid, causal)
        dv = dv + _dot(weights.astype(do.dtype), do, "a")
        dweights = _dot(do, v, "b")
        mean = jnp.sum(weights * dweights, axis=1)
        dscores = (weights * (dweights - mean[:, None]) * scale).astype(q.dtype)
        _store(dq_ref, 0, _dot(dscores, k), group)
        return dk + _dot(dscores, q, "a"), dv

    zeros = jnp.zeros((columns, head), jnp.float32)
    dk, dv = body(jnp.int32(0), (zeros, zeros))
    if groups > 1:
        dk, dv = jax.lax.fori_loop(1, groups, body, (dk, dv))
    _store(dk_ref, 0, dk)
    _store(dv_ref, 0, dv)


def _tiles_seen(start: Any, rows: int, columns: int, valid: Any, causal: bool) -> Any:
    """How many tiles of keys the queries from `start` on need."""
    last = jnp.minimum(valid, start + rows) if causal else valid
    return pl.cdiv(last, columns)


def _tiled_forward(
    q_ref: Any, k_ref: Any, v_ref: Any, *refs: Any, sizes: tuple[int, int], causal: bool
) -> None:
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
        scores = jnp.where(shown, _dot(q, k, "b") * scale, _MASKED)
        new_top = jnp.maximum(top, jnp.max(scores, axis=1))
        weights = jnp.exp2(scores - new_top[:, None])
        shrink = jnp.exp2(top - new_top)
        total = total * shrink + jnp.sum(weights, axis=1)
        mixed = mixed * shrink[:, None] + _dot(weights.astype(v.dtype), v)
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
    q: Array, k: Array, v: Array, do: Array, total: Array, mean: Array, shown: Array
) -> tuple[Array, Array]:
    """Weights of a tile, and the gradient of its scores (before scaling) as its operands' dtype."""
    scores = _dot(q, k, "b") * (q.shape[1] ** -0.5 * _LOG2E)
    weights = jnp.where(shown, jnp.exp2(scores - total[:, None]), 0.0)
    dscores = weights * (_dot(do, v, "b") - mean[:, None]) * q.shape[1] ** -0.5
    return weights, dscores.astype(q.dtype)


def _tiled_backward_q(
    q_ref: Any, k_ref: Any, v_ref: Any, do_ref: Any, total_ref: Any, mean_ref: Any, *refs: Any,
    sizes: tuple[int, int], causal: bool,
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
        return dq + _dot(_tile_gradients(q, k, v, do, total, mean, shown)[1], k)

    tiles = _tiles_seen(start, rows, columns, valid, causal)
    zeros = jnp.zeros((rows, q.shape[1]), jnp.float32)
    _store(dq_ref, start, jax.lax.fori_loop(0, tiles, body, zeros))


def _tiled_backward_kv(
    q_ref: Any, k_ref: Any, v_ref: Any, do_ref: Any, total_ref: Any, mean_ref: Any, *refs: Any,
    sizes: tuple[int, int], causal: bool,
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
        weights, dscores = _tile_gradients(q, k, v, do, total, mean, shown)
        dv = dv + _dot(weights.astype(do.dtype), do, "a")
        return dk + _dot(dscores, q, "a"), dv

    zeros = jnp.zeros((columns, head), jnp.float32)
    count = jnp.where(start < valid, (pl.cdiv(queries, rows) - first) * groups, 0)
    dk, dv = jax.lax.fori_loop(0, count, body, (zeros, zeros))
    _store(dk_ref, start, dk)
    _store(dv_ref, start, dv)


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Tile sizes and Triton's settings; the defaults are starting points, not measurements.

    Attributes:
        rows, columns: Queries and keys of a tile in the forward pass, powers of two from 16 on.
        back_rows, back_columns: In the backward pass.
        warps, back_warps: Warps of a program (32 threads each); 0 chooses by the tile.
        stages: Depth of the software pipeline.
    """

    rows: int = 128
    columns: int = 64
    back_rows: int = 64
    back_columns: int = 64
    warps: int = 0
    back_warps: int = 0
    stages: int = 2


def _power_of_two(length: int) -> int:
    return max(16, pl.next_power_of_2(length))


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
    """One program for each tile of each head of each row, in that order: tiles change fastest.

    Args:
        body: Of (refs of operands, ref of the row's length where there are lengths, refs of
            outputs).
        name: For profiles.
        grid: Tiles, heads, rows.
        operands, outputs: What goes in and out.
        lengths: Valid keys of each row, or None.
        warps, stages: For Triton.
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
        return pl.pallas_call(
            body,
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
    warps = tiles.warps or (8 if size > 64 else 4)
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
    tiles: Tiles = Tiles(),
) -> Float[Array, "B S H C"]:
    """softmax(q kᵀ / √C) v by the kernels of this file, on one device.

    Args:
        q, k, v: Queries, keys and values; C is one of `HEAD_SIZES`, K divides H.
        lengths: Valid keys of each row, at least one of which is always seen; None takes all.
        causal: Whether query s sees keys up to s only; then S = T.
        short: Whether scores are held whole; None does up to `SHORT` queries and keys.
        tiles: Sizes of what a program works on.

    Returns:
        Attended values in the dtype of `q`.
    """
    if short is None:
        short = max(q.shape[1], k.shape[1]) <= SHORT
    return _attend(q, k, v, lengths, causal, short, tiles)

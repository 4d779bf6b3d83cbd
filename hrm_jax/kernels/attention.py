"""Scaled dot-product attention behind one function, with three engines."""

from __future__ import annotations

import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from hrm_jax.kernels.pallas_attention import (
    HEAD_SIZES,
    held_whole,
    pallas_attention,
    pallas_self_attention,
)
from hrm_jax.kernels.rotary import Rotary, apply_rotary

Engine = Literal["auto", "xla", "pallas", "cudnn"]

MEASURED: dict[str, str] = {
    "NVIDIA H100 80GB HBM3, S ≤ 128, C 64, bfloat16": "pallas",
    "NVIDIA H100 80GB HBM3, S ≤ 1024, C 64, bfloat16": "pallas",
}
"""Engines that `benchmarks/attention.py` found fastest, by kind of device and sizes.

Keys are `kind_of`'s; what is not in here runs with XLA.
"""


def kind_of(device_kind: str, length: int, head_size: int, dtype: jnp.dtype) -> str:
    """Key of `MEASURED`: device, sequence length rounded up to a power of two, C and dtype."""
    rounded = 1 << max(0, length - 1).bit_length()
    return f"{device_kind}, S ≤ {rounded}, C {head_size}, {jnp.dtype(dtype).name}"


def attention(
    q: Float[Array, "B S H C"],
    k: Float[Array, "B T K C"],
    v: Float[Array, "B T K C"],
    *,
    causal: bool = False,
    lengths: Int[Array, " B"] | None = None,
    window: int = 0,
    segments: Int[Array, "B S"] | None = None,
    impl: Engine = "auto",
) -> Float[Array, "B S H C"]:
    """Attention: softmax(q kᵀ / √C) v, with sums in float32.

    Args:
        q, k, v: Queries, keys and values of one float dtype. K divides H: each key head serves
            H / K query heads in a row.
        causal: Whether query s sees keys up to s only; then S = T.
        lengths: Keys that are valid in each row, the first of which is always seen, so that no
            softmax is empty. None takes all.
        window: With `causal`, how many keys a query sees at most, its own among them; 0 is all.
            Where that leaves keys out, "auto" is XLA, and no other engine does it.
        segments: Number of the text that each position is of: it sees those of its own alone; then
            S = T. With them "auto" is XLA, and no other engine does it.
        impl: "xla" runs everywhere. "pallas" is this package's kernels: compiled on NVIDIA GPUs,
            interpreted (slow, for tests) elsewhere. "cudnn" needs such a GPU and 16-bit floats.
            "auto" takes what was measured to be fastest on this device at these sizes, see
            `MEASURED`, and XLA where nothing was.

    Raises:
        ValueError: The shapes do not fit, or the engine cannot take them; the message says why.

    References:
        Vaswani et al., Attention Is All You Need, eq. 1 (https://arxiv.org/abs/1706.03762);
        Ainslie et al., GQA (https://arxiv.org/abs/2305.13245), for fewer key heads.
    """
    (_, queries, heads, size), (keys, key_heads) = q.shape, k.shape[1:3]
    if impl not in get_args(Engine):
        raise ValueError(f"impl: expected one of {', '.join(get_args(Engine))}, got {impl!r}")
    if heads % key_heads:
        raise ValueError(f"{key_heads} key heads do not divide {heads} query heads")
    if causal and queries != keys:
        raise ValueError(f"causal attention: {queries} queries and {keys} keys, expected as many")
    if window and not causal:
        raise ValueError(f"window: {window}, but attention is not causal")
    if segments is not None and queries != keys:
        raise ValueError(f"segments: {queries} queries and {keys} keys, expected as many")
    special = "window of keys" if 0 < window < keys else "segments" if segments is not None else ""
    if special:
        if impl not in ("auto", "xla"):
            raise ValueError(f"impl={impl!r}: has no {special}, expected 'xla' or 'auto'")
        impl = "xla"
    impl = _measured(impl, max(queries, keys), size, q.dtype)
    if impl == "pallas":
        if size not in HEAD_SIZES:
            raise ValueError(f"impl='pallas': head size {size}, expected one of {HEAD_SIZES}")
        return _by_row(functools.partial(pallas_attention, causal=causal), q, k, v, lengths)
    if impl == "cudnn":
        if q.dtype not in (jnp.bfloat16, jnp.float16):
            raise ValueError(f"impl='cudnn': expected bfloat16 or float16, got {q.dtype}")
        if jax.default_backend() != "gpu":
            raise ValueError(f"impl='cudnn': needs an NVIDIA GPU, not {jax.default_backend()}")
        return jax.nn.dot_product_attention(
            q, k, v, is_causal=causal, implementation="cudnn",
            key_value_seq_lengths=None if lengths is None else jnp.maximum(lengths, 1),
        )  # fmt: skip
    mask = None
    places = jnp.arange(keys)
    if causal:
        mask = seen(places, keys, window)[None]
    if lengths is not None:
        valid = (places < jnp.maximum(lengths, 1)[:, None])[:, None]
        mask = valid if mask is None else mask & valid
    if segments is not None:
        same = segments[:, :, None] == segments[:, None, :]
        mask = same if mask is None else mask & same
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    return jnp.swapaxes(masked_attention(q, k, v, mask), 1, 2)


def self_attention(
    qkv: Float[Array, "B S 3 H C"], rotary: Rotary | None = None, *, impl: Engine = "auto"
) -> Float[Array, "B S H C"]:
    """Attention of all positions to all, from queries, keys and values that stand side by side.

    The same as `attention` of the three, q and k turned by `apply_rotary` before. The kernels do
    that themselves where a sequence is short: turning and dividing cost as many bytes as attention.
    """
    length, size = qkv.shape[1], qkv.shape[-1]
    impl = _measured(impl, length, size, qkv.dtype)
    if impl == "pallas" and size in (32, 64, 128) and held_whole(length, size, qkv.dtype):
        return _by_row(lambda x: pallas_self_attention(x, rotary), qkv)
    q, k, v = (qkv[:, :, i] for i in range(3))
    if rotary is not None:
        q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
    return attention(q, k, v, impl=impl)


def seen(positions: Int[Array, "*B S"], length: int, window: int = 0) -> Bool[Array, "*B S T"]:
    """Which of `length` keys T queries at these positions see: those up to their own, and of these
    the last `window`, if any."""
    places = jnp.arange(length)
    shown = places <= positions[..., None]
    return shown & (places > positions[..., None] - window) if window else shown


def _measured(impl: Engine, length: int, size: int, dtype: jnp.dtype) -> Engine:
    """The engine that "auto" means here."""
    if impl != "auto" or jax.default_backend() != "gpu":
        return "xla" if impl == "auto" else impl
    kind = kind_of(jax.devices()[0].device_kind, length, size, dtype)
    return MEASURED.get(kind, "xla")  # type: ignore[return-value]


def _by_row(engine: Any, *arrays: Array | None) -> Array:
    """Each device of the mesh in use (`jax.set_mesh`) takes its rows: kernels are not divided by
    the compiler. Rows that the devices cannot share equally are worked on by all, and those that
    are a device's already (in a `jax.shard_map`) by that one."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return engine(*arrays)
    count = arrays[0].shape[0]  # type: ignore[union-attr]
    rows = PartitionSpec(mesh.axis_names if count % mesh.size == 0 else None)
    divided = jax.shard_map(engine, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    return divided(*arrays)


def masked_attention(
    q: Float[Array, "B H S C"],
    k: Float[Array, "B K T C"],
    v: Float[Array, "B K T C"],
    mask: Bool[Array, "#B #S T"] | None = None,
) -> Float[Array, "B H S C"]:
    """Attention by XLA, of queries to the keys that `mask` shows them, at least one each.

    Heads come before positions, so that both products are plain batched matrix products without
    any change of layout. The softmax is taken in float32, and its division is done after the
    product with `v`, on [S, C] values instead of [S, T].
    """
    batch, heads, length, channels = q.shape
    key_heads = k.shape[1]
    if heads != key_heads:  # the queries of a group are rows of one product
        q = q.reshape(batch, key_heads, heads // key_heads * length, channels)
    scale = channels**-0.5
    scores = jnp.einsum("bhsc,bhtc->bhst", q * scale, k, preferred_element_type=jnp.float32)
    if mask is not None:
        shown = jnp.tile(mask, (1, heads // key_heads if mask.shape[1] > 1 else 1, 1))
        scores = jnp.where(shown[:, None], scores, jnp.finfo(scores.dtype).min)
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    mixed = jnp.einsum(
        "bhst,bhtc->bhsc", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
    )
    return (mixed / total).astype(q.dtype).reshape(batch, heads, length, channels)

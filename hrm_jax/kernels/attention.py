"""Scaled dot-product attention behind one function, with three engines."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from hrm_jax.kernels.pallas_attention import HEAD_SIZES, pallas_attention

Engine = Literal["auto", "xla", "pallas", "cudnn"]

MEASURED: dict[str, str] = {}
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
    impl: Engine = "auto",
) -> Float[Array, "B S H C"]:
    """Attention: softmax(q kᵀ / √C) v, with sums in float32.

    Args:
        q: Queries, any float dtype.
        k: Keys, same dtype. K divides H: each key head serves H / K query heads in a row.
        v: Values, same dtype.
        causal: Whether query s sees keys up to s only; then S = T.
        lengths: Keys that are valid in each row, the first of which is always seen, so that no
            softmax is empty. None takes all.
        impl: "xla" runs everywhere. "pallas" is this package's kernels: compiled on NVIDIA GPUs,
            interpreted (slow, for tests) elsewhere. "cudnn" needs such a GPU and 16-bit floats.
            "auto" takes what was measured to be fastest on this device at these sizes, see
            `MEASURED`, and XLA where nothing was.

    Returns:
        Attended values in the dtype of `q`. Gradients are those of q, k and v.

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
    if impl == "auto":
        impl = "xla"
        if jax.default_backend() == "gpu":
            kind = kind_of(jax.devices()[0].device_kind, max(queries, keys), size, q.dtype)
            impl = MEASURED.get(kind, "xla")  # type: ignore[assignment]
    if impl == "pallas":
        if size not in HEAD_SIZES:
            raise ValueError(f"impl='pallas': head size {size}, expected one of {HEAD_SIZES}")
        return _by_row(pallas_attention, q, k, v, lengths, causal)
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
        mask = (places <= places[:, None])[None]
    if lengths is not None:
        valid = (places < jnp.maximum(lengths, 1)[:, None])[:, None]
        mask = valid if mask is None else mask & valid
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    return jnp.swapaxes(masked_attention(q, k, v, mask), 1, 2)


def _by_row(
    engine: Any, q: Array, k: Array, v: Array, lengths: Array | None, causal: bool
) -> Array:
    """Each device of the mesh in use (`jax.set_mesh`) takes its rows: kernels are not divided by
    the compiler. Rows that the devices cannot share equally are worked on by all."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return engine(q, k, v, lengths, causal)
    rows = PartitionSpec(mesh.axis_names if q.shape[0] % mesh.size == 0 else None)
    divided = jax.shard_map(
        lambda q, k, v, lengths: engine(q, k, v, lengths, causal),
        mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False,
    )  # fmt: skip
    return divided(q, k, v, lengths)


def masked_attention(
    q: Float[Array, "B H S C"],
    k: Float[Array, "B K T C"],
    v: Float[Array, "B K T C"],
    mask: Bool[Array, "#B #S T"] | None = None,
) -> Float[Array, "B H S C"]:
    """Attention by XLA, under any mask.

    Heads come before positions, so that both products are plain batched matrix products without
    any change of layout. The softmax is taken in float32, and its division is done after the
    product with `v`, on [S, C] values instead of [S, T].

    Args:
        q, k, v: As for `attention`, but for the order of the axes.
        mask: Which keys a query sees, at least one each; None shows all of them.

    Returns:
        Attended values in the dtype of `q`.
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

"""Attention's engines against plain mathematics, interpreted, and lowered for CUDA."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analysis import gpu_compiler
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType

from hrm_jax.kernels import attention as engines
from hrm_jax.kernels.attention import attention, self_attention
from hrm_jax.kernels.pallas_attention import (
    Tiles,
    held_whole,
    pallas_attention,
    pallas_self_attention,
)
from hrm_jax.kernels.rotary import rotary_tables

SMALL = Tiles(rows=32, columns=16, back_rows=16, back_columns=32)


def draw(length, *, keys=None, heads=2, key_heads=2, size=32, dtype=jnp.float32, batch=2):
    """Queries, keys, values and the gradient of the output."""
    names = jax.random.split(jax.random.key(length), 4)
    keys = length if keys is None else keys
    shapes = [(length, heads), (keys, key_heads), (keys, key_heads), (length, heads)]
    return [
        jax.random.normal(key, (batch, *shape, size), dtype)
        for key, shape in zip(names, shapes, strict=True)
    ]


def by_hand(q, k, v, lengths=None, causal=False):
    """The definition, row by row and head by head, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros(q.shape)
    groups = q.shape[2] // k.shape[2]
    for b, s, h in np.ndindex(q.shape[:3]):
        seen = k.shape[1] if lengths is None else max(1, int(lengths[b]))
        seen = min(seen, s + 1) if causal else seen
        scores = k[b, :seen, h // groups] @ q[b, s, h] / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max())
        out[b, s, h] = weights / weights.sum() @ v[b, :seen, h // groups]
    return out


def values_and_gradients(function, q, k, v, do):
    @jax.jit  # a traced argument: constants would be folded for minutes
    def run(q, k, v, do):
        out, back = jax.vjp(function, q, k, v)
        return out, *back(do)

    return [np.asarray(x, np.float64) for x in run(q, k, v, do)]


def compare(operands, *, lengths=None, causal=False, tolerance, **kernel):
    """The kernels beside XLA: the output, and the gradients of q, k and v."""
    lengths = None if lengths is None else jnp.array(lengths)
    oracle = functools.partial(attention, lengths=lengths, causal=causal, impl="xla")
    expected = values_and_gradients(oracle, *operands)
    found = values_and_gradients(
        lambda q, k, v: pallas_attention(q, k, v, lengths, causal, **kernel), *operands
    )
    for name, a, b in zip(("o", "dq", "dk", "dv"), found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance, err_msg=name)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [None, [0, 5]])
@pytest.mark.parametrize("impl", ["xla", "pallas"])
def test_definition(impl, lengths, causal):
    q, k, v, _ = draw(7, heads=4)
    given_lengths = None if lengths is None else jnp.array(lengths)
    engine = functools.partial(attention, causal=causal, lengths=given_lengths, impl=impl)
    out = jax.jit(engine)(q, k, v)
    np.testing.assert_allclose(out, by_hand(q, k, v, lengths, causal), atol=1e-6)


@pytest.mark.parametrize("length", [1, 7, 82, 128])
def test_short(length):
    compare(draw(length), tolerance=1e-5, short=True)


@pytest.mark.parametrize("size", [64, 128])
def test_short_grouped_heads_lengths_causal(size):
    operands = draw(82, heads=4, key_heads=2, size=size)
    compare(operands, lengths=[82, 33], causal=True, tolerance=1e-5, short=True)


@pytest.mark.parametrize("length", [1, 82, 128])
def test_tiled(length):
    compare(draw(length), tolerance=1e-5, short=False, tiles=SMALL)


@pytest.mark.parametrize("causal", [False, True])
def test_tiled_grouped_heads_lengths(causal):
    operands = draw(130, heads=4, key_heads=2, size=16)
    compare(operands, lengths=[1, 99], causal=causal, tolerance=1e-5, tiles=SMALL)


@pytest.mark.parametrize("causal", [False, True])
def test_long(causal):
    compare(draw(901, heads=1, key_heads=1, batch=1), causal=causal, tolerance=1e-5)


@pytest.mark.parametrize("short", [True, False])
def test_bfloat16(short):
    operands = draw(97, heads=4, key_heads=2, dtype=jnp.bfloat16)
    compare(operands, lengths=[97, 50], tolerance=2e-2, short=short)
    q, k, v, _ = operands
    assert attention(q, k, v, impl="pallas").dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("length", "size", "dtype", "rotated"),
    [
        (1, 32, jnp.float32, True),
        (81, 32, jnp.float32, False),
        (82, 64, jnp.float32, True),
        (97, 32, jnp.bfloat16, True),
        (128, 128, jnp.float32, True),
    ],
)
def test_self_attention(length, size, dtype, rotated):
    """Queries, keys and values side by side, turned in the kernel or not at all."""
    names = jax.random.split(jax.random.key(length), 2)
    qkv = jax.random.normal(names[0], (2, length, 3, 2, size), dtype)
    do = jax.random.normal(names[1], (2, length, 2, size), dtype)
    rotary = rotary_tables(length, size, 100.0) if rotated else None

    def run(engine):
        @jax.jit
        def values(qkv, do):
            out, back = jax.vjp(lambda x: engine(x, rotary), qkv)
            return out, *back(do)

        return values(qkv, do)

    tolerance = 2e-2 if dtype == jnp.bfloat16 else 1e-5
    expected = run(functools.partial(self_attention, impl="xla"))
    for a, b in zip(run(pallas_self_attention), expected, strict=True):
        assert a.dtype == dtype
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("length", "size", "dtype", "kernel"),
    [
        (97, 32, jnp.bfloat16, "attention_self"),
        (60, 32, jnp.float32, "attention_self"),
        (9, 16, jnp.float32, "attention_short"),  # its halves are too small for Triton
        (97, 32, jnp.float32, "attention_tiled"),  # too large for shared memory
        (130, 32, jnp.bfloat16, "attention_tiled"),
    ],
)
def test_kernel_of_self_attention(length, size, dtype, kernel):
    qkv = jax.random.normal(jax.random.key(0), (2, length, 3, 2, size), dtype)
    rotary = rotary_tables(length, size, 100.0)
    engine = functools.partial(self_attention, rotary=rotary, impl="pallas")
    assert set(re.findall(r"attention_\w+", str(jax.make_jaxpr(engine)(qkv)))) >= {kernel}
    xla = functools.partial(self_attention, rotary=rotary, impl="xla")
    found, expected = jax.jit(engine)(qkv), jax.jit(xla)(qkv)
    np.testing.assert_allclose(
        np.asarray(found, np.float64), np.asarray(expected, np.float64),
        atol=2e-2 if dtype == jnp.bfloat16 else 1e-5,
    )  # fmt: skip


@settings(max_examples=6, deadline=None)
@given(
    queries=st.integers(1, 40),
    keys=st.integers(1, 40),
    groups=st.sampled_from([1, 2, 3]),
    causal=st.booleans(),
    short=st.booleans(),
    share=st.none() | st.floats(0, 1),
)
def test_random_shapes(queries, keys, groups, causal, short, share):
    keys = queries if causal else keys
    operands = draw(queries, keys=keys, heads=2 * groups, size=16)
    lengths = None if share is None else [keys, int(share * keys)]
    compare(operands, lengths=lengths, causal=causal, tolerance=1e-5, short=short, tiles=SMALL)


def test_large_scores_stay_finite():
    q, k, v, do = draw(40)
    for short in (True, False):
        found = values_and_gradients(
            lambda q, k, v, short=short: pallas_attention(q, k, v, None, True, short=short),
            q * 1e3, k * 1e3, v, do,
        )  # fmt: skip
        assert all(np.isfinite(x).all() for x in found)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("size", [32, 128])
@pytest.mark.parametrize("length", [1, 97, 901])
def test_lowered_for_cuda(length, size, dtype):
    def gradients(q, k, v, do, lengths):
        out, back = jax.vjp(
            lambda q, k, v: attention(
                q, k, v, lengths=lengths, causal=length == 901, impl="pallas"
            ),
            q, k, v,
        )  # fmt: skip
        return out, *back(do)

    q = jax.ShapeDtypeStruct((2, length, 4, size), dtype)
    k = jax.ShapeDtypeStruct((2, length, 2, size), dtype)
    with gpu_compiler.target():
        lowered = jax.jit(gradients).trace(q, k, k, q, jax.ShapeDtypeStruct((2,), jnp.int32))
        text = lowered.lower(lowering_platforms=("cuda",)).as_text()
    names = set(re.findall(r"attention_(?:short|tiled|self)\w*", text))
    short = held_whole(length, size, dtype)
    forward = {"attention_short"} if short else {"attention_tiled"}
    backward = {"attention_short_back"} if short else {
        "attention_tiled_back_kv", "attention_tiled_back_q"
    }  # fmt: skip
    assert names == forward | backward
    assert text.count("triton") >= len(names)
    assert "mosaic" not in text


@pytest.mark.parametrize("rows", [8, 3])
def test_many_devices(rows):
    """Rows are divided over the mesh where they can be; the kernel itself cannot be."""
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    q, k, v, do = draw(9, batch=rows, size=16)
    lengths = jnp.arange(rows) + 1
    expected = values_and_gradients(
        functools.partial(attention, lengths=lengths, impl="xla"), q, k, v, do
    )
    with jax.set_mesh(mesh):
        for given_lengths in (None, lengths):
            engine = functools.partial(attention, lengths=given_lengths, impl="pallas")
            found = values_and_gradients(engine, q, k, v, do)
        text = jax.jit(lambda q: attention(q, q, q, impl="pallas")).lower(q).compile().as_text()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert "all-gather" not in text
    assert (f"f32[{rows // 4},9,2,16]" in text) == (rows == 8)


def test_self_attention_on_many_devices():
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    qkv = jax.random.normal(jax.random.key(0), (8, 9, 3, 2, 32))
    rotary = rotary_tables(9, 32, 100.0)
    expected = jax.jit(functools.partial(self_attention, impl="xla"))(qkv, rotary)
    with jax.set_mesh(mesh):
        engine = jax.jit(lambda x: self_attention(x, rotary, impl="pallas"))
        np.testing.assert_allclose(engine(qkv), expected, atol=1e-5)
        text = engine.lower(qkv).compile().as_text()
    assert "all-gather" not in text


def test_auto_takes_what_was_measured(monkeypatch):
    class Device:
        device_kind = "Some GPU"

    used = []
    monkeypatch.setattr(engines, "pallas_attention", lambda q, *_, **__: used.append("pallas") or q)
    measured = {engines.kind_of("Some GPU", 82, 32, jnp.dtype("float32")): "pallas"}
    monkeypatch.setattr(engines, "MEASURED", measured)
    short, long = draw(97)[:3], draw(130)[:3]  # only the first size was measured
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(jax, "default_backend", lambda: "gpu")
        elsewhere.setattr(jax, "devices", lambda: [Device])
        jax.eval_shape(attention, *short)
        jax.eval_shape(attention, *long)
    assert used == ["pallas"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": (2, 7, 3, 24)}, "3 key heads do not divide 4 query heads"),
        ({"k": (2, 8, 4, 24), "causal": True}, "7 queries and 8 keys"),
        ({"impl": "pallas"}, "head size 24"),
        ({"impl": "cudnn"}, "expected bfloat16 or float16, got float32"),
        ({"impl": "cudnn", "dtype": jnp.bfloat16}, "impl='cudnn': needs an NVIDIA GPU, not cpu"),
    ],
)
def test_refused(change, message):
    dtype = change.pop("dtype", jnp.float32)
    q, k = jnp.ones((2, 7, 4, 24), dtype), jnp.ones(change.pop("k", (2, 7, 4, 24)), dtype)
    with pytest.raises(ValueError, match=message):
        attention(q, k, k, **change)


def test_a_window_of_keys():
    """The last 3 keys up to a query's own; all engines but XLA refuse what they cannot do."""
    q, k, v, _ = draw(12, heads=4)
    found = attention(q, k, v, causal=True, window=3)
    for place in range(12):
        first = max(0, place - 2)
        part = (x[:, first : place + 1] for x in (q, k, v))
        np.testing.assert_allclose(found[:, place], by_hand(*part)[:, -1], atol=1e-5)
    whole = attention(q, k, v, causal=True)
    for window in (0, 12, 13):
        np.testing.assert_array_equal(attention(q, k, v, causal=True, window=window), whole)
    for impl in ("pallas", "cudnn"):
        with pytest.raises(ValueError, match=f"impl='{impl}': has no window of keys"):
            attention(q, k, v, causal=True, window=3, impl=impl)
    with pytest.raises(ValueError, match="window: 3, but attention is not causal"):
        attention(q, k, v, window=3)

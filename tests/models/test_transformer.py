"""The Transformer: causal, the same with a cache, in every kind; layers may be scanned."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.fields import ConfigError, from_mapping
from hrm_jax.kernels.rotary import RopeScaling
from hrm_jax.models.decoding import greedy
from hrm_jax.models.language import init, network
from hrm_jax.models.transformer import (
    PRESETS,
    TransformerConfig,
    init_cache,
    sinusoidal_positions,
    stack_layers,
    unstack_layers,
)

SMALL: Any = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_layers": 3,
    "num_heads": 4,
    "ffn_size": 48,
    "max_length": 64,
}
KINDS = {
    "rlm": TransformerConfig(**SMALL),
    "gpt2": TransformerConfig(**SMALL, positions="learned", feed_forward="gelu", tie_head=True),
    "llama": TransformerConfig(
        **SMALL,
        num_kv_heads=2,
        head_dim=10,
        positions="rotary",
        norm="rms",
        feed_forward="swiglu",
        bias=False,
    ),
}
KINDS["qwen"] = dataclasses.replace(
    KINDS["llama"],
    attention_bias="qkv",
    qk_norm=True,
    sliding_window=5,
    full_layers=1,
    rope_scaling=RopeScaling("yarn", original_length=16),
)
LLAMA = KINDS["llama"]
SCANNED = dataclasses.replace(LLAMA, scan_layers=True, remat=True)
TOKENS = jax.random.randint(jax.random.key(0), (3, 20), 0, 50)


@functools.cache
def draw(config: TransformerConfig) -> dict:
    """Parameters of which no two entries are equal."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(
        lambda path, x: rng.normal(path[-1].key == "scale", 0.2, x.shape).astype(np.float32), shapes
    )


@functools.cache
def compiled(config: TransformerConfig, method: str = "__call__", train: bool = False) -> Any:
    def apply(params: dict, *args: Any, window: int | None = None, **kwargs: Any) -> Any:
        if window:
            kwargs["window"] = window
        return network(config, train).apply({"params": params}, *args, **kwargs, method=method)

    return jax.jit(apply, static_argnames="window")


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_token_changes_no_earlier_logits(kind: str) -> None:
    apply, params = compiled(KINDS[kind]), draw(KINDS[kind])
    before, after = apply(params, TOKENS), apply(params, TOKENS.at[:, 12].add(1) % 50)
    np.testing.assert_array_equal(before[:, :12], after[:, :12])
    assert (np.abs(before[:, 12:] - after[:, 12:]).max(axis=(0, 2)) > 1e-4).all()


def test_without_causality_every_token_counts_up_to_a_rows_length() -> None:
    config = dataclasses.replace(LLAMA, causal=False)
    apply, params = compiled(config), draw(config)
    lengths = jnp.array([5, 20, 1])
    before = apply(params, TOKENS, lengths=lengths)
    after = apply(params, TOKENS.at[:, 12].add(1) % 50, lengths=lengths)
    assert (np.abs(before[1] - after[1]).max(axis=-1) > 1e-5).all()
    np.testing.assert_array_equal(before[0, :5], after[0, :5])
    np.testing.assert_array_equal(before[2, :1], after[2, :1])
    alone = apply(params, TOKENS[:1, :5], lengths=lengths[:1])
    np.testing.assert_allclose(before[0, :5], alone[0], atol=1e-5)


@pytest.mark.parametrize("config", [*KINDS.values(), SCANNED], ids=[*KINDS, "scanned"])
def test_a_cache_gives_what_recomputation_gives(config: TransformerConfig) -> None:
    params, hidden = draw(config), compiled(config, "hidden")
    whole = compiled(config)(params, TOKENS)
    cache = init_cache(config, 3, 40)
    for first in (0, 4):  # the second row is 8 tokens ahead; the first one's will be overwritten
        chunk = TOKENS[:, first : first + 4]
        _, cache = hidden(params, chunk, cache=cache, start=jnp.full(3, first), window=24)
    parts = []
    for first, size in ((0, 4), (4, 1), (5, 4)):
        rows = [TOKENS[0, first : first + size], TOKENS[1, 8 + first : 8 + first + size]]
        start = jnp.array([first, 8 + first, 0])
        chunk = jnp.stack([*rows, jnp.zeros(size, int)])
        x, cache = hidden(params, chunk, cache=cache, start=start, window=24)
        parts.append(compiled(config, "logits")(params, x))
    cached = jnp.concatenate(parts, axis=1)
    np.testing.assert_allclose(cached[0], whole[0, :9], atol=1e-5)
    np.testing.assert_allclose(cached[1], whole[1, 8:17], atol=1e-5)


def test_scanned_and_remat_layers_are_the_same_function_with_the_same_gradient() -> None:
    params = draw(LLAMA)
    stacked = stack_layers(params)

    def loss(config: TransformerConfig, params: dict) -> jax.Array:
        return jnp.mean(network(config).apply({"params": params}, TOKENS) ** 2)

    one, grads = jax.jit(jax.value_and_grad(functools.partial(loss, LLAMA)))(params)
    two, stacked_grads = jax.jit(jax.value_and_grad(functools.partial(loss, SCANNED)))(stacked)
    np.testing.assert_allclose(one, two, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6 * max(1, np.abs(a).max())),
        stack_layers(grads),
        stacked_grads,
    )
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(stacked), params)


def test_fewer_key_heads_are_each_used_by_a_group() -> None:
    full = dataclasses.replace(LLAMA, num_kv_heads=4)
    params = jax.tree.map(np.copy, draw(LLAMA))
    for i in range(3):
        for name in ("k_proj", "v_proj"):
            kernel = params[f"layers_{i}"]["attention"][name]["kernel"].reshape(32, 2, 10)
            repeated = np.repeat(kernel, 2, axis=1).reshape(32, 40)
            params[f"layers_{i}"]["attention"][name]["kernel"] = repeated
    grouped = compiled(LLAMA)(draw(LLAMA), TOKENS)
    np.testing.assert_allclose(grouped, compiled(full)(params, TOKENS), atol=1e-5)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_a_window_ends_what_a_layer_sees(scan_layers: bool) -> None:
    """Three layers of 5 positions see 12 back; one without a window in front sees all."""
    config = dataclasses.replace(LLAMA, sliding_window=5, scan_layers=scan_layers)
    params = stack_layers(draw(LLAMA)) if scan_layers else draw(LLAMA)

    def changed(config: TransformerConfig) -> np.ndarray:
        apply = compiled(config)
        difference = apply(params, TOKENS) - apply(params, TOKENS.at[:, 2].add(1) % 50)
        return np.abs(difference).max(axis=(0, 2))

    found = changed(config)
    assert (found[2:15] > 0).all()
    np.testing.assert_array_equal(found[15:], 0)
    if not scan_layers:
        assert (changed(dataclasses.replace(config, full_layers=1))[2:] > 0).all()


def test_no_more_positions_than_there_are() -> None:
    with pytest.raises(ValueError, match="tokens: 65 positions, the model has 64"):
        network(LLAMA).apply({"params": draw(LLAMA)}, jnp.zeros((1, 65), int))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sliding_window": 4, "causal": False}, "model.sliding_window: needs a causal model"),
        ({"sliding_window": 4, "attention": "pallas"}, "model.attention: 'pallas' has no sliding"),
        ({"sliding_window": 4, "full_layers": 3}, "model.full_layers: 3 leaves none of 3 layers"),
        (
            {"sliding_window": 4, "full_layers": 1, "scan_layers": True},
            "model.full_layers: scanned layers are all alike",
        ),
        (
            {"rope_scaling": RopeScaling("dynamic", original_length=63)},
            "model.max_length: 64, but rope_scaling is dynamic: beyond its original_length 63",
        ),
    ],
)
def test_what_does_not_go_together(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(LLAMA, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "llama3"}, "original_length: expected at least 1, got 0"),
        ({"factor": 0.5}, "factor: expected at least 1, got 0.5"),
        ({"beta_fast": 1.0}, "beta_fast: expected more than beta_slow 1.0, got 1.0"),
    ],
)
def test_scalings_have_ranges(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"model.rope_scaling.{message}"):
        RopeScaling(**changes)


@pytest.mark.parametrize(
    "values",
    [
        {"positions": "learned", "rope_scaling": {"kind": "linear"}},
        {"full_layers": 1},
        {"positions": "rotary", "rope_scaling": {"kind": "linear", "original_length": 8}},
        {"positions": "rotary", "rope_scaling": {"factor": 4.0}},
    ],
)
def test_fields_without_effect(values: dict) -> None:
    with pytest.raises(ConfigError, match="has no effect"):
        from_mapping(TransformerConfig, values, "model")


def test_dropout_is_random_in_training_only() -> None:
    config = KINDS["rlm"]
    train, params = compiled(config, train=True), draw(config)
    one, two = (train(params, TOKENS, rngs={"dropout": jax.random.key(s)}) for s in (0, 1))
    assert np.abs(one - two).max() > 1e-3
    compiled(config)(params, TOKENS)  # asks for no rng


def test_published_sizes() -> None:
    counts = {}
    for name in ("gpt2", "llama", "rlm"):
        config = dataclasses.replace(PRESETS[name], scan_layers=True)  # one layer to trace
        shapes = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
        counts[name] = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))
    assert counts["gpt2"] == 124_439_808
    assert counts["llama"] == 1_100_048_384
    assert counts["rlm"] == 2 * 50_000 * 512 + 6 * (
        4 * 512 * 513 + 2 * 512 * 2048 + 2560 + 2048
    ) + (1024)


def test_fresh_weights_have_the_spread_of_gpt2() -> None:
    config = dataclasses.replace(KINDS["gpt2"], hidden_size=256, num_layers=2)
    block = jax.jit(functools.partial(init, config))(jax.random.key(0))["layers_0"]
    np.testing.assert_allclose(block["ffn"]["up_proj"]["kernel"].std(), 0.02, rtol=0.02)
    np.testing.assert_allclose(block["attention"]["o_proj"]["kernel"].std(), 0.01, rtol=0.02)
    np.testing.assert_array_equal(block["ffn_norm"]["scale"], 1)


def test_sinusoids_are_those_of_the_paper() -> None:
    table = sinusoidal_positions(10, 6)
    position, channel = 7, 2
    rate = 10000 ** (-channel / 6)
    np.testing.assert_allclose(table[position, 2:4], np.sin([7 * rate, 7 * rate + np.pi / 2]))


def test_greedy_decoding_takes_the_likeliest_token_each_time() -> None:
    config = KINDS["gpt2"]
    params, lengths = draw(config), [6, 2, 4]
    decode = jax.jit(functools.partial(greedy, config, count=5, end=49, suppressed=[3]))
    got = decode(params, TOKENS[:, :6], jnp.array(lengths))
    texts = [list(np.asarray(TOKENS[row, :n])) for row, n in enumerate(lengths)]
    for _ in range(5):
        padded = jnp.array([text + [0] * (20 - len(text)) for text in texts])
        logits = np.array(compiled(config)(params, padded))  # causal: what follows is not seen
        logits[..., 3] = -np.inf
        for row, text in enumerate(texts):
            ended = text[-1] == 49 and len(text) > lengths[row]
            text.append(49 if ended else logits[row, len(text) - 1].argmax())
    np.testing.assert_array_equal(got, [text[-5:] for text in texts])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_heads": 5}, "num_heads"),
        ({"num_kv_heads": 3}, "num_kv_heads"),
        ({"num_layers": 0}, "num_layers"),
        ({"dropout": 1.0}, "dropout"),
        ({"hidden_size": 36, "positions": "rotary"}, "positions"),
    ],
)
def test_impossible_sizes_are_named(change: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=f"model.{named}"):
        dataclasses.replace(KINDS["rlm"], **change)

"""The Transformer: causal, the same with a cache, in every kind; layers may be scanned."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.models.decoding import greedy
from hrm_jax.models.transformer import (
    PRESETS,
    Transformer,
    TransformerConfig,
    init_cache,
    sinusoidal_positions,
    stack_layers,
    unstack_layers,
)

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_layers": 3,
    "num_heads": 4,
    "ffn_size": 48,
    "init_std": 0.2,
}
KINDS = {
    "rlm": TransformerConfig(**SMALL, max_length=64),
    "gpt2": TransformerConfig(
        **SMALL, max_length=64, positions="learned", feed_forward="gelu", tie_head=True
    ),
    "llama": TransformerConfig(
        **SMALL,
        max_length=64,
        num_kv_heads=2,
        head_dim=10,
        positions="rotary",
        norm="rms",
        feed_forward="swiglu",
        bias=False,
    ),
}


def build(config: TransformerConfig, length: int = 20) -> tuple[Transformer, dict, jax.Array]:
    tokens = jax.random.randint(jax.random.key(0), (3, length), 0, config.vocab_size)
    model = Transformer(config)
    return model, model.init(jax.random.key(1), tokens), tokens


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_token_changes_no_earlier_logits(kind: str) -> None:
    model, variables, tokens = build(KINDS[kind])
    before = model.apply(variables, tokens)
    after = model.apply(variables, tokens.at[:, 12].add(1) % 50)
    np.testing.assert_array_equal(before[:, :12], after[:, :12])
    assert (np.abs(before[:, 12:] - after[:, 12:]).max(axis=(0, 2)) > 1e-4).all()


def test_without_causality_every_token_counts() -> None:
    model, variables, tokens = build(dataclasses.replace(KINDS["rlm"], causal=False))
    before = model.apply(variables, tokens)
    after = model.apply(variables, tokens.at[:, 12].set((tokens[:, 12] + 1) % 50))
    assert (np.abs(before - after).max(axis=(0, 2)) > 1e-5).all()


@pytest.mark.parametrize("causal", [True, False])
def test_what_is_behind_a_rows_length_is_not_seen(causal: bool) -> None:
    model, variables, tokens = build(dataclasses.replace(KINDS["llama"], causal=causal))
    lengths = jnp.array([5, 20, 1])
    whole = model.apply(variables, tokens, lengths=lengths)
    for row, length in enumerate((5, 20, 1)):
        alone = model.apply(variables, tokens[row : row + 1, :length])
        np.testing.assert_allclose(whole[row, :length], alone[0], atol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_gives_what_recomputation_gives(kind: str, scan: bool) -> None:
    config = dataclasses.replace(KINDS[kind], scan_layers=scan)
    model, variables, tokens = build(config)
    whole = model.apply(variables, tokens)
    cache = init_cache(config, 3, 40)
    starts = np.array([0, 7, 20])  # rows at different places: the second continues after 7 tokens
    _, cache = model.apply(
        variables,
        jnp.concatenate([jnp.zeros((1, 7), int), tokens[1:2, :7], tokens[2:3, :7]]),
        cache=cache,
        start=jnp.array([30, 0, 0]),
        method="hidden",
    )
    parts = []
    for first, size in ((0, 4), (4, 1), (5, 8)):
        start = jnp.array([first, 7 + first, 0])
        rows = [tokens[0, first : first + size], jnp.roll(tokens[1], -7 - first)[:size]]
        chunk = jnp.stack([*rows, jnp.zeros(size, int)])
        x, cache = model.apply(
            variables, chunk, cache=cache, start=start, window=24, method="hidden"
        )
        parts.append(model.apply(variables, x, method="logits"))
    cached = jnp.concatenate(parts, axis=1)
    np.testing.assert_allclose(cached[0], whole[0, :13], atol=1e-5)
    np.testing.assert_allclose(cached[1], whole[1, starts[1] : 20], atol=1e-5)


def test_scanned_and_remat_layers_are_the_same_function_with_the_same_gradient() -> None:
    model, variables, tokens = build(KINDS["llama"])
    scanned = Transformer(dataclasses.replace(KINDS["llama"], scan_layers=True, remat=True))
    stacked = stack_layers(variables["params"])

    def loss(apply: object, params: dict) -> jax.Array:
        return jnp.mean(apply({"params": params}, tokens) ** 2)  # type: ignore[operator]

    one, grads = jax.value_and_grad(lambda p: loss(model.apply, p))(variables["params"])
    two, stacked_grads = jax.value_and_grad(lambda p: loss(scanned.apply, p))(stacked)
    np.testing.assert_allclose(one, two, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        stack_layers(grads),
        stacked_grads,
    )
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(stacked), variables["params"])


def test_fewer_key_heads_are_each_used_by_a_group() -> None:
    grouped, variables, tokens = build(KINDS["llama"])
    full = Transformer(dataclasses.replace(KINDS["llama"], num_kv_heads=4))
    params = jax.tree.map(jnp.copy, variables["params"])
    for i in range(3):
        for name in ("k_proj", "v_proj"):
            kernel = params[f"layers_{i}"]["attention"][name]["kernel"].reshape(32, 2, 10)
            repeated = jnp.repeat(kernel, 2, axis=1).reshape(32, 40)
            params[f"layers_{i}"]["attention"][name]["kernel"] = repeated
    np.testing.assert_allclose(
        grouped.apply(variables, tokens), full.apply({"params": params}, tokens), atol=1e-5
    )


def test_dropout_is_random_in_training_only() -> None:
    model, variables, tokens = build(KINDS["rlm"])
    train = Transformer(KINDS["rlm"], train=True)
    one, two = (
        train.apply(variables, tokens, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 1)
    )
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_array_equal(model.apply(variables, tokens), model.apply(variables, tokens))


def test_published_sizes() -> None:
    counts = {}
    for name in ("gpt2", "llama", "rlm"):
        model = Transformer(PRESETS[name])
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), int))
        counts[name] = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))
    assert counts["gpt2"] == 124_439_808
    assert counts["llama"] == 1_100_048_384
    assert counts["rlm"] == 2 * 50_000 * 512 + 6 * (
        4 * 512 * 513 + 2 * 512 * 2048 + 2560 + 2048
    ) + (1024)


def test_sinusoids_are_those_of_the_paper() -> None:
    table = sinusoidal_positions(10, 6)
    position, channel = 7, 2
    rate = 10000 ** (-channel / 6)
    np.testing.assert_allclose(table[position, 2:4], np.sin([7 * rate, 7 * rate + np.pi / 2]))


def test_greedy_decoding_takes_the_likeliest_token_each_time() -> None:
    model, variables, tokens = build(KINDS["gpt2"], length=6)
    lengths = jnp.array([6, 2, 4])
    got = greedy(KINDS["gpt2"], variables["params"], tokens, lengths, 5, end=49, suppressed=[3])
    for row in range(3):
        text = list(np.asarray(tokens[row, : lengths[row]]))
        for _ in range(5):
            logits = np.array(model.apply(variables, jnp.array([text]))[0, -1])
            logits[3] = -np.inf
            text.append(49 if text[-1] == 49 and len(text) > lengths[row] else logits.argmax())
        np.testing.assert_array_equal(got[row], text[-5:])


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

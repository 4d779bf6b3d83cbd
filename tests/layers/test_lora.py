"""Low-rank adapters on small models."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.layers import lora
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.models import language
from hrm_jax.models.transformer import Transformer, TransformerConfig

GPT2 = TransformerConfig(
    vocab_size=40, hidden_size=16, num_layers=2, num_heads=2, ffn_size=24, max_length=16,
    positions="learned", feed_forward="gelu", tie_head=True, dropout=0.0,
)  # fmt: skip
LLAMA = dataclasses.replace(
    GPT2, positions="rotary", norm="rms", feed_forward="swiglu", bias=False, tie_head=False,
    num_kv_heads=1,
)  # fmt: skip
KINDS = {
    "all": LoraConfig(target_modules="all-linear"),
    "rslora": LoraConfig(use_rslora=True, r=3),
    "dora": LoraConfig(use_dora=True, r=2, target_modules="all-linear", bias="all"),
    "patterns": LoraConfig(
        r=2,
        target_modules=("o_proj", "down_proj"),
        rank_pattern={"down_proj": 3, r".*\.0\..*": 9},
        alpha_pattern={"attention.o_proj": 5.0},
        modules_to_save=("embed_tokens",),
    ),
}
TOKENS = jnp.asarray(np.random.default_rng(1).integers(0, 40, (3, 8)))


@functools.cache
def base(config):
    return language.init(config, jax.random.key(0))


def drawn(config, params):
    """Adapters of which nothing is 0."""
    adapters = jax.jit(functools.partial(lora.init, config))(params, jax.random.key(1))
    leaves, tree = jax.tree.flatten(adapters)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


@functools.partial(jax.jit, static_argnums=0)
def logits(model, variables):
    return Transformer(model).apply(variables, TOKENS)


@pytest.mark.parametrize("model", [GPT2, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["all", "rslora", "dora", "patterns"])
def test_fresh_adapters_change_nothing_and_merged_ones_do_the_same(model, kind):
    config, params = KINDS[kind], base(model)
    before = logits(model, {"params": params})
    fresh = lora.init(config, params, jax.random.key(0))
    found = logits(model, lora.variables(config, params, fresh))
    np.testing.assert_allclose(found, before, atol=1e-6)
    adapters = drawn(config, params)
    adapted = logits(model, lora.variables(config, params, adapters))
    assert np.abs(adapted - before).max() > 0.1
    merged = lora.merge(config, params, adapters)
    np.testing.assert_allclose(logits(model, {"params": merged.params}), adapted, atol=1e-5)
    assert merged.drift == 0
    jax.tree.map(np.testing.assert_array_equal, lora.unmerge(merged), params)

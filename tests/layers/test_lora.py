"""Low-rank adapters on small models, and kernels in 8 and 4 bits."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hrm_jax.fields import ConfigError, from_mapping, to_mapping
from hrm_jax.layers import lora
from hrm_jax.layers.dense import Dense
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.layers.packed import NF4, pack, quantize
from hrm_jax.models import language
from hrm_jax.models.transformer import Transformer, TransformerConfig, stack_layers

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


def test_scanned_layers_are_the_same():
    config, params = KINDS["dora"], base(LLAMA)
    adapters = drawn(config, params)
    stacked = {k: stack_layers(v) if "layers_0" in v else v for k, v in adapters.items()}
    model = dataclasses.replace(LLAMA, scan_layers=True)
    found = logits(model, lora.variables(config, stack_layers(params), stacked))
    np.testing.assert_allclose(
        found, logits(LLAMA, lora.variables(config, params, adapters)), atol=1e-5
    )
    one = LoraConfig(target_modules=("layers.0.attention.q_proj",))
    with pytest.raises(ConfigError, match=r"target_modules: tells apart layers of layers\.0"):
        lora.init(one, stack_layers(params), jax.random.key(0))


def test_merging_into_bfloat16_says_how_far_it_drifts():
    config, params = KINDS["all"], base(GPT2)
    adapters = drawn(config, params)
    exact, rough = (lora.merge(config, params, adapters, x) for x in (None, jnp.bfloat16))
    pairs = zip(jax.tree.leaves(exact.params), jax.tree.leaves(rough.params), strict=True)
    assert rough.drift == max(float(jnp.abs(a - b.astype(a.dtype)).max()) for a, b in pairs) > 0


def test_dropout_is_the_same_for_what_reads_the_same():
    config, params = LoraConfig(dropout=0.5, r=4), base(GPT2)
    adapters = drawn(config, params)
    key = {"rngs": {"lora": jax.random.key(0)}}
    taken = []

    def note(next_function, args, kwargs, context):
        named = context.module.name in ("q_proj", "k_proj", "v_proj")
        if named and context.method_name == "_adapted":
            taken.append(jax.random.key_data(context.module._key()))
        return next_function(*args, **kwargs)

    train = lora.variables(config, params, adapters, train=True)
    with nn.intercept_methods(note):
        dropped = Transformer(GPT2).apply(train, TOKENS, **key)
    assert len(taken) == 6
    np.testing.assert_array_equal(taken[0], taken[1])
    np.testing.assert_array_equal(taken[0], taken[2])
    assert (taken[0] != taken[3]).any()
    many = [
        Transformer(GPT2).apply(train, TOKENS, rngs={"lora": jax.random.key(i)}) for i in range(2)
    ]
    assert (dropped == many[0]).all()
    assert (dropped != many[1]).any()
    with pytest.raises(ValueError, match="needs an rng named 'lora'"):
        Transformer(GPT2).apply(train, TOKENS)


def test_the_product_is_as_that_of_qwix():
    qwix = pytest.importorskip("qwix")
    x = jax.random.normal(jax.random.key(0), (3, 5, 16))
    provider = qwix.LoraProvider(module_path=".*", rank=4, alpha=6.0)
    theirs = qwix.apply_lora_to_model(nn.Dense(24), provider)
    params = theirs.init(jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda v: v + 0.1, params)
    leaves = {"a": params["kernel_lora_a"], "b": params["kernel_lora_b"], "scale": 6.0 / 4}
    plain = {name: params[name] for name in ("kernel", "bias")}
    ours = Dense(24).apply({"params": plain, "lora": leaves}, x)
    np.testing.assert_allclose(ours, theirs.apply({"params": params}, x), atol=1e-5)


def test_gradients_reach_the_adapters_alone_and_a_frozen_control_stays():
    config, params = LoraConfig(target_modules="all-linear", dropout=0.0), base(LLAMA)
    adapters = lora.init(config, params, jax.random.key(0))

    def loss(adapters):
        return jnp.square(logits(LLAMA, lora.variables(config, params, adapters))).mean()

    grads = jax.tree_util.tree_leaves_with_path(jax.grad(loss)(adapters))
    assert all((np.abs(x).max() > 0) == (path[-1].key == "b") for path, x in grads)
    text = str(jax.make_jaxpr(jax.grad(loss))(adapters))
    made = [line for line in text.splitlines() if "f32[16,24] = dot_general" in line]
    assert not made  # nothing of a kernel's size is computed


class TestNames:
    @pytest.mark.parametrize(
        ("model", "target", "found"),
        [
            (GPT2, None, {"qkv_proj"}),
            (GPT2, ("c_attn",), {"qkv_proj"}),
            (GPT2, ("c_proj", "c_fc"), {"o_proj", "up_proj", "down_proj"}),
            (GPT2, ("mlp.c_proj",), {"down_proj"}),
            (GPT2, "all-linear", {"qkv_proj", "o_proj", "up_proj", "down_proj"}),
            (LLAMA, None, {"q_proj", "v_proj"}),
            (LLAMA, r"model\.layers\.\d+\.self_attn\.[qk]_proj", {"q_proj", "k_proj"}),
            (LLAMA, ("lm_head", "gate_proj"), {"lm_head", "gate_proj"}),
        ],
    )
    def test_ours_and_theirs(self, model, target, found):
        config = LoraConfig(target_modules=target)
        assert {layer.path[-1] for layer, *_ in lora.adapted(config, base(model))} == found

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            (
                {"target_modules": ("q_proj",)},
                r"no layer fits 'q_proj'; there are qkv_proj \(c_a",
            ),
            ({"target_modules": ("c_attn", "x")}, "no layer fits 'x'"),
            ({"target_modules": "q_proj"}, "no layer fits 'q_proj'"),
            ({"target_modules": "("}, "no regular expression"),
            ({"rank_pattern": {"up_proj": 3}}, "no layer with an adapter fits 'up_proj'"),
            ({"alpha_pattern": {"up_proj": 3.0}}, "no layer with an adapter fits 'up_proj'"),
            ({"modules_to_save": ("head",)}, "no module fits 'head'; there are attention"),
            ({"modules_to_save": ("attention",)}, "has an adapter; expected one of the two"),
            ({"r": 0}, "rank of r: expected at least 1"),
            ({"dropout": 1.0}, "dropout: expected 0 <= x < 1"),
        ],
    )
    def test_refused(self, fields, message):
        with pytest.raises(ConfigError, match=message):
            lora.init(LoraConfig(**fields), base(GPT2), jax.random.key(0))

    def test_adapters_of_another_configuration(self):
        adapters = lora.init(LoraConfig(r=2), base(LLAMA), jax.random.key(0))
        for other in (
            LoraConfig(r=3),
            LoraConfig(r=2, use_dora=True),
            LoraConfig(r=2, target_modules=("q_proj",)),
            LoraConfig(r=2, modules_to_save=("lm_head",)),
        ):
            with pytest.raises(ConfigError, match="adapters do not fit"):
                lora.variables(other, base(LLAMA), adapters)


def test_a_configuration_is_read_from_json():
    for config in (*KINDS.values(), LoraConfig(target_modules=r".*\.q_proj")):
        assert from_mapping(LoraConfig, json.loads(json.dumps(to_mapping(config)))) == config
    with pytest.raises(ConfigError, match=r"config\.rank_pattern\.x: expected int"):
        from_mapping(LoraConfig, {"rank_pattern": {"x": "a"}})


def _bytes(tree):
    return sum(x.nbytes for x in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def kernel():
    return jax.random.normal(jax.random.key(0), (3, 128, 24))


def test_int8_is_as_near_as_its_steps(kernel):
    packed = pack(kernel, "int8")
    step = np.abs(kernel).max(axis=-2, keepdims=True) / 127
    assert (np.abs(packed.unpack() - kernel) <= step / 2 + 1e-6).all()
    assert _bytes(packed) == kernel.size + 4 * 3 * 24


def test_nf4_takes_the_nearest_value_of_each_block(kernel):
    packed = pack(kernel, "nf4")
    blocks = kernel.reshape(3, 2, 64, 24)
    scales = np.abs(blocks).max(axis=2, keepdims=True)
    distance = np.abs((blocks / scales)[..., None] - NF4)
    nearest = (NF4[distance.argmin(axis=-1)] * scales).reshape(kernel.shape)
    np.testing.assert_allclose(packed.unpack(), nearest, atol=1e-6)
    assert _bytes(packed) == kernel.size // 2 + 4 * kernel.size // 64
    odd = kernel[:, :70]
    assert pack(odd, "nf4").shape == odd.shape
    np.testing.assert_allclose(pack(odd, "nf4").unpack()[:, :64], nearest[:, :64], atol=1e-6)


def test_codes_are_those_of_qwix(kernel):
    qwix = pytest.importorskip("qwix")
    whole = jnp.asarray(kernel[0])
    theirs = qwix.dequantize(qwix.quantize(whole, jnp.int8, channelwise_axes=[1]))
    ours = pack(whole, "int8").unpack()
    assert np.abs(ours - theirs).max() <= 1.1 * np.abs(whole).max() / 127  # they may use -128
    theirs = qwix.dequantize(qwix.quantize(whole, "nf4", channelwise_axes=[1], tiled_axes={0: 64}))
    np.testing.assert_allclose(pack(whole, "nf4").unpack(), theirs, atol=1e-5)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_packed_base_computes_what_it_unpacks_to(kind):
    params = stack_layers(base(LLAMA))
    model = dataclasses.replace(LLAMA, scan_layers=True)
    packed = quantize(params, kind, jnp.bfloat16)
    plain = jax.tree.map(lora.wide, packed, is_leaf=lambda x: hasattr(x, "unpack"))
    config = LoraConfig(r=2, target_modules="all-linear", use_dora=True)
    adapters = drawn(config, packed)
    same = functools.partial(np.testing.assert_allclose, atol=1e-5)

    @jax.jit
    def loss(adapters, params):
        return jnp.sum(jnp.sin(logits(model, lora.variables(config, params, adapters))))

    found, wanted = (jax.value_and_grad(loss)(adapters, x) for x in (packed, plain))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), found, wanted)
    merged = lora.merge(config, packed, adapters)
    same(
        logits(model, {"params": merged.params}),
        logits(model, lora.variables(config, packed, adapters)),
    )
    jax.tree.map(np.testing.assert_array_equal, lora.unmerge(merged), packed)
    assert 0 < np.abs(wanted[0] - loss(adapters, params)) < 20


def test_gradients_keep_no_kernel_whole():
    """The memory that a gradient takes beside its arguments, by the compiler's own account."""
    model = dataclasses.replace(
        LLAMA, hidden_size=128, ffn_size=512, num_layers=12, num_heads=2, scan_layers=True
    )
    params = base(model)
    kernels = 4 * sum(x.size for x in jax.tree.leaves(params["layers"]) if x.ndim == 3)
    config = LoraConfig(r=2, target_modules="all-linear", dropout=0.0)
    adapters = lora.init(config, params, jax.random.key(0))

    def loss(adapters, params):
        return Transformer(model).apply(lora.variables(config, params, adapters), TOKENS).sum()

    def temporary(params):
        program = jax.jit(jax.grad(loss)).lower(adapters, params).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporary(quantize(params, "nf4")) < temporary(params) + kernels / 4

"""Llama with scaled rotary positions, Mistral, Qwen2 and Qwen3, judged by transformers."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import textwrap
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from hrm_jax.fields import ConfigError
from hrm_jax.interop.hugging_face import from_hugging_face, save_pretrained, to_hugging_face
from hrm_jax.interop.hugging_face_config import from_settings, to_settings
from hrm_jax.models.decoding import greedy
from hrm_jax.models.transformer import Transformer

LENGTH, PROMPT = 96, 32
SIZES = {
    **{"vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": LENGTH},
    **{"bos_token_id": None, "eos_token_id": None, "pad_token_id": None},
}
ORIGINAL = {"factor": 4.0, "original_max_position_embeddings": 24}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, **ORIGINAL}
WINDOW = {"use_sliding_window": True, "sliding_window": 7}
# The family, what differs from `SIZES`, and what of ours tells it.
MODELS = {
    "llama_linear": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0}},
        {"rope_scaling.kind": "linear"},
    ),
    "llama_dynamic": (
        "Llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}, "mlp_bias": True},
        {"rope_scaling.original_length": LENGTH, "bias": True, "attention_bias": "none"},
    ),
    "llama3": (
        "Llama",
        {"rope_parameters": LLAMA3, "attention_bias": True},
        {"rope_scaling.high_freq_factor": 4.0, "bias": False, "attention_bias": "all"},
    ),
    "llama_yarn_by_parts": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "yarn", "mscale": 0.8, "mscale_all_dim": 0.5, "truncate": False,
                "beta_fast": 4, "beta_slow": 2, "rope_theta": 500.0, **ORIGINAL,
            },
        },
        {"rope_scaling.truncate": False, "rope_theta": 500.0},
    ),
    "mistral": ("Mistral", {"sliding_window": 7, "head_dim": 16}, {"sliding_window": 7}),
    "qwen2": ("Qwen2", {**WINDOW, "max_window_layers": 1}, {"full_layers": 1}),
    "qwen2_yarn": (
        "Qwen2",
        {"rope_parameters": {"rope_type": "yarn", **ORIGINAL}, "tie_word_embeddings": True},
        {"rope_scaling.attention_factor": 0.0, "attention_bias": "qkv", "sliding_window": 0},
    ),
    "qwen3": ("Qwen3", {**WINDOW, "max_window_layers": 0, "head_dim": 16}, {"qk_norm": True}),
}  # fmt: skip


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions warn of each other at import
        return pytest.importorskip("transformers")


@functools.cache
def _made(transformers, name):
    """A model of theirs with weights of which no two are equal."""
    import torch

    family, changes, _ = MODELS[name]
    settings = getattr(transformers, f"{family}Config")(**{**SIZES, **changes})
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(settings).eval()
    with torch.no_grad():
        for weight in model.parameters():
            centre = float(weight.dim() == 1 and bool((weight == 1).all()))
            weight.copy_(torch.randn_like(weight) * 0.2 + centre)
    return model


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def theirs(transformers, name):
    return _made(transformers, name)


def _tokens(count=LENGTH):
    return np.random.default_rng(1).integers(0, 256, (2, count))


def _ours(theirs):
    return from_hugging_face(theirs.state_dict(), theirs.config.to_dict())


def test_logits_and_64_greedy_tokens_with_a_cache(theirs, name):
    import torch

    config, params = _ours(theirs)
    for field, value in MODELS[name][2].items():
        assert functools.reduce(getattr, field.split("."), config) == value
    prompt = torch.from_numpy(_tokens(PROMPT))
    text = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=64, do_sample=False
    ).numpy()
    lengths = jnp.full(2, PROMPT)
    written = jax.jit(functools.partial(greedy, config, count=64, end=-1))(
        params, jnp.asarray(text[:, :PROMPT]), lengths
    )
    np.testing.assert_array_equal(written, text[:, PROMPT:])
    logits = jax.jit(lambda x: Transformer(config).apply({"params": params}, x))
    with torch.no_grad():
        for tokens in (text, _tokens()):
            found, expected = logits(tokens), theirs(torch.from_numpy(tokens)).logits.numpy()
            assert np.ptp(expected) > 0.5
            np.testing.assert_allclose(found, expected, atol=1e-4)
    # without a cache the same tokens follow
    following = np.argmax(logits(text)[:, PROMPT - 1 : -1], axis=-1)
    np.testing.assert_array_equal(following, written)


def test_our_export_is_the_same_in_transformers(theirs, transformers, tmp_path):
    config, params = _ours(theirs)
    save_pretrained(tmp_path / "model", config, params)
    again = type(theirs).from_pretrained(tmp_path / "model")
    auto = transformers.AutoConfig.from_pretrained(tmp_path / "model")
    assert type(auto) is type(theirs.config)
    for key, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[key], tensor)
    import torch

    with torch.no_grad():
        logits = [model.eval()(torch.from_numpy(_tokens())).logits for model in (theirs, again)]
    np.testing.assert_allclose(*logits, atol=1e-6)
    assert from_hugging_face(tmp_path / "model")[0] == config


class TestSettings:
    @pytest.mark.parametrize("old", [False, True])
    def test_both_spellings(self, old):
        settings = {**SIZES, "model_type": "llama", "rope_theta": 500.0}
        if old:
            rope = {"type": "yarn", "factor": None, **{**ORIGINAL, "factor": None}}
            settings["rope_scaling"] = rope
        else:
            settings |= {"rope_parameters": {"rope_type": "yarn", **ORIGINAL, "rope_theta": 500}}
            del settings["rope_theta"]
        config = from_settings(settings, "config")[1]
        assert config.rope_theta == 500
        assert config.rope_scaling.kind == "yarn"
        assert config.rope_scaling.factor == 4
        assert config.rope_scaling.original_length == 24

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"rope_type": "longrope", "short_factor": [1]}, "rope_scaling: rope_type: 'longrope'"),
            ({"type": "linear"}, "factor: missing"),
            ({"type": "linear", **ORIGINAL}, "original_max_position_embeddings: not supported"),
            ({"type": "dynamic", **ORIGINAL}, "original_max_position_embeddings: 24, but of"),
            ({"rope_type": "llama3", **ORIGINAL}, "low_freq_factor: missing"),
            ({**LLAMA3, "high_freq_factor": 0.5}, r"high_freq_factor \(model.rope_scaling"),
            ({"type": "yarn", **ORIGINAL, "factor": "4"}, r"factor \(model.*expected float"),
            ({"type": "default", "mscale": 1.0}, "mscale: not supported with rope_type"),
            ({"rope_type": "proportional"}, "'proportional' is not supported"),
        ],
    )
    def test_scalings_that_are_not_supported(self, changes, message):
        settings = {**SIZES, "model_type": "llama", "rope_scaling": changes}
        with pytest.raises(ConfigError, match=rf"^config: .*{message}"):
            from_settings(settings, "config")

    @pytest.mark.parametrize(
        ("kind", "changes", "message"),
        [
            ("qwen2", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types: not"),
            ("qwen2", {"layer_types": ["full_attention"]}, "layer_types: expected 2 of"),
            (
                "qwen2",
                {"layer_types": ["sliding_attention"] * 2, "use_sliding_window": False},
                "layer_types: sliding_attention, but",
            ),
            ("qwen2", {"use_sliding_window": 1}, "use_sliding_window: expected true or false"),
            ("qwen2", {"attention_bias": False}, "attention_bias: False is not supported"),
            ("qwen3", {"mlp_bias": True}, "mlp_bias: True is not supported"),
            ("mistral", {"layer_types": ["full_attention"] * 2}, "layer_types: .* not supported"),
            ("mistral", {"sliding_window": -1}, "sliding_window: expected at least 0"),
            ("llama", {"rope_interleaved": True}, "rope_interleaved: True is not supported"),
        ],
    )
    def test_what_is_not_supported_is_named(self, kind, changes, message):
        with pytest.raises(ConfigError, match=message):
            from_settings({**SIZES, "model_type": kind, **WINDOW, **changes}, "config")

    @pytest.mark.parametrize(
        ("changes", "architecture", "message"),
        [
            ({"qk_norm": True}, "llama", "model.qk_norm: Llama has False, got True"),
            ({"sliding_window": 4}, "llama", "model.sliding_window: Llama has 0, got 4"),
            ({"bias": True}, "mistral", "model.bias: Mistral has False"),
            ({"attention_bias": "all"}, "mistral", "attention_bias: Mistral has 'none', got 'all'"),
            ({}, "qwen2", "attention_bias: Qwen2 has 'qkv', got 'none'"),
            ({"sliding_window": 4, "full_layers": 1}, None, "model.full_layers: Mistral has 0"),
        ],
    )
    def test_an_architecture_has_what_it_has(self, changes, architecture, message):
        _, config = from_settings({**SIZES, "model_type": "llama"}, "config")
        with pytest.raises(ConfigError, match=message):
            to_settings(dataclasses.replace(config, **changes), architecture)

    def test_a_mistral_without_a_window_is_asked_for(self):
        settings = {**SIZES, "model_type": "mistral", "sliding_window": None}
        _, config = from_settings(settings, "config")
        assert to_settings(config)["model_type"] == "llama"
        assert to_settings(config, "mistral")["sliding_window"] is None

    def test_defaults_are_those_of_transformers(self, transformers):
        sizes = {k: v for k, v in SIZES.items() if isinstance(v, int)}
        sizes |= {"num_attention_heads": 32, "hidden_size": 64}
        del sizes["num_key_value_heads"]
        for family in ("Llama", "Mistral", "Qwen2", "Qwen3"):
            full = getattr(transformers, f"{family}Config")(**sizes).to_dict()
            bare = {**sizes, "model_type": family.lower()}
            assert from_settings(bare, "config") == from_settings(full, "config")


class TestReading:
    def test_old_buffers_are_left_out_where_they_are_known(self, transformers):
        theirs = _made(transformers, "llama_linear")
        tensors = {k: v.numpy() for k, v in theirs.state_dict().items()}
        old = tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
        _, params = from_hugging_face(old, theirs.config.to_dict())
        jax.tree.map(np.testing.assert_array_equal, params, _ours(theirs)[1])
        odd = tensors | {"model.layers.0.mlp.rotary_emb.inv_freq": np.ones(4, np.float32)}
        with pytest.raises(ConfigError, match=r"unexpected: model.layers.0.mlp.rotary_emb"):
            from_hugging_face(odd, theirs.config.to_dict())
        wrong = tensors | {"model.norm.weight": np.ones(32, np.int8)}
        with pytest.raises(ConfigError, match=r"wrong dtype: model.norm.weight is int8"):
            from_hugging_face(wrong, theirs.config.to_dict())

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
    def test_pieces_of_any_float_are_kept_in_bfloat16_if_asked(self, transformers, dtype, tmp_path):
        import torch

        theirs = _made(transformers, "qwen3")
        narrow = type(theirs)(theirs.config).to(getattr(torch, dtype))
        narrow.load_state_dict(theirs.state_dict())
        narrow.save_pretrained(tmp_path, max_shard_size="20KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        _, params = from_hugging_face(tmp_path, dtype="bfloat16")
        assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
        _, wide = from_hugging_face(tmp_path)
        expected = from_hugging_face(narrow.state_dict(), theirs.config.to_dict())[1]
        jax.tree.map(np.testing.assert_array_equal, wide, expected)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-2), params, wide)

    def test_each_parameter_is_placed(self, transformers):
        theirs, shapes = _made(transformers, "mistral"), []

        def place(array):
            shapes.append(array.shape)
            return jnp.asarray(array)

        _, params = from_hugging_face(theirs.state_dict(), theirs.config.to_dict(), place=place)
        assert sorted(shapes) == sorted(x.shape for x in jax.tree.leaves(params))


_MEASURED = """
import json, re, sys
import jax, jax.numpy as jnp
from hrm_jax.interop.hugging_face import from_hugging_face

def memory(kind):
    status = open("/proc/self/status").read()
    return 1024 * int(re.search(kind + r":\\s+(\\d+) kB", status)[1])

jnp.zeros(8).block_until_ready()
before = memory("VmRSS")
_, params = from_hugging_face(sys.argv[1], dtype=sys.argv[2])
jax.block_until_ready(params)
held = sum(x.nbytes for x in jax.tree.leaves(params))
print(json.dumps([memory("VmHWM") - before, held]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
def test_peak_memory_is_the_largest_shard_more_than_the_result(tmp_path):
    """The most memory that a process ever had resident, mapped files included, less what it had
    before; 128 MiB of float32 weights in two pieces."""
    settings = {
        **SIZES, "model_type": "llama", "vocab_size": 8192, "hidden_size": 512,
        "intermediate_size": 2048, "num_hidden_layers": 6,
    }  # fmt: skip
    _, config = from_settings(settings, "config")
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), jnp.zeros((1, 1), int))
    params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes["params"])
    tensors, settings = to_hugging_face(config, params)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    names = list(tensors)
    places, largest = {}, 0
    for number in range(2):
        piece = f"model-{number}.safetensors"
        part = {name: tensors[name] for name in names[number::2]}
        safetensors.numpy.save_file(part, tmp_path / piece)
        largest = max(largest, (tmp_path / piece).stat().st_size)
        places |= dict.fromkeys(part, piece)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    command = [sys.executable, "-c", textwrap.dedent(_MEASURED), str(tmp_path), "float32"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    peak, held = json.loads(told)
    assert held > 120 << 20
    print(peak / 2**20, held / 2**20, largest / 2**20)
    assert peak < held + 1.1 * largest

"""Language models in files."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.interop.files import FORMATS, SUFFIXES
from hrm_jax.interop.hugging_face import from_hugging_face
from hrm_jax.interop.language import (
    LANGUAGE_FORMATS,
    export_language_model,
    import_language_model,
    parameter_shapes,
)
from hrm_jax.models.planner_executor import PlannerExecutorConfig
from hrm_jax.models.transformer import Transformer, TransformerConfig, sinusoidal_positions

_PACKAGES = {"torch": "torch", "keras": "h5py"}

RLM = TransformerConfig(
    vocab_size=260, hidden_size=8, num_layers=2, num_heads=2, ffn_size=12, max_length=6
)
GPT2 = dataclasses.replace(RLM, positions="learned", feed_forward="gelu", tie_head=True)
LLAMA = dataclasses.replace(
    RLM, positions="rotary", norm="rms", feed_forward="swiglu", bias=False, scan_layers=True
)
PLANNER = PlannerExecutorConfig(
    hidden_size=8, num_heads=2, ffn_size=12, planner_layers=1, executor_layers=2,
    planner_length=6, max_length=6, plan_size=4, num_codes=3,
)  # fmt: skip
MODELS = {"rlm": RLM, "gpt2": GPT2, "llama": LLAMA, "planner": PLANNER}


@functools.cache
def _draw(config):
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: rng.standard_normal(x.shape).astype(np.float32), parameter_shapes(config)
    )
    first = jax.tree.leaves(params)[0]
    first.ravel()[:4] = [np.nan, -0.0, 1e-42, np.inf]  # what a detour over text would lose
    return params


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_reads_back_exactly(format, config, assert_same, tmp_path):
    if format in _PACKAGES:
        pytest.importorskip(_PACKAGES[format])
    params = _draw(config)
    output = tmp_path / "sub" / f"my.model{SUFFIXES[format][0]}"
    written = export_language_model(config, params, output, format)
    assert written == [output, tmp_path / "sub" / "my.model.config.json"]
    read, found = import_language_model(output)
    assert read == config
    assert_same(found, params)


@pytest.mark.parametrize("name", ["model", "model.pth", "model.safetensors"])
def test_the_configuration_lies_beside(name, tmp_path):
    if name != "model.safetensors":
        pytest.importorskip("torch")
    format = "safetensors" if name.endswith("safetensors") else "torch"
    _, beside = export_language_model(RLM, _draw(RLM), tmp_path / name, format)
    assert beside == tmp_path / "model.config.json"
    assert import_language_model(tmp_path / name)[0] == RLM


def test_keras_groups_are_layers(tmp_path):
    h5py = pytest.importorskip("h5py")
    params = _draw(RLM)
    export_language_model(RLM, params, tmp_path / "m.weights.h5", "keras")
    second = params["layers_1"]
    with h5py.File(tmp_path / "m.weights.h5") as file:
        for place, expected in {  # as Keras' Embedding, LayerNormalization and Dense have it
            "transformer/embed_tokens/vars/0": params["embed_tokens"]["embedding"],
            "transformer/layers/block_1/attention_norm/vars/0": second["attention_norm"]["scale"],
            "transformer/layers/block_1/attention_norm/vars/1": second["attention_norm"]["bias"],
            "transformer/layers/block_1/attention/q_proj/vars/0": second["attention"]["q_proj"][
                "kernel"
            ],
            "transformer/layers/block_1/attention/q_proj/vars/1": second["attention"]["q_proj"][
                "bias"
            ],
            "transformer/layers/block/ffn/up_proj/vars/0": params["layers_0"]["ffn"]["up_proj"][
                "kernel"
            ],
            "transformer/lm_head/vars/0": params["lm_head"]["kernel"],
        }.items():
            np.testing.assert_array_equal(file[place], expected)


def test_keras_computes_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    ops = keras.ops
    size, heads = RLM.hidden_size, RLM.num_heads

    def dense(inputs, outputs, **kwargs):
        layer = keras.layers.Dense(outputs, **kwargs)
        layer.build((None, inputs))
        return layer

    def norm():
        layer = keras.layers.LayerNormalization(epsilon=RLM.norm_eps)
        layer.build((None, None, size))
        return layer

    def group(**layers):
        layer = keras.layers.Layer()
        for name, value in layers.items():
            setattr(layer, name, value)
        layer.built = True
        return layer

    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.attention = group(**{f"{n}_proj": dense(size, size) for n in "qkvo"})
            self.ffn = group(up_proj=dense(size, RLM.ffn_size), down_proj=dense(RLM.ffn_size, size))
            self.attention_norm, self.ffn_norm = norm(), norm()
            self.built = True

        def call(self, x):
            y, a = self.attention_norm(x), self.attention
            split = (*y.shape[:2], heads, -1)
            q, k, v = (ops.reshape(f(y), split) for f in (a.q_proj, a.k_proj, a.v_proj))
            scores = ops.einsum("bqhc,bkhc->bhqk", q, k) / (size // heads) ** 0.5
            seen = np.tril(np.ones((y.shape[1],) * 2, bool))
            weights = ops.softmax(ops.where(seen, scores, -1e9))
            mixed = ops.reshape(ops.einsum("bhqk,bkhc->bqhc", weights, v), y.shape)
            x = x + a.o_proj(mixed)
            return x + self.ffn.down_proj(ops.relu(self.ffn.up_proj(self.ffn_norm(x))))

    class RLMInKeras(keras.Model):
        def __init__(self):
            super().__init__()
            embedding = keras.layers.Embedding(RLM.vocab_size, size)
            embedding.build()
            self.transformer = group(
                embed_tokens=embedding,
                layers=[Block() for _ in range(RLM.num_layers)],
                final_norm=norm(),
                lm_head=dense(size, RLM.vocab_size, use_bias=False),
            )
            self.built = True

        def call(self, tokens):
            t = self.transformer
            x = t.embed_tokens(tokens) + sinusoidal_positions(tokens.shape[1], size)
            for layer in t.layers:
                x = layer(x)
            return t.lm_head(t.final_norm(x))

    params = jax.tree.map(lambda x: np.where(np.isfinite(x), x, 0), _draw(RLM))
    export_language_model(RLM, params, tmp_path / "m.weights.h5", "keras")
    model = RLMInKeras()
    model.load_weights(tmp_path / "m.weights.h5")
    tokens = np.random.default_rng(1).integers(0, RLM.vocab_size, (2, 6)).astype(np.int32)
    ours = Transformer(RLM).apply({"params": params}, jnp.asarray(tokens))
    np.testing.assert_allclose(np.asarray(model.call(tokens)), ours, atol=1e-4)


def test_hugging_face_is_a_folder(assert_same, tmp_path):
    params = _draw(GPT2)
    written = export_language_model(GPT2, params, tmp_path / "m", "hugging_face", "bytes")
    assert tmp_path / "m" / "tokenizer.json" in written
    config, found = import_language_model(tmp_path / "m")
    assert config == GPT2 == from_hugging_face(tmp_path / "m")[0]
    assert_same(found, params)


def test_bad_arguments_write_nothing(tmp_path):
    def export(config, name, format):
        export_language_model(config, _draw(config), tmp_path / name, format)

    with pytest.raises(ValueError, match=f"expected one of {', '.join(LANGUAGE_FORMATS)}"):
        export(RLM, "m.pt", "pytorch")
    with pytest.raises(ValueError, match=r"expected m\.npz"):
        export(RLM, "m.pt", "numpy")
    with pytest.raises(ConfigError, match=r"model\.positions"):
        export(RLM, "m", "hugging_face")
    with pytest.raises(ConfigError, match=r"model\.name"):
        export(PLANNER, "m", "hugging_face")
    assert not list(tmp_path.iterdir())


def test_import_names_what_is_wrong(tmp_path):
    export_language_model(RLM, _draw(RLM), tmp_path / "m.npz", "numpy")
    beside = tmp_path / "m.config.json"
    settings = json.loads(beside.read_text())
    settings["model"]["ffn_size"] = 13
    beside.write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"layers.1.ffn.up_proj.bias: expected \[13\], found"):
        import_language_model(tmp_path / "m.npz")
    settings["model"]["ffn_sise"] = 12
    beside.write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="did you mean 'ffn_size'"):
        import_language_model(tmp_path / "m.npz")
    beside.unlink()
    with pytest.raises(FileNotFoundError, match=r"m\.config\.json"):
        import_language_model(tmp_path / "m.npz")
    with pytest.raises(ValueError, match="unknown kind of file"):
        import_language_model(tmp_path / "m.xyz")

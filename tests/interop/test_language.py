"""Language models in files."""

import dataclasses
import functools
import json

import jax
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
from hrm_jax.models.transformer import TransformerConfig

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

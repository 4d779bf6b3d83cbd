"""Weights and configurations as trainings elsewhere leave them."""

import argparse
import functools
import json

import jax
import numpy as np
import pytest
import yaml

from hrm_jax.data.errors import DataError
from hrm_jax.fields import ConfigError
from hrm_jax.interop.files import only_state_dict, read_state_dict
from hrm_jax.interop.hrm_names import from_reference, to_reference
from hrm_jax.interop.hugging_face import from_hugging_face, to_hugging_face
from hrm_jax.interop.language import (
    export_language_model,
    import_language_model,
    parameter_shapes,
)
from hrm_jax.interop.reference_config import from_reference_config
from hrm_jax.interop.torch import load_hrm
from hrm_jax.models.transformer import TransformerConfig

# What TRM's repository writes for an HRM that it has trained.
_ELSEWHERE = {"name": "recursive_reasoning.hrm@HierarchicalReasoningModel_ACTV1", "mlp_t": False}
_TINY = {"vocab_size": 11, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "ffn_size": 8}
LLAMA = TransformerConfig(
    **_TINY, max_length=8, positions="rotary", norm="rms", feed_forward="swiglu", bias=False,
    dropout=0.0,
)  # fmt: skip
GPT2 = TransformerConfig(
    **_TINY, max_length=8, positions="learned", feed_forward="gelu", tie_head=True
)


class TestHRMOfTRMsRepository:
    @pytest.fixture
    def config(self, parity_config):
        top = {k: parity_config.pop(k) for k in ("vocab_size", "num_puzzle_identifiers")}
        return {"arch": parity_config | _ELSEWHERE, **top}

    def test_logits_are_the_references(self, config, parity_folder, tmp_path):
        (tmp_path / "all_config.yaml").write_text(yaml.safe_dump(config))
        model = load_hrm(parity_folder / "state_dict.npz", tmp_path / "all_config.yaml")
        with np.load(parity_folder / "batches.npz") as file:
            batch = {k.removeprefix("b0/"): file[k] for k in file if k.startswith("b0/")}
        _, out = model.act_step(model.initial_carry(batch), batch)
        with np.load(parity_folder / "eval_steps.npz") as expected:
            np.testing.assert_allclose(out.logits, expected["step0/logits"], rtol=0, atol=5e-5)

    @pytest.mark.parametrize(
        "changes",
        [
            {"puzzle_emb_len": 0, "no_ACT_continue": False, "mlp_t": None},
            {"puzzle_emb_len": 1},  # as many as the embedding fills
            {"puzzle_emb_len": 16, "puzzle_emb_ndim": 0},
            {"name": "models.somewhere.HierarchicalReasoningModel_ACTV1"},
            {"name": "HierarchicalReasoningModel_ACTV1"},
        ],
    )
    def test_what_changes_nothing_is_taken(self, changes, config):
        config["arch"] |= changes
        plain = {k: v for k, v in config["arch"].items() if k not in _ELSEWHERE | changes}
        if "puzzle_emb_ndim" in changes:
            plain["puzzle_emb_ndim"] = 0
        else:
            plain["puzzle_emb_ndim"] = config["arch"]["puzzle_emb_ndim"]
        del config["vocab_size"], config["num_puzzle_identifiers"]
        sizes = {"vocab_size": 7, "num_puzzle_identifiers": 5}
        assert from_reference_config(config | sizes) == from_reference_config(plain | sizes)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"mlp_t": True}, "mlp_t: a field of TRM, not of HRM"),
            ({"no_ACT_continue": True}, "no_ACT_continue: a field of TRM, not of HRM"),
            ({"puzzle_emb_len": 16}, "puzzle_emb_len: 16, but .* fills 1"),
            ({"name": "trm@TinyRecursiveReasoningModel_ACTV1"}, "arch.name: expected hrm"),
            ({"name": ["x"]}, "arch.name: expected hrm"),
            ({"puzzle_emb_ndim": "${.hidden_size}"}, r"puzzle_emb_ndim: .*Hydra.*all_config\.yaml"),
            ({"hidden_size": 10**400}, "model.hidden_size: an integer of 1329 bits"),
            ({"expansion": 10**400}, "model.expansion: an integer of 1329 bits"),
            ({3: 4, "H_layers": 2**63 - 1}, "model.H_layers: expected at most 4,096"),
        ],
    )
    def test_what_changes_something_is_refused(self, changes, message, config, tmp_path):
        config["arch"] |= changes
        path = tmp_path / "all_config.yaml"
        path.write_text(yaml.safe_dump(config))
        with pytest.raises(ConfigError, match=rf"all_config\.yaml: {message}"):
            from_reference_config(path)

    def test_a_flat_configuration_tells_its_class_too(self, config):
        flat = config["arch"] | {"name": "trm@TinyRecursiveReasoningModel_ACTV1", "vocab_size": 7}
        with pytest.raises(ConfigError, match=r"arch\.name: expected hrm"):
            from_reference_config(flat)


def _step(tensors):
    return {"model": tensors, "optimizers": [{"state": {0: {"step": 3}}}], "step": 7}


def _state_dict(tensors):
    loop = {"state_dict": {}, "epoch_progress": {"current": {"ready": 1}}}
    return {
        **{"epoch": 0, "global_step": 5, "pytorch-lightning_version": "2.5.0", "callbacks": {}},
        **{"state_dict": tensors, "loops": {"fit_loop": loop}, "lr_schedulers": []},
    }


def _random(tensors):
    count, state = np.array(5), np.zeros(5056, np.uint8)
    return {"model_state_dict": tensors, "rng": {"cpu": state}, "rng_state": state, "step": count}


def _adam(tensors):
    return {"module": tensors, "optimizer": {name: x * 0 for name, x in tensors.items()}}


_PARTS = [_step, _state_dict, _random, _adam, lambda tensors: {"checkpoint": _step(tensors)}]


class TestPartsOfCheckpoints:
    @pytest.mark.parametrize("made", _PARTS)
    def test_the_state_dict_is_found(self, made):
        tensors = {"a.weight": np.ones((2, 3), np.float32), "a.count": np.array(3)}
        assert only_state_dict(made(tensors)) is tensors

    @pytest.mark.parametrize("suffix", [".ckpt", ".pt", ""])
    def test_in_files(self, suffix, plain_config, make_variables, assert_same, tmp_path):
        torch = pytest.importorskip("torch")
        variables = make_variables(plain_config)
        tensors = {k: torch.tensor(v) for k, v in to_reference(variables).items()}
        torch.save(_state_dict(tensors), tmp_path / f"last{suffix}")
        found = read_state_dict(tmp_path / f"last{suffix}")
        assert_same(from_reference(found, plain_config), variables)

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"ema": {"a.weight": np.ones(3, np.float32)}}, "several state dicts, model, ema;"),
            ({"a.weight": np.ones(3, np.float32)}, "no tensor: model, optimizers, step"),
            ({"model": {"a": 1}}, "no tensor: model, optimizers, step"),
        ],
    )
    def test_what_is_not_clear_is_refused_by_name(self, more, message):
        content = _step({"a.weight": np.zeros(3, np.float32)}) | more
        with pytest.raises(DataError, match=f"state dict: .*{message}"):
            only_state_dict(content)

    def test_what_such_a_file_holds_besides_is_named(self, tmp_path):
        torch = pytest.importorskip("torch")
        content = {"state_dict": {"a": torch.ones(2)}, "hyper_parameters": argparse.Namespace()}
        torch.save(content, tmp_path / "last.ckpt")
        with pytest.raises(DataError, match=r"last\.ckpt: refused.*holds argparse\.Namespace"):
            read_state_dict(tmp_path / "last.ckpt")


_AROUND = ["module.", "_orig_mod.", "module._orig_mod.", "_forward_module.model.", "net.", "a.b."]


class TestPrefixes:
    @pytest.mark.parametrize("prefix", _AROUND)
    def test_of_the_references_weights(self, prefix, plain_config, make_variables, assert_same):
        variables = make_variables(plain_config)
        tensors = {prefix + name: x for name, x in to_reference(variables).items()}
        if prefix == "module.":
            tensors["n_averaged"] = np.array(3)
        assert_same(from_reference(tensors, plain_config), variables)

    @pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
    @pytest.mark.parametrize("prefix", _AROUND)
    def test_of_hugging_faces(self, prefix, config, assert_same, parameters):
        tensors, settings = to_hugging_face(config, parameters(config))
        around = {prefix + name: x for name, x in tensors.items()}
        if prefix == "module.":
            around["n_averaged"] = np.array(3)
        assert_same(from_hugging_face(around, settings)[1], from_hugging_face(tensors, settings)[1])

    def test_of_our_own(self, assert_same, parameters, tmp_path):
        torch = pytest.importorskip("torch")
        path = tmp_path / "m.pt"
        export_language_model(LLAMA, parameters(LLAMA), path, "torch")
        tensors = torch.load(path, weights_only=True)
        torch.save({"model": {f"module.{k}": v for k, v in tensors.items()}, "step": 3}, path)
        assert_same(import_language_model(path)[1], parameters(LLAMA))

    def test_two_models_in_one_are_refused(self, plain_config, make_variables):
        tensors = to_reference(make_variables(plain_config))
        both = {f"{who}.{name}": x for name, x in tensors.items() for who in ("student", "teacher")}
        with pytest.raises(ConfigError, match=r"under 'student\.model\.inner\.', 'teacher\."):
            from_reference(both, plain_config)

    def test_what_lies_beside_the_model_is_named(self, plain_config, make_variables):
        tensors = {f"net.{k}": x for k, x in to_reference(make_variables(plain_config)).items()}
        tensors["loss.weight"] = np.ones(3, np.float32)
        with pytest.raises(ConfigError, match=r"unexpected: model\.inner\.loss\.weight"):
            from_reference(tensors, plain_config)


@pytest.fixture(scope="module")
def parameters():
    @functools.cache
    def draw(config):
        rng = np.random.default_rng(0)
        shapes = parameter_shapes(config)
        return jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), shapes)

    return draw


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_position_embeddings": 2**31}, r"max_position_embeddings \(model.max_length: .*most"),
        ({"num_hidden_layers": 2**63 - 1}, r"num_hidden_layers \(model.num_layers: expected at mo"),
        ({"hidden_size": 2**20, "num_hidden_layers": 4096}, r"model: weights and tables .* GB"),
        ({"rms_norm_eps": -1}, r"rms_norm_eps \(model.norm_eps: expected at least 1e-30, got -1"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps .*expected a number, got nan"),
        ({"rope_theta": 0, "rope_parameters": None}, "rope_theta: expected at least 1, got 0"),
        ({"rope_scaling": "linear"}, "rope_scaling: expected a group of fields or null, got 'lin"),
        ({"rope_parameters": {"rope_theta": float("nan")}}, "rope_theta: expected a number"),
        ({"model_type": ["llama"]}, "model_type: expected 'gpt2', 'llama', 'mistral'"),
        ({"hidden_size": {"a": 1}}, r"hidden_size: expected int, got \{'a': 1\}"),
    ],
)
def test_fields_of_config_json_have_ranges(changes, message, parameters, tmp_path):
    export_language_model(LLAMA, parameters(LLAMA), tmp_path / "m", "hugging_face")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ConfigError, match=rf"{message}") as caught:
        import_language_model(tmp_path / "m")
    assert str(path) in str(caught.value)


def test_a_tensor_in_two_pieces_is_refused(parameters, tmp_path):
    export_language_model(GPT2, parameters(GPT2), tmp_path / "m", "hugging_face")
    whole = tmp_path / "m" / "model.safetensors"
    for name in ("1.safetensors", "2.safetensors"):
        whole.with_name(name).write_bytes(whole.read_bytes())
    whole.unlink()
    index = whole.with_name("model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    with pytest.raises(DataError, match=r"index\.json: 2\.safetensors has '.*', as another"):
        import_language_model(tmp_path / "m")


def test_errors_of_the_weights_name_their_file(parity_folder, parity_config):
    weights = parity_folder / "state_dict.npz"
    with pytest.raises(ConfigError, match=r"state_dict\.npz: the state dict does not fit"):
        load_hrm(weights, parity_config | {"H_layers": 1})

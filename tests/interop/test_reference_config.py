"""Configurations in the reference's layout."""

import dataclasses
import json

import numpy as np
import pytest
import yaml

from hrm_jax.fields import ConfigError
from hrm_jax.interop.hrm_names import to_reference
from hrm_jax.interop.reference_config import (
    from_reference_config,
    reference_loss,
    to_reference_config,
)
from hrm_jax.models.hrm import HRMConfig

# What the reference writes in its all_config.yaml for Sudoku: no sizes of the data.
ALL_CONFIG = """
arch:
  name: hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1
  loss: {name: losses@ACTLossHead, loss_type: stablemax_cross_entropy}
  H_cycles: 2
  H_layers: 4
  L_cycles: 2
  L_layers: 4
  expansion: 4
  halt_exploration_prob: 0.1
  halt_max_steps: 16
  hidden_size: 512
  num_heads: 8
  pos_encodings: rope
  puzzle_emb_ndim: 512
beta1: 0.9
data_path: data/sudoku-extreme-1k-aug-1000
epochs: 20000
global_batch_size: 384
lr: 7.0e-05
puzzle_emb_lr: 7.0e-05
seed: 0
"""


@pytest.fixture
def flat():
    config = HRMConfig(seq_len=16, vocab_size=11, hidden_size=64, num_heads=2, H_layers=2)
    values = dataclasses.asdict(config)
    del values["q_target"], values["halt_threshold"]
    return values


def test_the_parity_file(parity_folder, parity_config):
    config = from_reference_config(parity_folder / "config.json")
    assert config == from_reference_config(parity_config)
    assert (config.hidden_size, config.expansion, config.forward_dtype) == (64, 4.0, "float32")
    assert (config.halt_exploration_prob, config.num_puzzle_identifiers) == (0.0, 5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"q_target": "none", "pos_encodings": "learned", "puzzle_emb_ndim": 0},
        {"rms_norm_eps": 1e-6, "rope_theta": 5000.0, "forward_dtype": "float32"},
    ],
)
def test_round_trip_over_a_file(changes, tmp_path):
    config = HRMConfig(seq_len=81, vocab_size=11, num_puzzle_identifiers=9, puzzle_emb_ndim=512)
    config = dataclasses.replace(config, **changes)
    written = {**to_reference_config(config), "lr": 1e-4, "seed": 3}
    for name, text in (("c.yaml", yaml.safe_dump(written)), ("c.json", json.dumps(written))):
        (tmp_path / name).write_text(text)
        assert from_reference_config(tmp_path / name) == config


def test_the_layout_is_the_references():
    config = HRMConfig(seq_len=81, vocab_size=11, num_puzzle_identifiers=9, puzzle_emb_ndim=512)
    written = to_reference_config(config)
    reference = yaml.safe_load(ALL_CONFIG)["arch"]
    added = {"rms_norm_eps", "rope_theta", "forward_dtype"}
    assert written["arch"].keys() == reference.keys() | added
    assert written["arch"]["name"] == reference["name"]
    assert written["arch"]["loss"] == reference["loss"]
    del written["arch"]
    assert written == {"seq_len": 81, "vocab_size": 11, "num_puzzle_identifiers": 9}


class TestInference:
    @pytest.fixture
    def all_config(self, tmp_path):
        path = tmp_path / "all_config.yaml"
        path.write_text(ALL_CONFIG)
        return path

    def test_sizes_come_from_the_weights(self, all_config):
        tensors = {
            "_orig_mod.model.inner.embed_tokens.embedding_weight": np.zeros((11, 512)),
            "_orig_mod.model.inner.puzzle_emb.weights": np.zeros((1001, 512)),
        }
        config = from_reference_config(all_config, tensors, seq_len=81)
        expected = HRMConfig(
            seq_len=81, vocab_size=11, num_puzzle_identifiers=1001, puzzle_emb_ndim=512
        )
        assert config == expected

    def test_learned_positions_tell_the_length(self, small_config, make_variables):
        values = to_reference_config(small_config)
        for name in ("seq_len", "vocab_size", "num_puzzle_identifiers"):
            del values[name]
        tensors = to_reference(make_variables(small_config))
        assert from_reference_config(values, tensors) == small_config

    def test_written_values_go_before_the_weights(self, flat):
        tensors = {"model.inner.embed_tokens.embedding_weight": np.zeros((7, 64))}
        assert from_reference_config(flat, tensors).vocab_size == 11

    def test_rotary_positions_do_not_tell(self, all_config):
        tensors = {"model.inner.embed_tokens.embedding_weight": np.zeros((11, 512))}
        with pytest.raises(ConfigError, match=r"seq_len: .*give seq_len="):
            from_reference_config(all_config, tensors)

    def test_no_weights_no_vocabulary(self, all_config):
        with pytest.raises(ConfigError, match=r"all_config\.yaml: vocab_size: "):
            from_reference_config(all_config, seq_len=81)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos_encodings": "none"}, r"model\.pos_encodings: expected one of 'rope', 'learned'"),
        ({"forward_dtype": "float16"}, r"model\.forward_dtype: expected one of"),
        ({"hidden_size": "64"}, r"model\.hidden_size: expected int, got '64'"),
        ({"H_layers": 0}, r"model\.H_layers: expected at least 1"),
        ({"q_target": "once"}, r"model\.q_target: expected one of"),
        ({"rope_tetha": 1.0}, r"'rope_tetha'; did you mean 'rope_theta'"),
        ({"mlp_t": True}, "mlp_t: a field of TRM"),
        ({"arch": {"name": "trm@Model"}}, r"arch\.name: expected hrm\.hrm_act_v1"),
        ({"arch": 3}, "arch: expected a group of fields"),
        ({"L_cycles": None}, "L_cycles: missing"),
    ],
)
def test_wrong_values_are_refused_by_name(changes, message, flat):
    with pytest.raises(ConfigError, match=message):
        from_reference_config(flat | changes)


def test_fields_of_training_are_ignored(flat):
    extra = {"batch_size": 4, "seed": 5, "torch": "2.13", "ignore_label_id": -100, "name": "x"}
    assert from_reference_config(flat | extra) == from_reference_config(flat)


def test_missing_fields_are_listed_together(flat):
    del flat["hidden_size"], flat["H_cycles"]
    with pytest.raises(ConfigError, match="hidden_size, H_cycles: missing"):
        from_reference_config(flat)


def test_defaults_are_the_references(flat):
    for name in ("rms_norm_eps", "rope_theta", "forward_dtype", "puzzle_emb_ndim"):
        del flat[name]
    config = from_reference_config(flat)
    assert (config.rms_norm_eps, config.rope_theta, config.forward_dtype) == (
        1e-5,
        10000.0,
        "bfloat16",
    )
    assert config.puzzle_emb_ndim == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.yaml", "a: [1", "not valid YAML"),
        ("c.yaml", "", "expected fields"),
        ("c.json", "{", "not valid JSON"),
        ("c.toml", "a = 1", r"expected a \.yaml, \.yml or \.json file"),
    ],
)
def test_bad_files_are_named(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        from_reference_config(tmp_path / name)
    assert name in str(caught.value)


def test_yaml_makes_no_objects(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(f"a: !!python/object/apply:os.mkdir ['{tmp_path}/sprung']")
    with pytest.raises(ConfigError, match="not valid YAML"):
        from_reference_config(path)
    assert not (tmp_path / "sprung").exists()


def test_the_loss_of_training(tmp_path):
    path = tmp_path / "all_config.yaml"
    path.write_text(ALL_CONFIG.replace("stablemax_", "softmax_"))
    assert reference_loss(path) == "softmax"
    whole = yaml.safe_load(ALL_CONFIG)
    assert reference_loss(whole) == reference_loss(whole["arch"]) == "stablemax"
    assert reference_loss({"arch": {"H_cycles": 2}}) == reference_loss({}) == "stablemax"
    for wrong in ("mse", ["softmax_cross_entropy"]):
        path.write_text(yaml.safe_dump({"arch": {"loss": {"loss_type": wrong}}}))
        with pytest.raises(ConfigError, match=r"all_config\.yaml: arch\.loss\.loss_type: expected"):
            reference_loss(path)

"""TRM's weights and configurations, as the public code writes them."""

import dataclasses
import json

import numpy as np
import pytest
import yaml

from hrm_jax.fields import ConfigError
from hrm_jax.interop.export import export
from hrm_jax.interop.files import FORMATS, SUFFIXES, read_state_dict
from hrm_jax.interop.hrm_names import from_reference, to_reference
from hrm_jax.interop.reference_config import from_reference_config, to_reference_config
from hrm_jax.interop.torch import load_hrm, load_trm
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.trm import TRMConfig

# What the public code writes in its all_config.yaml for Sudoku.
ALL_CONFIG = """
arch:
  name: recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1
  loss: {name: losses@ACTLossHead, loss_type: stablemax_cross_entropy}
  H_cycles: 3
  H_layers: 0
  L_cycles: 6
  L_layers: 2
  expansion: 4
  forward_dtype: bfloat16
  halt_exploration_prob: 0.1
  halt_max_steps: 16
  hidden_size: 512
  mlp_t: true
  no_ACT_continue: true
  num_heads: 8
  pos_encodings: none
  puzzle_emb_len: 16
  puzzle_emb_ndim: 512
beta1: 0.9
data_paths: [data/sudoku-extreme-1k-aug-1000]
data_paths_test: []
ema: true
ema_rate: 0.999
epochs: 50000
eval_interval: 5000
evaluators: []
freeze_weights: false
global_batch_size: 768
lr: 0.0001
lr_min_ratio: 1.0
lr_warmup_steps: 2000
min_eval_interval: 0
puzzle_emb_lr: 0.0001
puzzle_emb_weight_decay: 1.0
seed: 0
weight_decay: 1.0
"""
MLP_SUDOKU = TRMConfig(
    seq_len=81, vocab_size=11, puzzle_emb_ndim=512, mlp_t=True, pos_encodings="none"
)
WEIGHTS = {
    "_orig_mod.model.inner.embed_tokens.embedding_weight": np.zeros((11, 512)),
    "_orig_mod.model.inner.puzzle_emb.weights": np.zeros((1, 512)),
    "_orig_mod.model.inner.L_level.layers.0.mlp_t.down_proj.weight": np.zeros((97, 512)),
}


def _read(source, *args, **kwargs):
    return from_reference_config(source, *args, kind=TRMConfig, **kwargs)


@pytest.fixture
def flat(trm_config):
    written = to_reference_config(trm_config)
    return {**written.pop("arch"), **written}


# --- configuration ----------------------------------------------------------------------------


def test_the_parity_file(trm_folder):
    config = _read(trm_folder / "config.json")
    assert (config.hidden_size, config.prefix_len, config.mlp_t) == (
        64, 4, trm_folder.name == "trm_mlp",
    )  # fmt: skip
    assert (config.H_cycles, config.L_cycles, config.L_layers) == (3, 2, 2)
    assert config == _read(json.loads((trm_folder / "config.json").read_text()))


@pytest.mark.parametrize(
    "changes",
    [{}, {"halt_threshold": 1.5, "pos_encodings": "learned"}, {"puzzle_emb_len": 0, "L_layers": 3}],
)
def test_round_trip_over_a_file(changes, trm_config, tmp_path):
    config = dataclasses.replace(trm_config, **changes)
    written = {**to_reference_config(config), "lr": 1e-4, "ema_rate": 0.999}
    for name, text in (("c.yaml", yaml.safe_dump(written)), ("c.json", json.dumps(written))):
        (tmp_path / name).write_text(text)
        assert _read(tmp_path / name) == config


def test_the_layout_is_the_public_codes():
    written = to_reference_config(MLP_SUDOKU)
    theirs = yaml.safe_load(ALL_CONFIG)["arch"]
    arch = written.pop("arch")
    assert {name: arch[name] for name in theirs} == theirs
    assert arch.keys() - theirs.keys() == {"rope_theta", "rms_norm_eps"}
    assert written == {"seq_len": 81, "vocab_size": 11, "num_puzzle_identifiers": 1}


def test_sizes_come_from_the_weights(tmp_path):
    path = tmp_path / "all_config.yaml"
    path.write_text(ALL_CONFIG)
    assert _read(path, WEIGHTS) == MLP_SUDOKU


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"no_ACT_continue": False}, "no_ACT_continue: expected true"),
        (
            {"pos_encodings": "sine"},
            r"model\.pos_encodings: expected one of 'rope', 'learned', 'no",
        ),
        ({"puzzle_emb_len": 1}, r"model\.puzzle_emb_len: .*fills 2 tokens"),
        ({"L_layer": 2}, r"'L_layer'; did you mean 'L_layers'"),
        ({"q_target": "none"}, "q_target: a field of HRM, not of TRM"),
        ({"L_cycles": None}, "L_cycles: missing"),
        ({"arch": {"name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1"}}, r"expected recurs"),
    ],
)
def test_wrong_values_are_refused_by_name(changes, message, flat):
    assert _read(flat).mlp_t == flat["mlp_t"]
    with pytest.raises(ConfigError, match=message):
        _read(flat | changes)


def test_the_other_networks_configuration_is_refused(trm_config):
    with pytest.raises(ConfigError, match=r"arch\.name: expected hrm\.hrm_act_v1"):
        from_reference_config(to_reference_config(trm_config))
    with pytest.raises(ConfigError, match=r"arch\.name: expected recursive_reasoning"):
        _read(to_reference_config(HRMConfig(seq_len=4, vocab_size=5)))


# --- weights ----------------------------------------------------------------------------------


def test_names_and_shapes_are_the_public_codes(trm_folder, make_variables):
    with np.load(trm_folder / "state_dict.npz") as file:
        theirs = {name: file[name].shape for name in file}
    ours = to_reference(make_variables(_read(trm_folder / "config.json")))
    assert {name: array.shape for name, array in ours.items()} == theirs


def test_act_steps_are_the_public_codes(trm_folder):
    pytest.importorskip("torch")
    model = load_trm(trm_folder / "state_dict.pt", trm_folder / "config.json")
    with np.load(trm_folder / "batches.npz") as file:
        batch = {k.removeprefix("b0/"): file[k] for k in file if k.startswith("b0/")}
    carry, out = model.act_step(model.initial_carry(batch), batch)
    with np.load(trm_folder / "eval_steps.npz") as expected:
        for ours, theirs in ((out.logits, "logits"), (carry.z_H, "z_H"), (carry.z_L, "z_L")):
            np.testing.assert_allclose(ours, expected[f"step0/{theirs}"], rtol=0, atol=5e-5)


def test_the_length_comes_from_the_layer_over_positions(parity, make_variables):
    config = json.loads((parity / "trm_mlp" / "config.json").read_text())
    del config["seq_len"]
    weights = parity / "trm_mlp" / "state_dict.npz"
    assert load_trm(weights, config).config.seq_len == 16
    with pytest.raises(ConfigError, match=r"down_proj\.weight: expected \[21, 256\], found \[20,"):
        load_trm(weights, config, seq_len=17)
    config = json.loads((parity / "trm_att" / "config.json").read_text())
    del config["seq_len"]
    with pytest.raises(ConfigError, match=r"seq_len: .*give seq_len="):
        load_trm(parity / "trm_att" / "state_dict.npz", config)


def test_all_problems_are_listed_at_once(trm_config, make_variables):
    tensors = to_reference(make_variables(trm_config))
    del tensors["model.inner.q_head.bias"]
    tensors["model.inner.H_level.extra.weight"] = np.zeros((2, 3), np.float32)
    down = "model.inner.L_level.layers.1.mlp.down_proj.weight"
    tensors[down] = tensors[down].T
    with pytest.raises(ConfigError) as caught:
        from_reference(tensors, trm_config)
    for part in (
        "missing: model.inner.q_head.bias [2]",
        "unexpected: model.inner.H_level.extra.weight [2, 3]",
        f"wrong shape: {down}: expected [8, 256], found [256, 8]",
    ):
        assert part in str(caught.value)
    assert str(caught.value).count("\n") == 3


def test_the_other_networks_weights_are_refused(parity, make_variables):
    trm, hrm = parity / "trm_att", parity / "rope"
    with pytest.raises(ConfigError, match=r"missing: model\.inner\.H_level"):
        load_hrm(trm / "state_dict.npz", hrm / "config.json")
    with pytest.raises(ConfigError, match=r"unexpected: model\.inner\.H_level"):
        load_trm(hrm / "state_dict.npz", trm / "config.json")


def test_another_table_can_be_reset(parity):
    weights, config = (parity / "trm_att" / name for name in ("state_dict.npz", "config.json"))
    values = json.loads(config.read_text()) | {"num_puzzle_identifiers": 2}
    with pytest.raises(ConfigError, match="reset_puzzle_table"):
        load_trm(weights, values)
    model = load_trm(weights, values, reset_puzzle_table=True)
    assert model.variables["tables"]["puzzle_emb"].shape == (2, 64)


@pytest.mark.parametrize("format", FORMATS)
def test_exported_files_read_back_exactly(
    format, trm_config, make_variables, assert_same, tmp_path
):
    pytest.importorskip({"torch": "torch", "keras": "h5py"}.get(format, "numpy"))
    variables = make_variables(trm_config)
    weights, config = export(trm_config, variables, tmp_path / f"m{SUFFIXES[format][0]}", format)
    model = load_trm(weights, config)
    assert model.config == trm_config
    assert_same(dict(model.variables), variables)


def test_reference_weights_survive(trm_folder, tmp_path):
    theirs = read_state_dict(trm_folder / "state_dict.npz")
    config = _read(trm_folder / "config.json")
    export(config, from_reference(theirs, config), tmp_path / "m.safetensors", "safetensors")
    ours = read_state_dict(tmp_path / "m.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(ours[k].tobytes() == theirs[k].tobytes() for k in ours)

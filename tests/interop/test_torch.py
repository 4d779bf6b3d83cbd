"""Loading the reference's weights."""

import numpy as np
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.interop.torch import load_hrm


def test_act_steps_are_the_references(parity_folder):
    """With the file that PyTorch wrote; `test_parity` has more of that from the other."""
    pytest.importorskip("torch")
    model = load_hrm(parity_folder / "state_dict.pt", parity_folder / "config.json")
    with np.load(parity_folder / "batches.npz") as file:
        batch = {k.removeprefix("b0/"): file[k] for k in file if k.startswith("b0/")}
    carry = model.initial_carry(batch)
    with np.load(parity_folder / "eval_steps.npz") as expected:
        for k in range(3):
            carry, out = model.act_step(carry, batch)
            for ours, theirs in (
                (out.logits, "logits"),
                (out.q_halt, "q_halt_logits"),
                (out.q_continue, "q_continue_logits"),
                (carry.z_H, "z_H"),
                (carry.z_L, "z_L"),
            ):
                np.testing.assert_allclose(
                    ours, expected[f"step{k}/{theirs}"], rtol=0, atol=5e-5, err_msg=theirs
                )
            np.testing.assert_array_equal(carry.steps, expected[f"step{k}/steps"])
            np.testing.assert_array_equal(carry.halted, expected[f"step{k}/halted"])


def test_torch_tensors_by_name(parity_folder, parity_config, assert_same):
    torch = pytest.importorskip("torch")
    tensors = torch.load(parity_folder / "state_dict.pt", weights_only=True)
    compiled = {f"_orig_mod.{k}": torch.nn.Parameter(v) for k, v in tensors.items()}
    model = load_hrm(compiled, parity_config)
    other = load_hrm(parity_folder / "state_dict.npz", parity_config)
    assert_same(dict(model.variables), dict(other.variables))
    assert model.config == other.config


def test_options_are_passed_on(parity_folder, parity_config):
    del parity_config["seq_len"]
    weights = parity_folder / "state_dict.npz"
    parity_config |= {"num_puzzle_identifiers": 2, "q_target": "none"}
    parity_config["loss"] = {"loss_type": "softmax_cross_entropy"}
    with pytest.raises(ConfigError, match="seq_len"):
        load_hrm(weights, parity_config)
    with pytest.raises(ConfigError, match="reset_puzzle_table"):
        load_hrm(weights, parity_config, seq_len=16)
    model = load_hrm(weights, parity_config, seq_len=16, reset_puzzle_table=True)
    assert model.variables["tables"]["puzzle_emb"].shape == (2, 64)
    assert (model.config.seq_len, model.config.q_target) == (16, "none")
    assert model.loss == "softmax"

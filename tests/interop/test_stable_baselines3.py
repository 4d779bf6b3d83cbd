"""Agents go to Stable-Baselines3 and come back, judged by it."""

import jax
import numpy as np
import pytest
import stable_baselines3
import torch

from hrm_jax import tasks
from hrm_jax.interop.policies import export_policy, import_policy
from hrm_jax.interop.stable_baselines3 import read_zip
from hrm_jax.tasks.rl.policy import Policy

SEEN = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


def _policy(task, **fields):
    made = tasks.build(tasks.parse({"task": task, "model": {"hidden": [16, 8]}, **fields}))
    weights = made.weights(jax.jit(made.init)(jax.random.key(0)))
    if fields.get("normalize_observations"):
        statistics = {"count": 9.0, "mean": np.arange(4.0), "squares": 9 * np.arange(1.0, 5) ** 2}
        weights["statistics"] = {k: np.float32(v) for k, v in statistics.items()}
    return Policy(made, jax.tree.map(np.asarray, weights))


def _theirs(kind, algorithm):
    sizes = {"policy_kwargs": {"net_arch": [16, 8]}, "device": "cpu", "seed": 0}
    return algorithm("MlpPolicy", kind, **sizes)


@pytest.mark.parametrize(
    "fields", [{}, {"normalize_observations": True}, {"model": {"hidden": [16, 8], "shared": True}}]
)
def test_ppo_acts_alike(fields, tmp_path):
    policy = _policy("ppo", **fields)
    (path,) = export_policy(policy, tmp_path / "policy.pth", "stable_baselines3")
    other = _theirs("CartPole-v1", stable_baselines3.PPO)
    other.policy.load_state_dict(torch.load(path, weights_only=True), strict=True)
    with torch.no_grad():
        values = other.policy.predict_values(torch.from_numpy(SEEN))[:, 0]
    np.testing.assert_allclose(policy.value(SEEN), values, atol=1e-5)
    np.testing.assert_array_equal(policy.act(SEEN), other.predict(SEEN, deterministic=True)[0])


def test_dqn_acts_alike_and_comes_back(tmp_path):
    policy = _policy("dqn")
    (path,) = export_policy(policy, tmp_path / "q.pth", "stable_baselines3")
    other = _theirs("CartPole-v1", stable_baselines3.DQN)
    other.policy.load_state_dict(torch.load(path, weights_only=True), strict=True)
    np.testing.assert_array_equal(policy.act(SEEN), other.predict(SEEN, deterministic=True)[0])
    other.save(tmp_path / "agent.zip")
    config, variables = import_policy(tmp_path / "agent.zip", policy.config)
    assert config == policy.config
    jax.tree.map(np.testing.assert_array_equal, variables, {"params": policy.variables["params"]})


def test_our_own_files_come_back(tmp_path):
    policy = _policy("ppo", normalize_observations=True)
    for name, format in (("a.safetensors", "safetensors"), ("a.npz", "numpy"), ("a.pt", "torch")):
        export_policy(policy, tmp_path / name, format)
        _, variables = import_policy(tmp_path / name, policy.config)
        jax.tree.map(np.testing.assert_array_equal, variables, policy.variables)


def test_other_files_are_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"a\.zip"):
        read_zip(tmp_path / "a.zip")
    with pytest.raises(ValueError, match="dueling"):
        export_policy(
            _policy("dqn", model={"hidden": [16, 8], "dueling": True}),
            tmp_path / "a.pth",
            "stable_baselines3",
        )
    with pytest.raises(ValueError, match="format"):
        export_policy(_policy("dqn"), tmp_path / "a.pth", "onnx")

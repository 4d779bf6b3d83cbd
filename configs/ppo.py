r"""Proximal policy optimisation.

python launch/train.py --config=configs/ppo.py[:cartpole|:pendulum|:minatar]
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "cartpole": {
        "environment": "CartPole-v1",
        "steps": 12,
        "batch_size": 64,
        "rollout_steps": 64,
        "iterations": 8,
        "epochs": 4,
        "minibatches": 4,
        "gae_lambda": 0.95,
        "gamma": 0.99,
        "entropy_weight": 0.0,
        "log_every": 1,
        "eval_every": 4,
        "checkpoint_every": 4,
        "tensorboard": False,
        "model": {"hidden": (64, 64)},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 3e-3,
            "warmup_steps": 0,
            "lr_min_ratio": 0.05,
            "b2": 0.999,
            "weight_decay": 0.0,
            "clip_norm": 0.5,
        },
    },
    "pendulum": {
        "environment": "Pendulum-v1",
        "steps": 40,
        "batch_size": 32,
        "rollout_steps": 128,
        "iterations": 8,
        "epochs": 10,
        "minibatches": 16,
        "gae_lambda": 0.95,
        "gamma": 0.9,
        "normalize_observations": True,
        "normalize_rewards": True,
        "log_every": 4,
        "eval_every": 20,
        "checkpoint_every": 20,
        "tensorboard": False,
        "optimizer": {
            "name": "adamw",
            "learning_rate": 1e-3,
            "warmup_steps": 0,
            "lr_min_ratio": 0.05,
            "b2": 0.999,
            "weight_decay": 0.0,
            "clip_norm": 0.5,
        },
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("ppo", PRESETS, preset or "cartpole")

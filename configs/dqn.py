r"""Deep Q-learning.

python launch/train.py --config=configs/dqn.py[:cartpole|:minatar]
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "cartpole": {
        "expect": "a minute on two CPU cores; every evaluation episode lasts to its limit.",
        "environment": "CartPole-v1",
        "steps": 30,
        "batch_size": 16,
        "train_every": 16,
        "iterations": 15,
        "updates": 64,
        "minibatch_size": 128,
        "replay_size": 100_000,
        "learning_starts": 1000,
        "n_step": 5,
        "target_every": 200,
        "epsilon_last": 0.04,
        "epsilon_fraction": 0.2,
        "log_every": 1,
        "eval_every": 10,
        "checkpoint_every": 10,
        "tensorboard": False,
        "model": {"hidden": (128, 128)},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 1e-3,
            "warmup_steps": 0,
            "lr_min_ratio": 0.02,
            "b2": 0.999,
            "weight_decay": 0.0,
            "clip_norm": 10.0,
            "ema": 0.995,
        },
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("dqn", PRESETS, preset or "cartpole")

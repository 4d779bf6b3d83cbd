r"""Deep Q-learning: double, with returns over several steps.

    python launch/train.py --config=configs/dqn.py[:cartpole|:minatar]

Presets:

`cartpole`  115,200 steps of CartPole-v1 and 28,600 updates: the mean return of 100 evaluation
            episodes is 500.0 with each of the seeds 0 to 4, and of 5 to 14 side by side. The whole
            command took 25 to 33 s on two CPU cores.
`minatar`   960,000 steps of MinAtar's Breakout (without sticky actions) and 59,700 updates: 13.5
            bricks in an evaluation episode (seed 0), reached after 384,000 steps; 340 s of CPU
            time. Other games: --config.environment=Freeway-MinAtar.
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
    "minatar": {
        "expect": "6 minutes of CPU time; 13 bricks in an episode of Breakout.",
        "environment": "Breakout-MinAtar",
        "steps": 100,
        "batch_size": 16,
        "train_every": 4,
        "iterations": 150,
        "updates": 4,
        "minibatch_size": 64,
        "replay_size": 100_000,
        "learning_starts": 5000,
        "n_step": 3,
        "target_every": 250,
        "epsilon_last": 0.02,
        "epsilon_fraction": 0.1,
        "eval_max_steps": 1000,
        "log_every": 5,
        "eval_every": 20,
        "checkpoint_every": 50,
        "model": {"hidden": (128,), "filters": (16,)},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 3e-4,
            "warmup_steps": 0,
            "lr_min_ratio": 0.1,
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

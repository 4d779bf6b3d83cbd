r"""Proximal policy optimisation.

    python launch/train.py --config=configs/ppo.py[:cartpole|:pendulum|:minatar]

Presets (without one: `cartpole`); returns of 100 episodes, whole commands on two CPU cores:

`cartpole`  64 environments, 589,824 steps: 500 for each of the seeds 0 to 9 and 1234, in 14
            to 21 s.
`pendulum`  32 environments, 1,310,720 steps, observations and rewards normalised: -149 to -161
            (seeds 0 to 7, side by side) and -146 to -176 (5 to 12), 26 s for one seed. With a
            gamma of 0.9, as is usual, 7 of 8 seeds reached -178 to -221, and one -234.
`minatar`   64 environments, 3,014,656 steps of Breakout: 29, 63, 18, 96 and 36 bricks in an
            evaluation episode (seeds 0 to 4; trained side by side), with the settings of
            PureJaxRL's example for MinAtar. rejax 0.1.3 with the same settings, but for its
            constant learning rate, reaches 18, 0, 1, 42 and 32.
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "cartpole": {
        "expect": "20 seconds on two CPU cores, returns of 500.",
        "environment": "CartPole-v1",
        "steps": 18,
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
        "expect": "half a minute on two CPU cores, returns of -180 or more.",
        "environment": "Pendulum-v1",
        "steps": 40,
        "batch_size": 32,
        "rollout_steps": 128,
        "iterations": 8,
        "epochs": 10,
        "minibatches": 16,
        "gae_lambda": 0.95,
        "gamma": 0.95,
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
    "minatar": {
        "expect": "some minutes on two CPU cores (not timed alone), 18 to 96 bricks in Breakout.",
        "environment": "Breakout-MinAtar",
        "steps": 46,
        "batch_size": 64,
        "rollout_steps": 128,
        "iterations": 8,
        "epochs": 4,
        "minibatches": 8,
        "gae_lambda": 0.95,
        "gamma": 0.99,
        "entropy_weight": 0.01,
        "eval_max_steps": 1000,
        "log_every": 2,
        "eval_every": 23,
        "checkpoint_every": 23,
        "tensorboard": False,
        "model": {"hidden": (64, 64), "activation": "relu"},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 5e-3,
            "warmup_steps": 0,
            "lr_min_ratio": 0.02,
            "b2": 0.999,
            "weight_decay": 0.0,
            "clip_norm": 0.5,
        },
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("ppo", PRESETS, preset or "cartpole")

r"""An agent that schedules a language model's training: text, Φ, or both (PPO).

    python launch/train.py --config=configs/infinito_scheduler.py[:laptop|:gpt2|:continue]

Presets (without one: `laptop`):

`laptop`    the small model that comes with the package, on the answers of its branches.
`gpt2`      the original's sizes, for a folder with GPT-2: --config.language.model=folder.
`continue`  `laptop` with the original's continuation: a lower rate and clip, more entropy; from
            another run's policy: --config.init_from=runs/scheduler.

`--config.reward=text_first` (or `phi_first`, `balance`) takes the guide's other weights.
"""

import copy

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

_ADAMW = {
    "name": "adamw",
    "warmup_steps": 0,
    "lr_min_ratio": 1.0,
    "weight_decay": 0.0,
    "b2": 0.999,
}
_LAPTOP = {
    "expect": "5 minutes on two CPU cores, then 2 for the other schedules; return 2.5 to 2.9.",
    "steps": 64,
    "batch_size": 8,
    "log_every": 1,
    "eval_every": 16,
    "checkpoint_every": 8,
    "tensorboard": False,  # saves the import
    "inner_steps": 1,
    "max_steps": 40,
    "rollout_steps": 20,
    "epochs": 10,
    "minibatches": 4,
    "entropy_weight": 0.003,
    "gamma": 0.95,
    "normalize_observations": True,
    "normalize_rewards": True,
    "mesh": {"cpu_devices": 2},
    "model": {"hidden": (64, 64)},
    "optimizer": {**_ADAMW, "learning_rate": 2e-3, "lr_min_ratio": 0.1, "clip_norm": 0.5},
    # A byte's perplexity is 2 to 20 where a word piece's is 10 to 200.
    "bands": {"perplexity_low": 2.0, "perplexity_high": 20.0},
    "language": {
        "batch_size": 1,
        "data": {"train": "branches", "length": 128, "eval_rows": 4, "eval_segments": 4},
        "memory": {"slots": 128, "layer": 3, "shared": True},
        "phi": {"projections": 2},
        "optimizer": {
            **_ADAMW,
            "learning_rate": 4e-3,
            "b2": 0.98,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
        },
    },
}
PRESETS = {
    "laptop": _LAPTOP,
    "continue": {
        **copy.deepcopy(_LAPTOP),
        "expect": "half as long as `laptop`, as many for the other schedules.",
        "steps": 32,
        "clip": 0.15,
        "entropy_weight": 0.02,
        "optimizer": {**_ADAMW, "learning_rate": 3e-4, "clip_norm": 0.3},
    },
    "gpt2": {
        "expect": "as long as the model takes (not measured).",
        "steps": 50,
        "batch_size": 8,
        "log_every": 1,
        "eval_every": 5,
        "checkpoint_every": 5,
        "inner_steps": 5,
        "max_steps": 50,
        "rollout_steps": 256,
        "epochs": 10,
        "minibatches": 32,
        "entropy_weight": 0.01,
        "model": {"hidden": (128, 128)},
        "optimizer": {**_ADAMW, "learning_rate": 3e-4, "clip_norm": 0.5},
        "language": {"model": "gpt2"},
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("infinito_scheduler", PRESETS, preset or "laptop")

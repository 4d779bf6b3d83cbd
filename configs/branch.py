r"""Adapts a language model to one of fifty branches of knowledge, in Spanish.

    python launch/train.py --config=configs/branch.py[:laptop|:paper] --config.data.branch=physics

`launch/train_branch.py` does the same, for all branches too, and rotates what comes of it.

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  for the small model that comes with the package, whose tokens are bytes: forty records
          are few, so that they are seen 9 times and not 3: after 11 the loss is higher,
          after fewer, fewer answers end by themselves, which is why the last two tokens of an
          answer count five times. Of 8 held-out answers of physics all end, their perplexity goes
          from 5.44 to 4.57; of law too, 4.74 to 4.22.
`laptop_full`, `paper_full`  the same without adapters: all weights are trained.
`paper`   Sheily Train's: r 8, alpha 16, dropout 0.05, 3 epochs of 4 rows, learning rate 2e-4.
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "laptop": {
        "expect": "under 3 minutes on two CPU cores.",
        "data": {"branch": "physics", "held_out": 0.2, "length": 320, "packing": False},
        "epochs": 9,
        "end_weight": 5.0,
        "batch_size": 8,
        "log_every": 8,
        "tensorboard": False,  # saves the import
        "lora": {"r": 16, "alpha": 32.0, "dropout": 0.2, "target_modules": "all-linear"},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 3e-3,
            "warmup_steps": 4,
            "lr_min_ratio": 0.3,
            "b2": 0.98,
            "weight_decay": 0.1,
            "clip_norm": 1.0,
            "ema": 0.9,
        },
    },
    "paper": {
        "expect": "as long as the model takes (not measured).",
        "data": {"branch": "physics", "held_out": 0.2, "length": 512},
        "epochs": 3,
        "batch_size": 4,
        "log_every": 10,
        "lora": {"r": 8, "alpha": 16.0, "dropout": 0.05},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 2e-4,
            "warmup_steps": 10,
            "lr_min_ratio": 0.0,
            "b2": 0.999,
            "weight_decay": 0.0,
            "clip_norm": 1.0,
        },
    },
}
PRESETS["laptop_full"] = {
    **{name: value for name, value in PRESETS["laptop"].items() if name != "lora"},
    "adapt": "full",
    "optimizer": {**PRESETS["laptop"]["optimizer"], "learning_rate": 5e-4},
}
PRESETS["paper_full"] = {
    **{name: value for name, value in PRESETS["paper"].items() if name != "lora"},
    "adapt": "full",
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("instruct", PRESETS, preset)

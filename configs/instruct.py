r"""Teaches a language model to answer instructions, by low-rank adapters or all its weights.

    python launch/train.py --config=configs/instruct.py[:laptop|:paper] \
        --config.data.train=records.jsonl [--config.model=folder] [--config.adapt=full]

Records are `instruction`, `input` and `output`; or `messages`; or `prompt` and `completion`.
`model` is a folder of Hugging Face's, a workdir, or the small model that comes with the package.

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  for the small model, whose tokens are bytes: adapters of all linear layers, and far more
          epochs and a higher learning rate than a large model bears.
`paper`   Sheily Train's: r 8, alpha 16, dropout 0.05, 3 epochs of 4 rows, learning rate 2e-4.
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "laptop": {
        "expect": "some minutes on two CPU cores, 6 to 8 rows a second.",
        "data": {"length": 512},
        "epochs": 4,
        "batch_size": 4,
        "eval_every": 100,
        "checkpoint_every": 100,
        "log_every": 10,
        "tensorboard": False,  # saves the import
        "lora": {"r": 16, "alpha": 32.0, "dropout": 0.1, "target_modules": "all-linear"},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 3e-3,
            "warmup_steps": 10,
            "lr_min_ratio": 0.05,
            "b2": 0.98,
            "weight_decay": 0.0,
            "clip_norm": 1.0,
        },
    },
    "paper": {
        "expect": "as long as the model takes (not measured).",
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


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("instruct", PRESETS, preset)

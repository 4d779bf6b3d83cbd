r"""INFINITO's language model: GPT-2 with adapters, a memory, and Φ in a band.

    python launch/train.py --config=configs/infinito_base.py[:laptop|:introductions|:gpt2]

Presets (without one: `laptop`):

`laptop`  the small model that comes with the package, on its novels.
`introductions`  the same, on texts for which a memory is needed: all of 256 names are told right,
          7% with another text's memory, none without (seed 1).
`gpt2`    the original's sizes and rates, for a folder with GPT-2: --config.model=folder.
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

_LAPTOP = {
    "steps": 300,
    "batch_size": 16,
    "log_every": 25,
    "eval_every": 150,
    "checkpoint_every": 150,
    "tensorboard": False,  # saves the import
    "data": {"length": 128, "eval_rows": 16, "eval_segments": 16},
    "memory": {"slots": 64, "layer": 3, "parts": 4},
    "optimizer": {
        "name": "adamw",
        "learning_rate": 2e-3,
        "warmup_steps": 10,
        "lr_min_ratio": 1.0,
        "b2": 0.98,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
    },
}
PRESETS = {
    "laptop": {"expect": "4 to 5 minutes on two slow CPU cores, 1.914 bits per byte.", **_LAPTOP},
    "introductions": {
        "expect": "10 minutes on two busy, slow CPU cores, all names told right.",
        **_LAPTOP,
        "steps": 2500,
        "log_every": 50,
        "eval_every": 500,
        "checkpoint_every": 500,
        "lambda_phi": 0.0,
        "eval_samples": 0,
        "data": {"kind": "introductions", "length": 64, "segments": 4, "eval_rows": 256},
        "lora": {
            **{"r": 8, "alpha": 32.0, "dropout": 0.0},
            "target_modules": ("c_attn", "c_proj"),
        },
        "memory": {
            **{"slots": 32, "top_k": 32, "layer": 3, "parts": 8, "noise": 0.0},
            **{"threshold": 0.05, "decay": 1.0},
        },
        "phi": {"projections": 1},
        "meter": {"projections": 1},
        "plateau": {"factor": 1.0},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 3e-3,
            "warmup_steps": 10,
            "lr_min_ratio": 0.05,
            "b2": 0.98,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
        },
    },
    "gpt2": {
        "expect": "as long as the model takes (not measured).",
        "model": "gpt2",
        "steps": 10_000,
        "batch_size": 16,
        "eval_every": 500,
        "checkpoint_every": 500,
        "data": {"length": 256},
        "early_stopping": {"metric": "eval/bits_per_byte", "mode": "min", "patience": 5},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 2e-4,
            "warmup_steps": 0,
            "lr_min_ratio": 1.0,
            "b2": 0.98,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
        },
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("infinito", PRESETS, preset or "laptop")

r"""The Transformer RLM on a text of your own, or on the novels that come with the package.

    python launch/train.py --config=configs/transformer.py[:laptop|:paper] \
        --config.data.train=mine.txt [--config.from_json=config.json]

`from_json` is a file with TenMinaTorc's fields (`{"model": {"d_model": …}, "training": {…}}`).

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  its kinds of layers in small sizes.
`paper`   the manual's sizes, and its rules: 69 iterations (evaluations) at most, 12 of them
          without improvement.
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

ADAMW = {
    "name": "adamw",
    "lr_min_ratio": 0.1,
    "b2": 0.98,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
}
STOPPING = {"metric": "eval/bits_per_byte", "mode": "min", "patience": 12}
PRESETS = {
    "laptop": {
        "expect": "minutes on two CPU cores (not measured).",
        "data": {"length": 256, "eval_stride": 128, "eval_windows": 256},
        "steps": 1000,
        "batch_size": 16,
        "eval_every": 500,
        "checkpoint_every": 500,
        "tensorboard": False,  # saves the import
        "early_stopping": STOPPING,
        "model": {
            "name": "transformer",
            "hidden_size": 128,
            "num_heads": 4,
            "num_layers": 4,
            "ffn_size": 512,
            "max_length": 256,
            "dropout": 0.0,
        },
        "optimizer": {**ADAMW, "learning_rate": 1e-3, "warmup_steps": 50},
    },
    "paper": {
        "expect": "hours on one large GPU (not measured).",
        "steps": 69_000,
        "batch_size": 32,
        "eval_every": 1000,
        "checkpoint_every": 1000,
        "control": {"max_iterations": 69},
        "early_stopping": STOPPING,
        "model": {"name": "transformer", "max_length": 2048},
        "optimizer": {**ADAMW, "learning_rate": 1e-4, "warmup_steps": 500},
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("text", PRESETS, preset)

r"""The planner–executor of HRM_ESP on Spanish text, byte by byte (or a plain Transformer).

    python launch/train.py --config=configs/spanish_lm.py[:laptop|:paper]

Without data of your own it learns from the novels that come with the package; otherwise

    --config.data.train=folder,more.txt.gz --config.data.test=held_out.txt

`--config.model.name=transformer` trains a plain decoder of the same size. The plan of a text that
the executor sees anyway saves it nothing, and the run says so; neither does one of the text before
(`--config.model.plans_from=before`, see docs/language.md) save much. `configs/spanish_numbers.py`
cannot do without.

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  1.2M parameters, 5.3 MB of text in 404 s on two CPU cores: 1.953 bits per byte on the two
          held-out works (seed 0; 1.960 in 585 s on a slower machine; xz -9 needs 2.64, an n-gram
          with 5 bytes of context 2.16).
`paper`   the original's sizes, 43.1M parameters.
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "laptop": {
        "expect": "7 to 10 minutes on two CPU cores, 1.96 bits per byte of held-out prose.",
        "data": {"length": 256, "eval_stride": 128, "eval_windows": 256},
        "steps": 1300,
        "batch_size": 16,
        "eval_every": 650,
        "checkpoint_every": 650,
        "tensorboard": False,  # saves the import
        "model": {
            "hidden_size": 128,
            "num_heads": 4,
            "ffn_size": 384,
            "feed_forward": "swiglu",
            "norm": "rms",
            "bias": False,
            "positions": "rotary",
            "max_length": 256,
            "dropout": 0.0,
            "planner_layers": 1,
            "planner_length": 128,
            "plan_size": 64,
            "executor_layers": 4,
            "num_layers": 5,  # of the plain decoder
        },
        "optimizer": {
            "name": "muon",
            "learning_rate": 8e-3,
            "warmup_steps": 50,
            "lr_min_ratio": 0.05,
            "weight_decay": 0.01,
            "ema": 0.98,
        },
    },
    "paper": {
        "expect": "some hours on one large GPU (not measured).",
        "steps": 50_000,
        "batch_size": 64,
        "eval_every": 2500,
        "checkpoint_every": 2500,
        "model": {
            "feed_forward": "geglu",
            "norm": "rms",
            "bias": False,
            "positions": "learned",
            "dropout": 0.1,
            "dtype": "bfloat16",
            "num_layers": 8,  # of the plain decoder
        },
        "optimizer": {
            "name": "adamw",
            "learning_rate": 3e-4,
            "warmup_steps": 500,
            "lr_min_ratio": 0.1,
            "b2": 0.98,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
        },
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("text", PRESETS, preset)

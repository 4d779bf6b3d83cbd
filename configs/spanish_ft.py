r"""Teaches a pretrained language model to answer: prompt⟨TAB⟩target lines, or JSONL records.

    python launch/train.py --config=configs/spanish_ft.py[:laptop|:paper] \
        --config.init_from=runs/spanish_lm --config.data.train=train.tsv --config.data.test=test.tsv

Sizes are those of the model it starts from. Rows are as long as the longest pair; where a few are
much longer than the others, --config.data.prompt_length=512 --config.data.too_long=drop leaves them
out. Without data it learns the number words of
`configs/spanish_numbers.py`, but with a prompt that the executor sees.

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  from the laptop preset of `spanish_lm.py`, on the number words: all of 256 held-out
          numbers word for word (seed 0; 98.8%, 99.6% in other runs), 244 s on two CPU cores.
`paper`   as long as the original's, with its learning rate.
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "laptop": {
        "expect": "some minutes on two CPU cores, nearly all held-out numbers right.",
        "data": {"eval_pairs": 256},
        "steps": 1500,
        "batch_size": 16,
        "eval_every": 750,
        "checkpoint_every": 750,
        "tensorboard": False,  # saves the import
        "model": {"max_length": 8192, "dropout": 0.0},
        "optimizer": {
            "name": "muon",
            "learning_rate": 2e-3,
            "warmup_steps": 50,
            "lr_min_ratio": 0.05,
            "b2": 0.98,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
            "ema": 0.98,
        },
    },
    "paper": {
        "expect": "an hour on one large GPU (not measured).",
        "steps": 10_000,
        "batch_size": 64,
        "eval_every": 1000,
        "checkpoint_every": 1000,
        "model": {"max_length": 8192, "dropout": 0.0},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 1e-4,
            "warmup_steps": 200,
            "lr_min_ratio": 0.1,
            "b2": 0.98,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
        },
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("pairs", PRESETS, preset)

r"""A small GPT-2 over the bytes of Spanish prose: the base that ships with the package.

    python launch/train.py --config=configs/spanish_gpt2.py --workdir=runs/spanish_gpt2

2.8M parameters; 1.806 bits per byte of the two held-out works, with a schedule that was changed on
the way (`hrm_jax/pretrained/spanish_gpt2/README.md`).
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "laptop": {
        "expect": "an hour and a half on two busy CPU cores, 1.8 bits per byte of held-out prose.",
        "data": {"length": 512, "eval_stride": 256, "eval_windows": 0},
        "steps": 3000,
        "batch_size": 8,
        "microbatch_size": 4,
        "eval_every": 500,
        "checkpoint_every": 500,
        "model": {
            "name": "transformer",
            "hidden_size": 192,
            "num_layers": 6,
            "num_heads": 3,
            "ffn_size": 768,
            "feed_forward": "gelu",
            "norm": "layer",
            "positions": "learned",
            "tie_head": True,
            "max_length": 512,
            "dropout": 0.0,
        },
        "optimizer": {
            "name": "muon",
            "learning_rate": 5e-3,
            "warmup_steps": 100,
            "lr_min_ratio": 0.02,
            "weight_decay": 0.05,
            "ema": 0.99,
        },
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("text", PRESETS, preset or "laptop")

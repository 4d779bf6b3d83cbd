r"""The planner–executor on a task that needs its plan: numbers in words, in Spanish.

    python launch/train.py --config=configs/spanish_numbers.py[:laptop|:paper]

The planner reads "1234"; the executor sees only the plan and writes "mil doscientos treinta y
cuatro". Held-out numbers never occur in training.

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  0.58M parameters, six continuous plan vectors: 100% of 512 held-out numbers below a
          million word for word (seed 0), after 181 s on two CPU cores; with another number's plan
          a byte of the words costs 2.9 bits instead of 0.0.
`paper`   the original's sizes, 43M parameters.
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "laptop": {
        "expect": "3 minutes on two CPU cores, all held-out numbers right.",
        "steps": 1000,
        "batch_size": 64,
        "eval_every": 500,
        "checkpoint_every": 500,
        "tensorboard": False,  # saves the import
        "plan": {"dropout": 0.0},
        "model": {
            "executor_sees_prompt": False,
            "hidden_size": 96,
            "num_heads": 3,
            "ffn_size": 256,
            "feed_forward": "swiglu",
            "norm": "rms",
            "bias": False,
            "positions": "rotary",
            "max_length": 128,
            "dropout": 0.0,
            "planner_layers": 2,
            "planner_length": 8,
            "plan_size": 96,
            "num_plans": 6,
            "num_codes": 0,
            "executor_layers": 2,
            "num_layers": 2,  # of the plain decoder
        },
        "optimizer": {
            "name": "muon",
            "learning_rate": 4e-3,
            "warmup_steps": 50,
            "lr_min_ratio": 0.05,
            "weight_decay": 0.01,
            "ema": 0.98,
        },
    },
    "paper": {
        "expect": "an hour on one large GPU (not measured).",
        "data": {"num_train": 200_000},
        "steps": 20_000,
        "batch_size": 256,
        "eval_every": 2000,
        "checkpoint_every": 2000,
        "tensorboard": False,
        "plan": {"dropout": 0.0},
        "model": {
            "executor_sees_prompt": False,
            "norm": "rms",
            "bias": False,
            "max_length": 128,
            "dtype": "bfloat16",
            "planner_length": 8,
            "num_plans": 6,
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
    return preset_config("pairs", PRESETS, preset)

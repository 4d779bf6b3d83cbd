r"""HRM on Latin squares to be completed: each digit once in each row and column.

    python launch/train.py --config=configs/latin.py[:laptop|:small|:paper]

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  5×5 boards with 10 to 18 givens, 1,000 generated puzzles, 0.26M parameters: 99.3% of 1,000
          held-out puzzles (seed 0), whose squares no symmetry turns into squares of the training,
          with up to 8 ACT steps (trained with 4). About 6 minutes, 8 steps a second, measured on
          two busy CPU cores.
`small`   9×9 boards, 1,000 generated puzzles, 2.7M parameters; not measured.
`paper`   9×9 boards, 27.3M parameters, the paper's recipe for Sudoku; not measured.
"""

import jax
from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

CPU = jax.default_backend() == "cpu"
PRESETS = {
    "laptop": {
        "expect": "a few minutes on two CPU cores, at least 95% of held-out puzzles solved.",
        "data": {"size": 5, "givens": (10, 18)},
        "steps": 2500,
        "microbatch_size": 16,
        "eval_slots": 64,
        "eval_max_steps": 8,
        "tensorboard": False,  # saves the import
        "loss": "softmax",
        "model": {
            "hidden_size": 64,
            "num_heads": 2,
            "H_layers": 2,
            "L_layers": 2,
            "puzzle_emb_ndim": 64,
            "halt_max_steps": 4,
            "q_target": "none",
            "halt_threshold": 3.0,  # stop when 95% sure
            "forward_dtype": "float32",
        },
        "optimizer": {
            "name": "muon",
            "learning_rate": 2.5e-3,
            "warmup_steps": 50,
            "lr_min_ratio": 0.05,
            "weight_decay": 0.01,
            "puzzle_emb_lr": 1e-3,
            "puzzle_emb_weight_decay": 0.1,
            "ema": 0.99,
        },
    },
    "small": {
        "expect": "a night on a CPU (not measured); less on a consumer GPU.",
        "data": {"size": 9},
        "steps": 40_000,
        "batch_size": 128,
        "microbatch_size": 16 if CPU else 0,
        "eval_every": 1000,
        "checkpoint_every": 1000,
        "eval_slots": 64,
        "model": {
            "hidden_size": 192,
            "num_heads": 6,
            "H_layers": 3,
            "L_layers": 3,
            "puzzle_emb_ndim": 192,
            "halt_max_steps": 8,
            "q_target": "none",
            "halt_threshold": 3.0,
            "forward_dtype": "float32" if CPU else "bfloat16",
        },
        "optimizer": {
            "name": "muon",
            "learning_rate": 1.5e-3,
            "warmup_steps": 500,
            "lr_min_ratio": 0.05,
            "weight_decay": 0.1,
            "puzzle_emb_lr": 5e-4,
            "puzzle_emb_weight_decay": 0.1,
            "ema": 0.999,
        },
    },
    "paper": {
        "expect": "about an hour on one H200 (not measured); "
        "on a smaller GPU set --config.microbatch_size=96.",
        "data": {"size": 9},
        "steps": 52_083,  # 20,000 epochs of 1,000 puzzles
        "batch_size": 384,
        "eval_every": 2604,
        "checkpoint_every": 2604,
        "eval_slots": 512,
        "model": {"puzzle_emb_ndim": 512},
        "optimizer": {"learning_rate": 7e-5, "puzzle_emb_lr": 7e-5},
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("latin", PRESETS, preset)

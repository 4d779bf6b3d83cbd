r"""HRM and TRM on Sudoku.

    python launch/train.py --config=configs/sudoku.py[:laptop|:hrm6|:real|:small|:paper]

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  9×9 boards of 24 to 32 givens, 3,000 generated puzzles, TRM that knows rows, columns and
          boxes (mixer "units"), 14,114 parameters: 97.6%, 98.3%, 98.0%, 98.4% and 97.6% of 1,000
          held-out puzzles (seeds 0 to 4) with up to 64 ACT steps (trained with 6), starting anew
          after each 16; the whole command took 151 to 170 s on two CPU cores.
`hrm6`    HRM on 6×6 boards, 1,000 generated puzzles, 0.26M parameters: 98.4% of 1,000
          held-out puzzles (98.3% to 99.4%: seeds 0, 1, 2, 11, 12 and 1234) with up to 8 ACT steps
          (trained with 4); the whole command took 152 to 166 s on two CPU cores. In 2,000 steps of
          64 puzzles seed 1234 came to 94.5%.
`real`    the network of `laptop` for real 9×9 puzzles in CSV files. Trained on 122,457 it solved
          37.6% of 2,000 others, 73% of which are of the hardest lists, with up to 16 ACT steps
          (40.8% with 64) after 52 minutes on two busy CPU cores; on a GPU it is twice as wide:
          73.6% with up to 64 steps after 5 minutes of an H100.
          --config.data.train_csv=train.csv --config.data.test_csv=test.csv
`small`   9×9 boards, 1,000 generated puzzles, 2.7M parameters: one consumer GPU, or a CPU over a
          night.
`paper`   9×9 boards, 27.3M parameters, the paper's recipe for Sudoku-Extreme 1k on one GPU (46
          minutes on an H100, by the time of its first 245 steps). With the paper's data:
          --config.data.train_csv=train.csv --config.data.test_csv=test.csv
          --config.data.subsample=1000
"""

import jax
from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

CPU = jax.default_backend() == "cpu"
_UNITS = {
    "name": "trm",
    "mixer": "units",
    "expansion": 3.0,
    "width_multiple": 8,
    "L_layers": 1,
    "H_cycles": 1,
    "L_cycles": 6,
    "halt_threshold": 3.0,
    "halt_exploration_prob": 0.0,
    "restart_noise": 0.5,
    "forward_dtype": "float32",
}
_UNITS_OPTIMIZER = {
    "name": "muon",
    "warmup_steps": 40,
    "lr_min_ratio": 0.03,
    "weight_decay": 0.01,
    "b2": 0.98,
    "clip_norm": 1.0,
}
PRESETS = {
    "laptop": {
        "expect": "2 to 3 minutes on two CPU cores, at least 97% of held-out puzzles solved.",
        "data": {"size": 9, "givens": (24, 32), "num_train": 3000, "augment": False},
        "steps": 2100,
        "batch_size": 8,
        "microbatch_size": 4,
        "mesh": {"cpu_devices": 2},
        "eval_every": 2100,
        "checkpoint_every": 700,
        "eval_slots": 32,
        "eval_max_steps": 64,
        "tensorboard": False,
        "loss": "softmax",
        "model": {
            **_UNITS,
            "hidden_size": 32,
            "unit_width": 16,
            "halt_max_steps": 6,
            "restart_after": 16,
        },
        "optimizer": {
            **_UNITS_OPTIMIZER,
            "learning_rate": 1e-2,
            "warmup_steps": 80,
            "ema": 0.99,
        },
    },
    "hrm6": {
        "expect": "2 to 3 minutes on two CPU cores, at least 97% of held-out puzzles solved.",
        "data": {"size": 6, "givens": (14, 24)},
        "steps": 3200,
        "batch_size": 32,
        "microbatch_size": 16,
        "mesh": {"cpu_devices": 2},
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
            "warmup_steps": 100,
            "lr_min_ratio": 0.05,
            "weight_decay": 0.01,
            "puzzle_emb_lr": 1e-3,
            "puzzle_emb_weight_decay": 0.1,
            "ema": 0.99,
        },
    },
    "real": {
        "expect": "50 minutes on two busy, slow CPU cores, 38% of real puzzles, most of them among "
        "the hardest known; 5 minutes on an H100 (wider, larger batches), 74%.",
        "data": {"size": 9, "augment": False},
        "steps": 36_000 if CPU else 16_500,
        "batch_size": 8 if CPU else 256,
        "microbatch_size": 4 if CPU else 0,
        "mesh": {"cpu_devices": 2},
        "eval_every": 18_000 if CPU else 5500,
        "checkpoint_every": 3000 if CPU else 5500,
        "eval_slots": 32 if CPU else 500,
        "eval_max_steps": 16 if CPU else 64,
        "loss": "softmax",
        "model": {
            **_UNITS,
            "hidden_size": 32 if CPU else 64,
            "unit_width": 16 if CPU else 32,
            "halt_max_steps": 8,
        },
        "optimizer": {
            **_UNITS_OPTIMIZER,
            "learning_rate": 1e-2,
            "warmup_steps": 80 if CPU else 40,
            "ema": 0.99,
        },
    },
    "small": {
        "expect": "a night on a CPU (10 h by arithmetic, not measured); less on a consumer GPU.",
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
        "expect": "46 minutes on an H100 by arithmetic (19 steps a second); "
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
    return preset_config("sudoku", PRESETS, preset)

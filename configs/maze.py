r"""HRM or TRM (--config.model.name=hrm|trm) on mazes: the shortest path from S to G.

    python launch/train.py --config=configs/maze.py[:laptop|:small|:paper]

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  10×10 boards with only one shortest path, of more than 8 moves, generated; a TRM that
          knows which cells are near (`mixer="units"`), with 28,322 parameters, finds it on 99.1%,
          97.9% and 98.9% of 1,000 held-out boards (seeds 0 to 2), after 275 and 287 s (seeds 0 and
          2) on two CPU cores.
`small`   20×20 boards, one consumer GPU.
`paper`   30×30 boards with shortest paths of more than 110 moves, 27.3M parameters, the paper's
          recipe for Maze-Hard 1k. With the paper's data:
          --config.data.train_csv=train.csv --config.data.test_csv=test.csv
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "laptop": {
        "expect": "5 minutes on two CPU cores, 98 to 99% of held-out paths shortest.",
        "data": {
            "size": 10,
            "min_path": 8,
            "unique": True,
            "walls": (0.5, 0.6),
            "num_train": 10_000,
        },
        "steps": 8000,
        "batch_size": 16,
        "mesh": {"cpu_devices": 2},
        "eval_every": 4000,
        "checkpoint_every": 4000,
        "eval_slots": 64,
        "eval_max_steps": 32,
        "best_metric": "eval/optimal",
        "tensorboard": False,  # saves the import
        "loss": "softmax",
        "model": {
            "name": "trm",
            "mixer": "units",
            "hidden_size": 48,
            "unit_width": 16,
            "expansion": 1.5,
            "width_multiple": 8,
            "L_layers": 2,
            "H_cycles": 1,
            "L_cycles": 4,
            "halt_max_steps": 6,
            "halt_threshold": 3.0,
            "halt_exploration_prob": 0.0,
            "forward_dtype": "float32",
        },
        "optimizer": {
            "name": "muon",
            "learning_rate": 5e-3,
            "warmup_steps": 60,
            "lr_min_ratio": 0.03,
            "weight_decay": 0.01,
            "b2": 0.98,
            "clip_norm": 1.0,
            "ema": 0.99,
        },
    },
    "small": {
        "expect": "some hours on one consumer GPU (not measured).",
        "data": {"size": 20, "num_train": 20_000},
        "steps": 20_000,
        "batch_size": 128,
        "eval_every": 1000,
        "checkpoint_every": 1000,
        "eval_slots": 64,
        "best_metric": "eval/optimal",
        "model": {
            "hidden_size": 192,
            "num_heads": 6,
            "H_layers": 3,
            "L_layers": 3,
            "puzzle_emb_ndim": 192,
            "halt_max_steps": 8,
            "q_target": "none",
            "halt_threshold": 3.0,
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
        "expect": "about 8 hours on one large GPU (an hour on eight in the paper).",
        "data": {"size": 30},
        "steps": 26_041,  # 20,000 epochs of 1,000 mazes
        "batch_size": 768,
        "microbatch_size": 96,
        "eval_every": 2604,
        "checkpoint_every": 2604,
        "eval_slots": 256,
        "best_metric": "eval/optimal",
        "model": {"puzzle_emb_ndim": 512},
        "optimizer": {
            "learning_rate": 1e-4,
            "warmup_steps": 2000,
            "weight_decay": 1.0,
            "puzzle_emb_lr": 1e-4,
            "puzzle_emb_weight_decay": 1.0,
        },
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("maze", PRESETS, preset)

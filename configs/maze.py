r"""HRM or TRM (--config.model.name=hrm|trm) on mazes: the shortest path from S to G.

    python launch/train.py --config=configs/maze.py[:laptop|:small|:paper]

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  9×9 boards with only one shortest path, of more than 8 moves, generated; a TRM with 0.14M
          parameters finds it on 92.3% of 1,000 held-out boards (seed 0), after 274 s on two CPU
          cores. 10×10 boards take longer: 80% after 2,700 steps (`--config.data.size=10`).
`small`   20×20 boards, one consumer GPU.
`paper`   30×30 boards with shortest paths of more than 110 moves, 27.3M parameters, the paper's
          recipe for Maze-Hard 1k. With the paper's data:
          --config.data.train_csv=train.csv --config.data.test_csv=test.csv
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "laptop": {
        "expect": "5 minutes on two CPU cores, 92.3% of held-out paths shortest.",
        "data": {
            "size": 9,
            "min_path": 8,
            "unique": True,
            "walls": (0.5, 0.6),
            "num_train": 10_000,
        },
        "steps": 2650,
        "batch_size": 32,
        "microbatch_size": 16,
        "eval_every": 1325,
        "checkpoint_every": 1325,
        "eval_slots": 64,
        "best_metric": "eval/optimal",
        "tensorboard": False,  # saves the import
        "loss": "softmax",
        # One step of twelve blocks with the gradient through all of them learns faster than two of
        # ten.
        "model": {
            "name": "trm",
            "hidden_size": 64,
            "num_heads": 4,
            "L_layers": 4,
            "H_cycles": 1,
            "L_cycles": 2,
            "expansion": 2.25,
            "width_multiple": 32,  # 96
            "rope_theta": 20.0,  # neighbours are 1 and 9 places away: short wavelengths tell them
            "puzzle_emb_len": 1,
            "puzzle_emb_ndim": 64,
            "halt_max_steps": 1,
            "forward_dtype": "float32",
        },
        "optimizer": {
            "name": "muon",
            "learning_rate": 3e-3,
            "warmup_steps": 50,
            "lr_min_ratio": 0.05,
            "weight_decay": 0.01,
            "puzzle_emb_lr": 1e-3,
            "puzzle_emb_weight_decay": 0.1,
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

r"""HRM or TRM (--config.model.name=hrm|trm) on dominoes: the move to make in a position.

    python launch/train.py --config=configs/domino.py[:laptop|:small|:paper]

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  50,000 positions of games that are played for it, a TRM with an MLP over positions, 0.21M
          parameters: 99.6% of the moves for 1,000 held-out positions are optimal (seed 0; 99.2% for
          seed 1), after 10 minutes of two busy CPU cores. One ACT step is enough for a move.
`small`   the same with a larger model, one consumer GPU.
`paper`   the sizes of the paper.
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "laptop": {
        "expect": "10 minutes on two busy CPU cores, 99% of held-out moves optimal.",
        "data": {"num_train": 50_000},
        "steps": 2800,
        "batch_size": 64,
        "microbatch_size": 16,
        "eval_every": 1400,
        "checkpoint_every": 1400,
        "eval_slots": 64,
        "best_metric": "eval/optimal",
        "tensorboard": False,  # saves the import
        "loss": "softmax",
        "model": {
            "name": "trm",
            # An MLP over positions pairs the halves of a tile at once; attention, which has to
            # learn that from one example after the other, is still at 40% by then.
            "mlp_t": True,
            "hidden_size": 64,
            "num_heads": 2,
            "L_layers": 2,
            "H_cycles": 1,
            "L_cycles": 2,
            "puzzle_emb_len": 1,
            "puzzle_emb_ndim": 64,
            "halt_max_steps": 1,
            "forward_dtype": "float32",
        },
        "optimizer": {
            "name": "muon",
            "learning_rate": 5e-3,
            "warmup_steps": 50,
            "lr_min_ratio": 0.03,
            "weight_decay": 0.01,
            "puzzle_emb_lr": 1e-3,
            "puzzle_emb_weight_decay": 0.1,
            "ema": 0.99,
        },
    },
    "small": {
        "expect": "an hour on one consumer GPU (not measured).",
        "data": {"num_train": 100_000},
        "steps": 20_000,
        "batch_size": 256,
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
        "expect": "hours on one large GPU (not measured).",
        "data": {"num_train": 100_000},
        "steps": 26_041,
        "batch_size": 768,
        "eval_every": 2604,
        "checkpoint_every": 2604,
        "eval_slots": 512,
        "best_metric": "eval/optimal",
        "model": {"puzzle_emb_ndim": 512, "halt_max_steps": 8},
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
    return preset_config("domino", PRESETS, preset)

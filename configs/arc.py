r"""HRM (or TRM: --config.model.name=trm) on ARC: tasks of a few demonstrations on coloured grids.

    python launch/train.py --config=configs/arc.py[:laptop|:small|:paper]

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  made-up tasks of five kinds on grids of up to 5×5 cells, 0.43M parameters: all of 40
          held-out tasks are solved at the first try (seed 0; 95.0%, 97.5% with seeds 1, 2), and
          all cells of these tries are right (99.3%, 99.4%); copying the input gives 0% and 59.7%,
          one colour 0% and 56.5%. Half as many steps: 95.0%, 85.0%, 92.5%. Grids that must be
          mirrored are not learnt in 1,500 steps: 0 of 6. 15 minutes of one busy CPU core.
`small`   made-up tasks of all twelve kinds on grids of up to 10×10 cells, one consumer GPU.
`paper`   30×30 canvas, 1000 augmentations of each task, 27.3M parameters and the puzzle table, the
          paper's recipe. The tasks, ARC-AGI-1 for example, are given by
          --config.data.training=ARC-AGI-1.tar.gz,ConceptARC.tar.gz
          --config.data.evaluation=ARC-AGI-1.tar.gz
          and the figures and the file for Kaggle come from
          python launch/evaluate.py --workdir=runs/arc --submission=submission.json
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

PRESETS = {
    "laptop": {
        "expect": "15 minutes of one busy CPU core, 95 to 100% of held-out tasks at once.",
        "data": {
            "families": "recolour,keep,border,lines,dominant",
            "side": 5,
            "num_train": 240,
            "num_test": 40,
            "num_aug": 8,
        },
        "steps": 4000,
        "batch_size": 64,
        "microbatch_size": 16,
        "eval_slots": 64,
        "best_metric": "eval/pass_at_2",
        "tensorboard": False,  # saves the import
        "loss": "softmax",
        "model": {
            "hidden_size": 64,
            "num_heads": 2,
            "H_layers": 2,
            "L_layers": 2,
            "puzzle_emb_ndim": 64,
            "halt_max_steps": 2,
            "q_target": "none",
            "halt_threshold": 3.0,
            "forward_dtype": "float32",
        },
        "optimizer": {
            "name": "muon",
            "learning_rate": 2.5e-3,
            "warmup_steps": 50,
            "lr_min_ratio": 0.05,
            "weight_decay": 0.01,
            "puzzle_emb_lr": 1e-2,
            "puzzle_emb_weight_decay": 0.1,
            "ema": 0.99,
        },
    },
    "small": {
        "expect": "some hours on one consumer GPU (not measured).",
        "data": {"side": 10, "num_train": 4000, "num_test": 200, "num_aug": 50},
        "steps": 40_000,
        "batch_size": 256,
        "eval_every": 2000,
        "checkpoint_every": 2000,
        "eval_slots": 64,
        "eval_aug": 8,
        "best_metric": "eval/pass_at_2",
        "model": {
            "hidden_size": 192,
            "num_heads": 6,
            "H_layers": 3,
            "L_layers": 3,
            "puzzle_emb_ndim": 192,
            "halt_max_steps": 4,
            "q_target": "none",
            "halt_threshold": 3.0,
        },
        "optimizer": {
            "name": "muon",
            "learning_rate": 1.5e-3,
            "warmup_steps": 500,
            "lr_min_ratio": 0.05,
            "weight_decay": 0.1,
            "puzzle_emb_lr": 1e-2,
            "puzzle_emb_weight_decay": 0.1,
            "ema": 0.999,
        },
    },
    "paper": {
        "expect": "days on one large GPU (24 hours on eight in the paper).",
        "data": {"num_aug": 1000},
        "steps": 519_000,  # 100,000 epochs of ARC-AGI-1 and ConceptARC: 960 tasks, 3986 pairs
        "batch_size": 768,
        "microbatch_size": 96,
        "eval_every": 10_000,
        "checkpoint_every": 10_000,
        "eval_slots": 256,
        "eval_aug": 8,
        "best_metric": "eval/pass_at_2",
        "model": {"puzzle_emb_ndim": 512},
        "optimizer": {
            "learning_rate": 1e-4,
            "warmup_steps": 2000,
            "weight_decay": 0.1,
            "puzzle_emb_lr": 1e-2,
            "puzzle_emb_weight_decay": 0.1,
        },
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config("arc", PRESETS, preset)

r"""HRM on Sudoku.

    python launch/train.py --config=configs/sudoku.py[:laptop|:small|:paper]

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  6×6 boards, 1,000 generated puzzles, 0.26M parameters: 98.4%, 98.2% and 98.1% of 1,000
          held-out puzzles (seeds 0, 1, 2) with up to 8 ACT steps, 97.7%, 96.6% and 97.7% with the 4
          of training; the whole command took 136 to 143 s on two CPU cores.
`small`   9×9 boards, 1,000 generated puzzles, 2.7M parameters: one consumer GPU, or a CPU over a
          night.
`paper`   9×9 boards, 27.3M parameters, the paper's recipe for Sudoku-Extreme 1k on one GPU (about
          an hour on an H200 in the PyTorch reference). With the paper's data:
          --config.data.train_csv=train.csv --config.data.test_csv=test.csv
          --config.data.subsample=1000
"""

import jax
from ml_collections import ConfigDict

PRESETS = ("laptop", "small", "paper")


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    why = "as asked"
    if not preset:
        accelerated = jax.default_backend() != "cpu"
        preset = "paper" if accelerated else "laptop"
        why = f"since JAX finds {'an' if accelerated else 'no'} accelerator"
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")

    config = ConfigDict(
        {
            "task": "sudoku",
            "preset": f"{preset}, {why}",
            "expect": "",
            "seed": 0,
            "steps": 0,
            "batch_size": 64,
            "microbatch_size": 0,
            "log_every": 50,
            "eval_every": 500,
            "checkpoint_every": 500,
            "keep_checkpoints": 3,
            "best_metric": "eval/exact_accuracy",
            "early_stopping": {"metric": "", "mode": "max", "patience": 10, "min_delta": 0.0},
            "profile": False,
            "tensorboard": True,
            "wandb": "",
            "init_from": "",
            "reset_puzzle_table": False,
            "eval_slots": 64,
            "eval_max_steps": 0,
            "loss": "stablemax",
            "data": {
                "path": "",
                "train_csv": "",
                "test_csv": "",
                "subsample": 0,
                "check_symmetry": False,
                "size": 9,
                "num_train": 1000,
                "num_test": 1000,
                "givens": (),
                "seed": 0,
                "augment": True,
            },
            "model": {
                "hidden_size": 512,
                "num_heads": 8,
                "expansion": 4.0,
                "H_layers": 4,
                "L_layers": 4,
                "H_cycles": 2,
                "L_cycles": 2,
                "puzzle_emb_ndim": 512,
                "pos_encodings": "rope",
                "rope_theta": 10000.0,
                "rms_norm_eps": 1e-5,
                "halt_max_steps": 16,
                "halt_exploration_prob": 0.1,
                "q_target": "second_forward",
                "halt_threshold": 0.0,
                "forward_dtype": "bfloat16",
            },
            "optimizer": {
                "name": "adam_atan2",
                "learning_rate": 1e-4,
                "warmup_steps": 2000,
                "lr_min_ratio": 1.0,
                "b1": 0.9,
                "b2": 0.95,
                "weight_decay": 1.0,
                "puzzle_emb_lr": 1e-4,
                "puzzle_emb_weight_decay": 1.0,
                "clip_norm": 0.0,
                "ema": 0.0,
            },
        }
    )
    model, optimizer = config.model, config.optimizer
    if preset == "laptop":
        config.expect = "2 to 3 minutes on two CPU cores, at least 97% of held-out puzzles solved."
        config.steps = 2000
        config.batch_size = 64
        config.microbatch_size = 16
        config.loss = "softmax"
        config.data.update(size=6, givens=(14, 24))
        config.eval_max_steps = 8
        config.tensorboard = False  # saves the import
        model.update(hidden_size=64, num_heads=2, H_layers=2, L_layers=2, puzzle_emb_ndim=64)
        model.update(halt_max_steps=4, forward_dtype="float32")
        model.update(q_target="none", halt_threshold=3.0)  # stop when 95% sure
        optimizer.update(name="muon", learning_rate=2.5e-3, warmup_steps=50, lr_min_ratio=0.05)
        optimizer.update(weight_decay=0.01, puzzle_emb_lr=1e-3, puzzle_emb_weight_decay=0.1)
        optimizer.ema = 0.99
    elif preset == "small":
        config.expect = (
            "a night on a CPU (10 h by arithmetic, not measured); less on a consumer GPU."
        )
        config.steps = 40_000
        config.batch_size = 128
        config.eval_every = config.checkpoint_every = 1000
        cpu = jax.default_backend() == "cpu"
        config.microbatch_size = 16 if cpu else 0
        model.update(hidden_size=192, num_heads=6, H_layers=3, L_layers=3, puzzle_emb_ndim=192)
        model.update(halt_max_steps=8, forward_dtype="float32" if cpu else "bfloat16")
        model.update(q_target="none", halt_threshold=3.0)
        optimizer.update(name="muon", learning_rate=1.5e-3, warmup_steps=500, lr_min_ratio=0.05)
        optimizer.update(weight_decay=0.1, puzzle_emb_lr=5e-4, puzzle_emb_weight_decay=0.1)
        optimizer.ema = 0.999
    else:
        config.expect = (
            "about an hour on one H200 (figure of the PyTorch reference, not measured here); on a "
            "smaller GPU set --config.microbatch_size=96."
        )
        config.steps = 52_083  # 20,000 epochs of 1,000 puzzles
        config.batch_size = 384
        config.eval_every = config.checkpoint_every = 2604
        config.eval_slots = 512
        optimizer.update(learning_rate=7e-5, puzzle_emb_lr=7e-5)
    return config

r"""HRM (or TRM: --config.model.name=trm) on ARC: tasks of a few demonstrations on coloured grids.

    python launch/train.py --config=configs/arc.py[:laptop|:small|:paper]

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  made-up tasks of five kinds on grids of up to 5×5 cells, 0.43M parameters: 95.0% of 40
          held-out tasks are solved at the first try (seed 0; 85.0%, 92.5% with seeds 1, 2), and
          99.6% of the cells of these tries are right; copying the input gives 0% and 59.7%, one
          colour 0% and 56.5%. Grids that must be mirrored are not learnt in that time: 0 of 6,
          after 1,500 steps. 164 s on two CPU cores.
`small`   made-up tasks of all twelve kinds on grids of up to 10×10 cells, one consumer GPU.
`paper`   30×30 canvas, 1000 augmentations of each task, 27.3M parameters and the puzzle table, the
          paper's recipe. The tasks, ARC-AGI-1 for example, are given by
          --config.data.training=ARC-AGI-1.tar.gz,ConceptARC.tar.gz
          --config.data.evaluation=ARC-AGI-1.tar.gz
          and the figures and the file for Kaggle come from
          python launch/evaluate.py --workdir=runs/arc --submission=submission.json
"""

from ml_collections import ConfigDict

from hrm_jax import tasks
from hrm_jax.fields import choose_preset

PRESETS = ("laptop", "small", "paper")


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    preset, why = choose_preset(preset, PRESETS)
    config = ConfigDict(tasks.defaults("arc"))
    config.preset = why
    config.eval_slots = 64
    config.best_metric = "eval/pass_at_2"
    model, optimizer = config.model, config.optimizer
    if preset == "laptop":
        config.expect = "about 3 minutes on two CPU cores, 85 to 95% of held-out tasks at once."
        config.steps = 2000
        config.batch_size = 64
        config.microbatch_size = 16
        config.loss = "softmax"
        config.tensorboard = False  # saves the import
        config.data.update(families="recolour,keep,border,lines,dominant", side=5, num_aug=8)
        config.data.update(num_train=240, num_test=40)
        model.update(hidden_size=64, num_heads=2, H_layers=2, L_layers=2, puzzle_emb_ndim=64)
        model.update(halt_max_steps=2, forward_dtype="float32")
        model.update(q_target="none", halt_threshold=3.0)
        optimizer.update(name="muon", learning_rate=2.5e-3, warmup_steps=50, lr_min_ratio=0.05)
        optimizer.update(weight_decay=0.01, puzzle_emb_lr=1e-2, puzzle_emb_weight_decay=0.1)
        optimizer.ema = 0.99
    elif preset == "small":
        config.expect = "some hours on one consumer GPU (not measured)."
        config.steps = 40_000
        config.batch_size = 256
        config.eval_every = config.checkpoint_every = 2000
        config.data.update(side=10, num_train=4000, num_test=200, num_aug=50)
        config.eval_aug = 8
        model.update(hidden_size=192, num_heads=6, H_layers=3, L_layers=3, puzzle_emb_ndim=192)
        model.update(halt_max_steps=4, q_target="none", halt_threshold=3.0)
        optimizer.update(name="muon", learning_rate=1.5e-3, warmup_steps=500, lr_min_ratio=0.05)
        optimizer.update(weight_decay=0.1, puzzle_emb_lr=1e-2, puzzle_emb_weight_decay=0.1)
        optimizer.ema = 0.999
    else:
        config.expect = "days on one large GPU (24 hours on eight in the paper)."
        config.steps = 519_000  # 100,000 epochs of ARC-AGI-1 and ConceptARC: 960 tasks, 3986 pairs
        config.batch_size = 768
        config.microbatch_size = 96
        config.eval_every = config.checkpoint_every = 10_000
        config.eval_slots = 256
        config.data.num_aug = 1000
        config.eval_aug = 8
        model.puzzle_emb_ndim = 512
        optimizer.update(learning_rate=1e-4, puzzle_emb_lr=1e-2, warmup_steps=2000)
        optimizer.update(weight_decay=0.1, puzzle_emb_weight_decay=0.1)
    return config

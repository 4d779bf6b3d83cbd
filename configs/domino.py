r"""HRM or TRM (--config.model.name=hrm|trm) on dominoes: the move to make in a position.

    python launch/train.py --config=configs/domino.py[:laptop|:small|:paper]

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  50,000 positions of games that are played for it, a TRM with an MLP over positions, 0.21M
          parameters: 97.9% of the moves for 1,000 held-out positions are optimal (seed 0), after
          221 s on two CPU cores. One ACT step is enough for a move.
`small`   the same with a larger model, one consumer GPU.
`paper`   the sizes of the paper.
"""

from ml_collections import ConfigDict

from hrm_jax import tasks
from hrm_jax.fields import choose_preset

PRESETS = ("laptop", "small", "paper")


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    preset, why = choose_preset(preset, PRESETS)
    config = ConfigDict(tasks.defaults("domino"))
    config.preset = why
    config.eval_slots = 64
    config.best_metric = "eval/optimal"
    model, optimizer = config.model, config.optimizer
    model.update(halt_max_steps=8)
    if preset == "laptop":
        config.expect = "4 minutes on two CPU cores, 98% of held-out moves optimal."
        config.steps = 1400
        config.batch_size = 64
        config.microbatch_size = 16
        config.eval_every = config.checkpoint_every = 700
        config.loss = "softmax"
        config.data.num_train = 50_000
        config.tensorboard = False  # saves the import
        # An MLP over positions pairs the halves of a tile at once; attention, which has to learn
        # that from one example after the other, is still at 40% by then.
        model.update(name="trm", mlp_t=True, H_cycles=1, L_cycles=2)
        model.update(hidden_size=64, num_heads=2, puzzle_emb_ndim=64, puzzle_emb_len=1)
        model.update(L_layers=2, halt_max_steps=1, forward_dtype="float32")
        optimizer.update(name="muon", learning_rate=5e-3, warmup_steps=50, lr_min_ratio=0.2)
        optimizer.update(weight_decay=0.01, puzzle_emb_lr=1e-3, puzzle_emb_weight_decay=0.1)
        optimizer.ema = 0.99
    elif preset == "small":
        config.expect = "an hour on one consumer GPU (not measured)."
        config.steps = 20_000
        config.batch_size = 256
        config.eval_every = config.checkpoint_every = 1000
        config.data.num_train = 100_000
        model.update(hidden_size=192, num_heads=6, H_layers=3, L_layers=3, puzzle_emb_ndim=192)
        model.update(q_target="none", halt_threshold=3.0)
        optimizer.update(name="muon", learning_rate=1.5e-3, warmup_steps=500, lr_min_ratio=0.05)
        optimizer.update(weight_decay=0.1, puzzle_emb_lr=5e-4, puzzle_emb_weight_decay=0.1)
        optimizer.ema = 0.999
    else:
        config.expect = "hours on one large GPU (not measured)."
        config.steps = 26_041
        config.batch_size = 768
        config.eval_every = config.checkpoint_every = 2604
        config.eval_slots = 512
        config.data.num_train = 100_000
        model.puzzle_emb_ndim = 512
        optimizer.update(learning_rate=1e-4, puzzle_emb_lr=1e-4, warmup_steps=2000)
        optimizer.update(weight_decay=1.0, puzzle_emb_weight_decay=1.0)
    return config

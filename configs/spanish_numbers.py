r"""The planner–executor on a task that needs its plan: numbers in words, in Spanish.

    python launch/train.py --config=configs/spanish_numbers.py[:laptop|:paper]

The planner reads "1234"; the executor sees only the plan and writes "mil doscientos treinta y
cuatro". Held-out numbers never occur in training.

Presets (without one: `laptop` where JAX finds no accelerator, `paper` where it does):

`laptop`  0.58M parameters, six continuous plan vectors: 100% of 512 held-out numbers below a
          million word for word (seed 0), after 138 s on two CPU cores; with another number's plan
          a byte of the words costs 2.9 bits instead of 0.0.
`paper`   the original's sizes, 43M parameters.
"""

from ml_collections import ConfigDict

from hrm_jax import tasks
from hrm_jax.fields import choose_preset

PRESETS = ("laptop", "paper")


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset."""
    preset, why = choose_preset(preset, PRESETS)
    config = ConfigDict(tasks.defaults("pairs"))
    config.preset = why
    model, optimizer = config.model, config.optimizer
    model.executor_sees_prompt = False
    config.plan.dropout = 0.0
    config.tensorboard = False
    if preset == "laptop":
        config.expect = "3 minutes on two CPU cores, all held-out numbers right."
        config.steps = 1000
        config.batch_size = 64
        config.eval_every = config.checkpoint_every = 500
        model.update(hidden_size=96, num_heads=3, ffn_size=256, feed_forward="swiglu")
        model.update(executor_layers=2, planner_layers=2, num_layers=2, norm="rms", bias=False)
        model.update(planner_length=8, max_length=128, positions="rotary", dropout=0.0)
        model.update(plan_size=96, num_plans=6, num_codes=0)
        optimizer.update(name="muon", learning_rate=4e-3, warmup_steps=50, lr_min_ratio=0.05)
        optimizer.update(weight_decay=0.01, ema=0.98)
    else:
        config.expect = "an hour on one large GPU (not measured)."
        config.steps = 20_000
        config.batch_size = 256
        config.eval_every = config.checkpoint_every = 2000
        config.data.num_train = 200_000
        model.update(planner_length=8, max_length=128, num_plans=6, num_layers=8, norm="rms")
        model.update(bias=False, dtype="bfloat16")
        optimizer.update(name="adamw", learning_rate=3e-4, warmup_steps=500, lr_min_ratio=0.1)
        optimizer.update(b2=0.98, weight_decay=0.01, clip_norm=1.0)
    return config

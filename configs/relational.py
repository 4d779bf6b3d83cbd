r"""The relational network on Sort-of-CLEVR and on families.

python launch/train.py --config=configs/relational.py[:states|:pixels|:family]
"""

from ml_collections import ConfigDict

from hrm_jax.tasks import preset_config

_MODEL = {
    "object_dim": 256,
    "relation_dim": 128,
    "hidden_dim": 128,
    "g_layers": 4,
    "f_layers": 2,
}
_OPTIMIZER = {
    "name": "muon",
    "learning_rate": 2e-2,
    "warmup_steps": 100,
    "lr_min_ratio": 0.02,
    "b2": 0.99,
    "weight_decay": 1e-4,
    "clip_norm": 1.0,
}
TASKS = {"states": "sort_of_clevr", "pixels": "sort_of_clevr", "family": "family"}
PRESETS = {
    "states": {
        "expect": "75 seconds on two CPU cores, 97% of relational questions and all others.",
        "steps": 1500,
        "batch_size": 16,
        "microbatch_size": 4,
        "eval_every": 500,
        "checkpoint_every": 500,
        "tensorboard": False,
        "model": _MODEL,
        "optimizer": _OPTIMIZER,
    },
    "pixels": {
        "expect": "24 minutes on two CPU cores: 92% of questions about one object, of those about "
        "several no more than the most common answer to each.",
        "steps": 5000,
        "data": {"shown": "pixels"},
        "batch_size": 16,
        "microbatch_size": 4,
        "asked": 36,
        "eval_every": 1250,
        "checkpoint_every": 1250,
        "tensorboard": False,
        "model": {**_MODEL, "channels": (24, 24, 32, 48, 64)},
        "optimizer": {**_OPTIMIZER, "learning_rate": 7e-3},
    },
    "family": {
        "expect": "2 to 3 minutes on two CPU cores, all questions of one step and of two.",
        "steps": 1200,
        "batch_size": 16,
        "microbatch_size": 4,
        "asked": 16,
        "eval_every": 400,
        "checkpoint_every": 400,
        "tensorboard": False,
        "model": _MODEL,
        "optimizer": _OPTIMIZER,
    },
}


def get_config(preset: str = "states") -> ConfigDict:
    """Returns the configuration of a preset."""
    return preset_config(TASKS.get(preset, "sort_of_clevr"), PRESETS, preset)

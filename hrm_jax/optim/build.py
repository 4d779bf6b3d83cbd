"""The optimizer that a config describes."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from hrm_jax.fields import require_fields
from hrm_jax.optim.adam_atan2 import Form, adam_atan2


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated.

    Attributes:
        name: "adam_atan2" (the reference's), "adam_atan2_a127" (its 27% longer steps), "adamw", or
            "muon" (Muon for the matrices inside the modules, kernels of convolutions too, scaled to
            the size of AdamW's updates; AdamW for all else).
        learning_rate: Peak learning rate.
        warmup_steps: Steps of linear warm-up.
        lr_min_ratio: Learning rate at the end of the cosine over the peak; 1 keeps it constant.
        b1, b2: Decay of the first and second moment.
        weight_decay: Decoupled, on every parameter.
        clip_norm: Global gradient norm above which gradients are scaled down; 0 never does.
        ema: Decay of an average of all parameters, used for evaluation; 0 keeps none.
    """

    name: Literal["adam_atan2", "adam_atan2_a127", "adamw", "muon"] = "adam_atan2"
    learning_rate: float = 1e-4
    warmup_steps: int = 2000
    lr_min_ratio: float = 1.0
    b1: float = 0.9
    b2: float = 0.95
    weight_decay: float = 1.0
    clip_norm: float = 0.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        check = functools.partial(require_fields, self, "optimizer")
        check("more than 0", lambda x: x > 0, "learning_rate")
        check("0 or more", lambda x: x >= 0, "weight_decay", "warmup_steps", "clip_norm")
        check("0 <= x < 1", lambda x: 0 <= x < 1, "b1", "b2", "ema")
        check("0..1", lambda x: 0 <= x <= 1, "lr_min_ratio")


def learning_rate(config: OptimizerConfig, total_steps: Any, peak: float) -> optax.Schedule:
    """Linear warm-up, then a half cosine from `peak` to `peak * lr_min_ratio` at `total_steps`.

    `total_steps` may be traced. The first update (count 0) uses step 1, as the reference does:
    peak / warmup_steps.
    """
    warmup, least = config.warmup_steps, config.lr_min_ratio

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(count, jnp.float32) + 1
        progress = (step - warmup) / jnp.maximum(1, total_steps - warmup)
        cosine = 0.5 * (1 + jnp.cos(math.pi * progress))
        decayed = peak * (least + (1 - least) * cosine)
        return jnp.where(step < warmup, peak * step / max(1, warmup), decayed)

    return schedule


def _inner_matrices(params: optax.Params) -> Any:
    """Marks the matrices inside modules; embeddings and heads are left to AdamW."""

    def mark(path: tuple[Any, ...], leaf: jax.Array) -> Any:
        inner = len(path) > 2 and path[-1].key == "kernel" and path[-2].key != "lm_head"
        if not inner or leaf.ndim not in (2, 3, 4):
            return None
        if leaf.ndim == 4:  # a convolution: what lies under it by what it gives
            return optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
        return optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)  # 3: scanned layers

    return jax.tree_util.tree_map_with_path(mark, params)


def build_optimizer(
    config: OptimizerConfig, total_steps: Any, updates_per_step: int = 1, left_out: int = 0
) -> optax.GradientTransformation:
    """The optimizer of a run of so many steps; all updates of a step have its learning rate. The
    first updates of the run, so many, may be left out."""
    schedule = learning_rate(config, total_steps, config.learning_rate)

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        return schedule((jnp.asarray(count) + left_out) // updates_per_step)

    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if config.name == "muon":
        rule = optax.contrib.muon(
            rate,
            weight_decay=config.weight_decay,
            adam_b1=config.b1,
            adam_b2=config.b2,
            adam_weight_decay=config.weight_decay,
            muon_weight_dimension_numbers=_inner_matrices,
            consistent_rms=0.2,
        )
    elif config.name == "adamw":
        rule = optax.adamw(rate, config.b1, config.b2, weight_decay=config.weight_decay)
    else:
        form: Form = "a127" if config.name.endswith("a127") else "upstream"
        rule = adam_atan2(rate, config.b1, config.b2, config.weight_decay, form)
    return optax.chain(clip, rule)

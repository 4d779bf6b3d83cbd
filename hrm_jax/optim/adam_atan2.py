"""AdamATan2: Adam with arctan2 in place of the division, so that it needs no epsilon."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

Form = Literal["upstream", "a127"]


# Coefficients of t³, t⁵, … of arctan on [0, 1], error at most 2e-8: Abramowitz and Stegun,
# Handbook of Mathematical Functions, 4.4.49.
_ARCTAN = (
    *(-0.3333314528, 0.1999355085, -0.1420889944, 0.1065626393),
    *(-0.0752896400, 0.0429096138, -0.0161657367, 0.0028662257),
)


def arctan2(y: jax.Array, x: jax.Array) -> jax.Array:
    """atan2(y, x) in float32 for x ≥ 0, within 2e-7; atan2(0, 0) is 0.

    Plain arithmetic, which vectorises: on a CPU, XLA calls the C library for each element of
    `jnp.arctan2`, which took longer than all the rest of the optimizer.
    """
    height = jnp.abs(y)
    longest = jnp.maximum(jnp.maximum(height, x), np.finfo(np.float32).tiny)
    ratio = jnp.minimum(height, x) / longest
    angle = ratio + ratio**3 * jnp.polyval(np.array(_ARCTAN[::-1], np.float32), ratio**2)
    return jnp.copysign(jnp.where(height > x, np.float32(np.pi / 2) - angle, angle), y)


def scale_by_adam_atan2(
    b1: float = 0.9, b2: float = 0.95, form: Form = "upstream"
) -> optax.GradientTransformation:
    """Rescales updates by the AdamATan2 rule.

    "upstream" is what the package `adam-atan2` 0.0.3 computes, atan2(m, √v / √(1 − b2ᵗ)) /
    (1 − b1ᵗ): the first bias correction outside. "a127" is 1.27 · atan2(m̂, √v̂), with both
    corrections inside.

    References:
        Everett et al., Scaling Exponents Across Parameterizations and Optimizers
        (https://arxiv.org/abs/2407.05872), §4.3.
    """

    def init(params: optax.Params) -> optax.ScaleByAdamState:
        zeros = lambda: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros(), zeros())

    def update(
        updates: optax.Updates, state: optax.ScaleByAdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda g, m: b1 * m + (1 - b1) * g, updates, state.mu)
        nu = jax.tree.map(lambda g, v: b2 * v + (1 - b2) * g * g, updates, state.nu)
        first = 1 - b1 ** count.astype(jnp.float32)
        second = jnp.sqrt(1 - b2 ** count.astype(jnp.float32))

        def direction(m: jax.Array, v: jax.Array) -> jax.Array:
            if form == "upstream":
                return arctan2(m, jnp.sqrt(v) / second) / first
            return 1.27 * arctan2(m / first, jnp.sqrt(v) / second)

        return jax.tree.map(direction, mu, nu), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def adam_atan2(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.95,
    weight_decay: float = 0.0,
    form: Form = "upstream",
) -> optax.GradientTransformation:
    """AdamATan2 with decoupled weight decay on every parameter: p ← p(1 − lr·wd) − lr·update."""
    return optax.chain(
        scale_by_adam_atan2(b1, b2, form),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )

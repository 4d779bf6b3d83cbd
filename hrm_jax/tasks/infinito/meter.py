"""Φ as it is reported: measured on held-out states under projections of its own, with controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from hrm_jax.layers import integration
from hrm_jax.tasks.infinito.config import MeterConfig

Sums = Mapping[str, tuple[Any, Any, Any]]
"""For the states and each control: how many pairs of moments, their sum [P, 2N], and the sum of
their products [P, 2N, 2N]."""

_RESCALED = 10.0


def sums(config: MeterConfig, states: Float[Array, "B T D"], key: PRNGKeyArray) -> Sums:
    """What the meter needs to know of a segment's states; those of more segments are added up.

    Controls: the same states in another order ("time_shuffled"); each dimension shifted in time by
    itself, so that only its own course is left ("permuted"); and all of them ten times as large.
    """
    drawn = integration.projections(
        config.seed, config.projections, states.shape[-1], config.dimensions
    )
    series = jnp.einsum("btd,pdn->pbtn", states.astype(jnp.float32), drawn)
    length, size = series.shape[2:]
    order_key, shift_key = jax.random.split(key)
    shifts = jax.random.randint(shift_key, (size,), 1, length)
    moved = (jnp.arange(length)[:, None] + shifts) % length
    return {
        "": _pairs(series),
        "time_shuffled": _pairs(series[:, :, jax.random.permutation(order_key, length)]),
        "permuted": _pairs(jnp.take_along_axis(series, moved[None, None], axis=2)),
        "rescaled": _pairs(_RESCALED * series),
    }


def _pairs(series: Float[Array, "P B T N"]) -> tuple[Array, Array, Array]:
    pairs = jnp.concatenate([series[:, :, :-1], series[:, :, 1:]], axis=-1)
    pairs = pairs.reshape(len(series), -1, pairs.shape[-1])
    products = jnp.einsum("pmi,pmj->pij", pairs, pairs, precision="highest")
    return jnp.float32(pairs.shape[1]), pairs.sum(axis=1), products


def figures(config: MeterConfig, found: Sums) -> dict[str, float]:
    """`eval/phi_meter`, Φ_G in nats, the mean over projections; the same of each control, and of
    Gaussian noise with the same covariances and as many pairs ("gaussian"), of which it should not
    differ: more than second moments the meter does not see. And `eval/o_information`, nats."""
    parts = integration.halves(config.dimensions)
    told, joints = {}, []
    for name, moments in found.items():
        joints = _joints(config, moments)
        value = float(np.mean([integration.geometric(x, parts) for x in joints]))
        told[f"eval/phi_meter{name and '_' + name}"] = value
        if not name:
            size = config.dimensions
            own = [integration.o_information(x[:size, :size]) for x in joints]
            told["eval/o_information"] = float(np.mean(own))
            drawn = [_gaussian(config, x, int(moments[0]), i) for i, x in enumerate(joints)]
            told["eval/phi_meter_gaussian"] = float(
                np.mean([integration.geometric(x, parts) for x in drawn])
            )
    return told


def _joints(config: MeterConfig, moments: Any) -> list[np.ndarray]:
    count, total, products = (np.asarray(x, np.float64) for x in moments)
    mean = total / count
    covariance = products / count - mean[:, :, None] * mean[:, None, :]
    return list(integration.shrunk(covariance, config.shrinkage))


def _gaussian(config: MeterConfig, joint: np.ndarray, count: int, number: int) -> np.ndarray:
    random = np.random.default_rng([config.seed, number])
    drawn = random.multivariate_normal(np.zeros(len(joint)), joint, size=count, method="cholesky")
    return np.cov(drawn.T, bias=True)

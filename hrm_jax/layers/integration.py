"""Integrated information of a Gaussian process: what of it is in none of its parts.

A process is described by the covariance of its n variables at one moment and at the next, the
`joint` covariance [2n, 2n], past first. A partition divides the variables into parts. All measures
are in nats, and none changes where a part's variables are scaled or mixed among themselves.

`whole_minus_sum`, `revised`, `stochastic_interaction` and `o_information` are closed forms, and
differentiable where the covariance is one of JAX; `geometric` is found by iteration, in float64.

References:
    Mediano, Seth and Barrett, Measuring Integrated Information (Entropy 2019, 21, 17,
    https://doi.org/10.3390/e21010017); Barrett and Seth, Practical Measures of Integrated
    Information for Time-Series Data (PLoS Comput Biol 2011, 7, e1001052); Oizumi, Tsuchiya and
    Amari, Unified framework for information integration based on information geometry (PNAS 2016,
    113, 14817); Rosas, Mediano, Gastpar and Jensen, Quantifying high-order interdependencies via
    multivariate extensions of the mutual information (Phys Rev E 2019, 100, 032305).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float

Partition = Sequence[Sequence[int]]
"""The variables of each part; each is in one."""

_STEPS = 10_000  # of the iteration for the geometric measure, at most


def halves(size: int) -> Partition:
    """The first half of the variables, and the second."""
    return tuple(range(size // 2)), tuple(range(size // 2, size))


def joint_covariance(states: Float[Array, "*B T N"], shrinkage: float) -> Float[Array, "2*N 2*N"]:
    """The joint covariance of N variables over time, their mean taken off. All series [T, N] count
    as one process.

    Correlations are multiplied by 1 - `shrinkage`, so that the covariance of few pairs can be
    inverted, and scaled variables remain scaled.
    """
    pairs = jnp.concatenate([states[..., :-1, :], states[..., 1:, :]], axis=-1)
    pairs = pairs.reshape(-1, pairs.shape[-1])
    pairs = pairs - pairs.mean(axis=0)
    return shrunk(pairs.T @ pairs / len(pairs), shrinkage)


def shrunk(covariance: Any, shrinkage: float) -> Any:
    """The covariance with its correlations multiplied by 1 - `shrinkage`; [..., N, N]."""
    xp = covariance.__array_namespace__()
    own = xp.eye(covariance.shape[-1], dtype=bool)
    least = xp.finfo(covariance.dtype).tiny ** 0.5  # of a variable that never changes
    return xp.where(own, covariance + least, (1 - shrinkage) * covariance)


def mutual_information(covariance: Any, one: Sequence[int], other: Sequence[int]) -> Any:
    """Between two groups of variables; covariance [..., N, N]."""
    both = [*one, *other]
    return 0.5 * (
        _log_det(covariance, one) + _log_det(covariance, other) - _log_det(covariance, both)
    )


def whole_minus_sum(joint: Any, parts: Partition) -> Any:
    """What the past says of the future, less what each part's says of its own: Φ_WMS. Negative
    where parts know the same."""
    size = joint.shape[-1] // 2
    whole = mutual_information(joint, *_past_and_future(range(size), size))
    return whole - sum(mutual_information(joint, *_past_and_future(x, size)) for x in parts)


def revised(joint: Any, parts: Partition) -> Any:
    """Φ_R: Φ_WMS, and added again what every part but one takes off once too often: what all know,
    the least that a part's past says of a part's future (Mediano et al., for two parts)."""
    xp, size = joint.__array_namespace__(), joint.shape[-1] // 2
    known = [
        mutual_information(joint, list(x), [size + i for i in y])
        for x, y in itertools.product(parts, parts)
    ]
    redundant = xp.min(xp.stack(known), axis=0)
    return whole_minus_sum(joint, parts) + (len(parts) - 1) * redundant


def stochastic_interaction(joint: Any, parts: Partition) -> Any:
    """SI: how much less is known of the future where each part is predicted from its own past alone
    (Barrett and Seth). Noise that parts share counts too."""
    size = joint.shape[-1] // 2

    def unknown(variables: Sequence[int]) -> Any:
        past, future = _past_and_future(variables, size)
        return 0.5 * (_log_det(joint, [*past, *future]) - _log_det(joint, past))

    return sum(unknown(x) for x in parts) - unknown(range(size))


def geometric(joint: Any, parts: Partition) -> float:
    """Φ_G: the divergence of the process from the nearest one whose parts do not act on each other,
    though their noise may be correlated (Oizumi et al.).

    0 exactly where no part acts on another, never negative. The nearest process is found by a
    sequence of weighted least squares, each of which lowers the bound on log det that its weights
    give; after 10,000 of them what is returned is such a bound. `ValueError` for a
    covariance that is none.
    """
    joint = np.asarray(joint, np.float64)
    size = len(joint) // 2
    past, cross, future = joint[:size, :size], joint[size:, :size], joint[size:, size:]
    try:
        np.linalg.cholesky(joint)
    except np.linalg.LinAlgError as error:
        raise ValueError("joint: not positive definite, expected a covariance") from error
    full = np.linalg.solve(past, cross.T).T  # what acts on what
    noise = future - full @ cross.T
    inside = np.zeros((size, size), bool)
    for part in parts:
        inside[np.ix_(part, part)] = True
    rows, columns = np.nonzero(inside)
    weights = np.linalg.inv(noise)
    before = np.inf
    for _ in range(_STEPS):
        # The best action A' within parts: [weights (A - A') past] is 0 there.
        normal = weights[np.ix_(rows, rows)] * past[np.ix_(columns, columns)]
        cut = np.zeros_like(full)
        cut[inside] = np.linalg.solve(normal, (weights @ full @ past)[inside])
        residual = noise + (full - cut) @ past @ (full - cut).T
        found = 0.5 * float(np.linalg.slogdet(residual)[1] - np.linalg.slogdet(noise)[1])
        if before - found < 1e-12:
            break
        before, weights = found, np.linalg.inv(residual)
    return max(found, 0.0)


def o_information(covariance: Any) -> Any:
    """Ω of N variables at one moment, [..., N, N]: positive where they repeat one another, negative
    where only several together tell of others (Rosas et al.)."""
    size = covariance.shape[-1]
    everything = range(size)
    total = (size - 2) * _entropy(covariance, everything)
    for i in everything:
        others = [j for j in everything if j != i]
        total = total + _entropy(covariance, [i]) - _entropy(covariance, others)
    return total


def _past_and_future(variables: Sequence[int], size: int) -> tuple[list[int], list[int]]:
    return list(variables), [size + i for i in variables]


def _log_det(covariance: Any, variables: Sequence[int]) -> Any:
    xp, picked = covariance.__array_namespace__(), np.array(variables)
    part = covariance[..., picked[:, None], picked[None, :]]
    diagonal = xp.linalg.diagonal(xp.linalg.cholesky(part))
    return 2 * xp.sum(xp.log(diagonal), axis=-1)


def _entropy(covariance: Any, variables: Sequence[int]) -> Any:
    constant = len(variables) * np.log(2 * np.pi * np.e)
    return 0.5 * (constant + _log_det(covariance, variables))


def squashed(phi: Any) -> Any:
    """Φ on a scale from 0 to 1, 1 - exp(-Φ), so that it can be compared with a threshold: what of
    the joint density is lost by taking the parts apart. A negative Φ is 0."""
    xp = phi.__array_namespace__()
    return 1 - xp.exp(-xp.maximum(phi, 0))


def projections(seed: int, number: int, size: int, dimensions: int) -> npt.NDArray[np.float32]:
    """So many fixed maps from `size` channels to few, with orthonormal columns, float32 [number,
    size, dimensions]. Those of different seeds have nothing to do with one another."""
    drawn = np.random.default_rng([seed, size]).standard_normal((number, size, dimensions))
    return np.linalg.qr(drawn)[0].astype(np.float32)

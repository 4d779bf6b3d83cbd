"""Proximal policy optimisation as pure functions (Schulman et al. 2017, arXiv:1707.06347)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from hrm_jax.rl.distributions import Distribution


def advantages(
    rewards: Float[Array, "T B"],
    values: Float[Array, "T B"],
    next_values: Float[Array, "T B"],
    terminated: Bool[Array, "T B"],
    truncated: Bool[Array, "T B"],
    gamma: float,
    lam: float,
) -> Float[Array, "T B"]:
    """Generalised advantage estimates (Schulman et al. 2016, arXiv:1506.02438, equation 16).

    `next_values` are of the observations that the steps led to: at the end of an episode of its
    last one. After a termination nothing is to come; a truncation only ends what is summed.
    """
    deltas = rewards + gamma * jnp.where(terminated, 0.0, next_values) - values
    decay = gamma * lam * ~(terminated | truncated)

    def back(later: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, decay = now
        later = delta + decay * later
        return later, later

    _, found = jax.lax.scan(
        back, jnp.zeros_like(deltas[0]), (deltas, decay), reverse=True, unroll=8
    )
    return found


class Sample(struct.PyTreeNode):
    """What a minibatch of N steps is learnt from: observations as networks are shown them, raw
    actions, and their log-probabilities and values when they were taken."""

    observation: Float[Array, "N ..."]
    action: Array
    log_prob: Float[Array, " N"]
    value: Float[Array, " N"]
    advantage: Float[Array, " N"]
    target: Float[Array, " N"]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised: clipped surrogate, squared error of values, and entropy.

    Attributes:
        value_weight, entropy_weight: Of these two.
        value_clip: How far a value may move from that of the rollout; 0 for any.
        normalize_advantages: Whether they have mean 0 and standard deviation 1 in each minibatch.
    """

    value_weight: float = 0.5
    entropy_weight: float = 0.0
    value_clip: float = 0.0
    normalize_advantages: bool = True


def loss(
    policy: Distribution,
    objective: Objective,
    outputs: Float[Array, "N A"],
    values: Float[Array, " N"],
    sample: Sample,
    clip: Array | float,
) -> tuple[Float[Array, ""], dict[str, Any]]:
    """The loss of a minibatch, as Stable-Baselines3 has it, and its parts as scalars."""
    advantage = sample.advantage
    if objective.normalize_advantages and advantage.size > 1:
        advantage = (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-8)
    log_ratio = policy.log_prob(outputs, sample.action) - sample.log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    if objective.value_clip:
        change = jnp.clip(values - sample.value, -objective.value_clip, objective.value_clip)
        values = sample.value + change
    value_loss = jnp.square(values - sample.target).mean()
    entropy = policy.entropy(outputs).mean()
    total = policy_loss + objective.value_weight * value_loss - objective.entropy_weight * entropy
    parts = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "kl": (ratio - 1 - log_ratio).mean(),  # Schulman's estimate k3
        "clip_fraction": (jnp.abs(ratio - 1) > clip).mean(),
    }
    return total, parts

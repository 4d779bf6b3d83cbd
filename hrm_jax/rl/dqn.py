"""Deep Q-learning as pure functions (Mnih et al. 2015, https://doi.org/10.1038/nature14236)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int


class Step(struct.PyTreeNode):
    """What environments did, [T, B, …]: what they showed, the action, and what followed.

    Attributes:
        following: What an action led to: where an episode ends, its last observation.
        ended: Whether it ended, by a termination or a truncation.
    """

    observation: Array
    action: Int[Array, "T B"]
    reward: Float[Array, "T B"]
    following: Array
    terminated: Bool[Array, "T B"]
    ended: Bool[Array, "T B"]


class Transition(struct.PyTreeNode):
    """What is stored and learnt from: the return of an action is `reward` plus `discount` times the
    value of `following`."""

    observation: Array
    action: Int[Array, ...]
    reward: Float[Array, ...]
    discount: Float[Array, ...]
    following: Array


def n_step(steps: Step, n: int, gamma: float) -> Transition:
    """Transitions [T - n + 1, B] over n steps, of all steps that n - 1 others follow (Sutton 1988;
    Hessel et al. 2018, arXiv:1710.02298, equation 1).

    One ends earlier where its episode does. What follows a termination is worth nothing (discount
    0); a truncation is bootstrapped from the episode's last observation like any other step.
    """
    number = len(steps.reward) - n + 1

    def later(k: int) -> Step:
        return jax.tree.map(lambda x: x[k : k + number], steps)

    first = later(0)
    reward, following, going = first.reward, first.following, ~first.ended
    discount = gamma * ~first.terminated
    for k in range(1, n):
        step = later(k)
        reward = reward + jnp.where(going, gamma**k * step.reward, 0)
        discount = jnp.where(going, gamma ** (k + 1) * ~step.terminated, discount)
        goes_on = going.reshape(*going.shape, *(1,) * (following.ndim - 2))
        following = jnp.where(goes_on, step.following, following)
        going &= ~step.ended
    return Transition(first.observation, first.action, reward, discount, following)


def targets(
    transition: Transition, values: Float[Array, "N A"], judged: Float[Array, "N A"] | None = None
) -> Float[Array, " N"]:
    """What the values of actions are moved to.

    `values` are those of what follows, by the target network. Given `judged`, the same by the
    network that learns, the action is the best by these (double Q-learning, van Hasselt et al.
    2016, arXiv:1509.06461, equation 4).
    """
    best = jnp.argmax(values if judged is None else judged, -1)
    return transition.reward + transition.discount * of_actions(values, best)


def of_actions(values: Float[Array, "N A"], actions: Int[Array, " N"]) -> Float[Array, " N"]:
    """The values of these actions."""
    return jnp.take_along_axis(values, actions[:, None], -1)[:, 0]


def importance(
    probabilities: Float[Array, " N"], size: Int[Array, ""], beta: Array | float
) -> Float[Array, " N"]:
    """Weights of transitions that were drawn with such probabilities from so many; the largest in
    the batch is 1 (Schaul et al. 2016, arXiv:1511.05952, section 3.4)."""
    weights = (size * probabilities) ** -beta
    return weights / weights.max()


def loss(
    values: Float[Array, "N A"],
    actions: Int[Array, " N"],
    targets: Float[Array, " N"],
    weights: Float[Array, " N"],
    huber: float,
) -> tuple[Float[Array, ""], dict[str, Any]]:
    """The weighted mean of half the squared error, linear beyond `huber` unless that is 0; and its
    parts [N]: the errors and the values of the actions."""
    chosen = of_actions(values, actions)
    error = chosen - targets
    each = optax.huber_loss(chosen, targets, delta=huber) if huber else optax.l2_loss(error)
    return jnp.mean(weights * each), {"error": error, "q": chosen}


def linear(first: float, last: float, fraction: Array | float) -> Array:
    """From `first` to `last` as the fraction of the way goes from 0 to 1, and no farther."""
    return first + (last - first) * jnp.clip(fraction, 0, 1)

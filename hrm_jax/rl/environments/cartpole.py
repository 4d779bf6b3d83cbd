"""CartPole-v1: keep a pole upright on a cart."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float32, Int, PRNGKeyArray

from hrm_jax.rl.environments.base import Environment, Timestep
from hrm_jax.rl.spaces import Box, Discrete

GRAVITY = 9.8
CART, POLE = 1.0, 0.1  # masses
HALF_LENGTH = 0.5  # of the pole
FORCE = 10.0
SECONDS = 0.02  # between steps
FARTHEST = 2.4
STEEPEST = 12 * 2 * np.pi / 360


class State(struct.PyTreeNode):
    """Position of the cart, its velocity, angle of the pole from upright, its velocity; in meters,
    radians and seconds. And the steps of the episode that are done."""

    physics: Float32[Array, " 4"]
    time: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class CartPole(Environment):
    """As gymnasium's `CartPole-v1`, in float32 (Barto, Sutton and Anderson 1983; equations of
    Florian, https://coneural.org/florian/papers/05_cart_pole.pdf, without friction).

    Actions push to the left or to the right; each step is worth 1.
    """

    max_steps: int = 500

    name = "CartPole-v1"

    @property
    def observation_space(self) -> Box:
        high = np.array([2 * FARTHEST, np.inf, 2 * STEEPEST, np.inf], np.float32)
        return Box(-high, high)

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reset(self, key: PRNGKeyArray) -> tuple[State, Array]:
        physics = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return State(physics, jnp.int32(0)), physics

    def step(self, state: State, action: Array, key: PRNGKeyArray) -> tuple[State, Timestep]:
        _, velocity, angle, spin = state.physics
        force = jnp.where(action == 1, FORCE, -FORCE)
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
        mass, moment = CART + POLE, POLE * HALF_LENGTH
        push = (force + moment * spin**2 * sine) / mass
        spin_rate = (GRAVITY * sine - cosine * push) / (
            HALF_LENGTH * (4 / 3 - POLE * cosine**2 / mass)
        )
        acceleration = push - moment * spin_rate * cosine / mass
        rates = jnp.stack([velocity, acceleration, spin, spin_rate])
        physics = state.physics + SECONDS * rates
        fallen = (jnp.abs(physics[0]) > FARTHEST) | (jnp.abs(physics[2]) > STEEPEST)
        time = state.time + 1
        timestep = Timestep(physics, jnp.float32(1), fallen, time >= self.max_steps)
        return State(physics, time), timestep

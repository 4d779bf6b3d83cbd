"""CartPole-v1: keep a pole upright on a cart."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float32, Int, PRNGKeyArray

from hrm_jax.rl.environments import double, drawing
from hrm_jax.rl.environments.base import Action, Timestep
from hrm_jax.rl.spaces import Box, Discrete

GRAVITY = 9.8
CART, POLE = 1.0, 0.1  # masses
HALF_LENGTH = 0.5  # of the pole
FORCE = 10.0
SECONDS = 0.02  # between steps
FARTHEST = 2.4
STEEPEST = 12 * 2 * np.pi / 360


class State(struct.PyTreeNode):
    """Position of the cart, its velocity, angle of the pole from upright, its velocity, in meters,
    radians and seconds, as a pair of float32. And the steps of the episode that are done."""

    physics: Float32[Array, "2 4"]
    time: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class CartPole(drawing.Drawn):
    """As gymnasium's `CartPole-v1` (Barto, Sutton and Anderson 1983; equations of Florian,
    https://coneural.org/florian/papers/05_cart_pole.pdf, without friction).

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
        return State(double.pair(physics), jnp.int32(0)), physics

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        state = State(double.in_float64(_move, state.physics, action), state.time + 1)
        seen = state.physics[0]
        fallen = (jnp.abs(seen[0]) > FARTHEST) | (jnp.abs(seen[2]) > STEEPEST)
        return state, Timestep(seen, jnp.float32(1), fallen, state.time >= self.max_steps)

    def paint(self, state: State) -> drawing.Canvas:
        canvas = drawing.Canvas((-FARTHEST, -0.4), (FARTHEST, 1.5), 300, 119)
        canvas.line([(-FARTHEST, 0), (FARTHEST, 0)], drawing.FAINT, 0.05)
        position, angle = float(state.physics[0, 0]), float(state.physics[0, 2])
        canvas.rectangle((position - 0.3, -0.15), (position + 0.3, 0.15), drawing.INK)
        axle = np.array([position, 0.12])
        tip = axle + 2 * HALF_LENGTH * np.array([np.sin(angle), np.cos(angle)])
        canvas.line([axle, tip], drawing.YELLOW, 0.1)
        canvas.circle(axle, 0.045, drawing.BLUE)
        return canvas

    def caption(self, state: State) -> str:
        position, _, angle, _ = map(float, state.physics[0])
        return f"step {int(state.time):3}  cart {position:+.2f} m  pole {np.degrees(angle):+5.1f}°"


def _move(physics: Array, action: Action) -> Array:
    """Where the cart and the pole are a moment later, by Euler's method."""
    _, velocity, angle, spin = physics
    force = jnp.where(action == 1, FORCE, -FORCE)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    mass, moment = CART + POLE, POLE * HALF_LENGTH
    push = (force + moment * spin**2 * sine) / mass
    spin_rate = (GRAVITY * sine - cosine * push) / (HALF_LENGTH * (4 / 3 - POLE * cosine**2 / mass))
    acceleration = push - moment * spin_rate * cosine / mass
    return physics + SECONDS * jnp.stack([velocity, acceleration, spin, spin_rate])

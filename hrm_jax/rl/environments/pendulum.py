"""Pendulum-v1: swing a pendulum up and hold it there."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float32, Int, PRNGKeyArray

from hrm_jax.rl.environments import double, drawing
from hrm_jax.rl.environments.base import Action, Timestep
from hrm_jax.rl.spaces import Box

FASTEST, STRONGEST = 8.0, 2.0
SECONDS = 0.05  # between steps
GRAVITY, MASS, LENGTH = 10.0, 1.0, 1.0


class State(struct.PyTreeNode):
    """Angle from upright, in [-π, π], and its velocity per second, as a pair of float32. And the
    steps of the episode that are done."""

    physics: Float32[Array, "2 2"]
    time: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Pendulum(drawing.Drawn):
    """As gymnasium's `Pendulum-v1`.

    The action is a torque [1]; a step costs angle² + spin² / 10 + torque² / 1000. Episodes do not
    terminate.
    """

    max_steps: int = 200

    name = "Pendulum-v1"

    @property
    def observation_space(self) -> Box:
        high = np.array([1, 1, FASTEST])
        return Box(-high, high)

    @property
    def action_space(self) -> Box:
        return Box(-STRONGEST, STRONGEST, (1,))

    def reset(self, key: PRNGKeyArray) -> tuple[State, Array]:
        high = np.array([np.pi, 1], np.float32)
        physics = jax.random.uniform(key, (2,), minval=-high, maxval=high)
        return State(double.pair(physics), jnp.int32(0)), _observe(physics)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        angle, spin = state.physics[0]
        torque = jnp.clip(action[0], -STRONGEST, STRONGEST)
        cost = angle**2 + 0.1 * spin**2 + 0.001 * torque**2
        state = State(double.in_float64(_move, state.physics, torque), state.time + 1)
        seen = _observe(state.physics[0])
        truncated = state.time >= self.max_steps
        return state, Timestep(seen, -cost, jnp.bool_(False), truncated)

    def paint(self, state: State) -> drawing.Canvas:
        canvas = drawing.Canvas((-1.3, -1.3), (1.3, 1.3), 200, 200)
        angle = float(state.physics[0, 0])
        canvas.line([(0, 0), (-np.sin(angle), np.cos(angle))], drawing.RED, 0.2)
        canvas.circle((0, 0), 0.05, drawing.INK)
        return canvas

    def caption(self, state: State) -> str:
        angle, spin = map(float, state.physics[0])
        return f"step {int(state.time):3}  angle {np.degrees(angle):+6.1f}°  spin {spin:+5.2f}/s"


def _observe(physics: Array) -> Array:
    angle, spin = physics
    return jnp.stack([jnp.cos(angle), jnp.sin(angle), spin])


def _move(physics: Array, torque: Array) -> Array:
    """Where the pendulum is a moment later, by Euler's method."""
    angle, spin = physics
    force = 3 * GRAVITY / (2 * LENGTH) * jnp.sin(angle) + 3 / (MASS * LENGTH**2) * torque
    spin = jnp.clip(spin + SECONDS * force, -FASTEST, FASTEST)
    angle = angle + SECONDS * spin
    return jnp.stack([angle - 2 * np.pi * jnp.round(angle / (2 * np.pi)), spin])

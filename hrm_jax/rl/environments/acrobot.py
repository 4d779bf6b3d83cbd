"""Acrobot-v1: swing two links up that are driven at their joint alone."""

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

SECONDS = 0.2  # between steps
GRAVITY = 9.8
CENTER = 0.5  # of a link's mass; its mass, length and moment of inertia are 1
FASTEST = np.array([4 * np.pi, 9 * np.pi])


class State(struct.PyTreeNode):
    """Angle of the first link from hanging down, that of the second from the first, both in
    [-π, π], and their velocities per second, as a pair of float32. And the steps of the episode
    that are done."""

    physics: Float32[Array, "2 4"]
    time: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Acrobot(drawing.Drawn):
    """As gymnasium's `Acrobot-v1` (Sutton 1996; equations of Sutton and Barto's book).

    Actions are torques of -1, 0 and 1; each step costs 1, but for the one that brings the tip above
    1, where the episode terminates.
    """

    max_steps: int = 500

    name = "Acrobot-v1"

    @property
    def observation_space(self) -> Box:
        high = np.array([1, 1, 1, 1, *FASTEST])
        return Box(-high, high)

    @property
    def action_space(self) -> Discrete:
        return Discrete(3)

    def reset(self, key: PRNGKeyArray) -> tuple[State, Array]:
        physics = jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)
        return State(double.pair(physics), jnp.int32(0)), _observe(physics)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        state = State(double.in_float64(_move, state.physics, action - 1), state.time + 1)
        arrived = _height(state.physics[0]) > 1
        timestep = Timestep(
            _observe(state.physics[0]),
            jnp.where(arrived, jnp.float32(0), -1),
            arrived,
            state.time >= self.max_steps,
        )
        return state, timestep

    def paint(self, state: State) -> drawing.Canvas:
        canvas = drawing.Canvas((-2.3, -2.3), (2.3, 2.3), 200, 200)
        first, second = np.cumsum(np.asarray(state.physics[0, :2], np.float64))
        joint = np.array([np.sin(first), -np.cos(first)])
        tip = joint + np.array([np.sin(second), -np.cos(second)])
        canvas.line([(-2.3, 1), (2.3, 1)], drawing.FAINT, 0.08)
        canvas.line([(0, 0), joint], drawing.BLUE, 0.2)
        canvas.line([joint, tip], drawing.GREEN, 0.2)
        for place in ((0, 0), joint):
            canvas.circle(place, 0.07, drawing.INK)
        return canvas

    def caption(self, state: State) -> str:
        height = float(_height(state.physics[0]))
        first, second = map(float, state.physics[0, 2:])
        return (
            f"step {int(state.time):3}  height {height:+.2f}  spins {first:+5.2f}, {second:+5.2f}/s"
        )


def _observe(physics: Array) -> Array:
    sides = jnp.stack([jnp.cos(physics[:2]), jnp.sin(physics[:2])], axis=1).ravel()
    return jnp.concatenate([sides, physics[2:]])


def _height(physics: Array) -> Array:
    """Of the tip, over the point that all hangs on."""
    return -jnp.cos(physics[0]) - jnp.cos(physics[0] + physics[1])


def _move(physics: Array, torque: Action) -> Array:
    """Where the links are a moment later, by the Runge-Kutta method of fourth order."""
    a = _rates(physics, torque)
    b = _rates(physics + SECONDS / 2 * a, torque)
    c = _rates(physics + SECONDS / 2 * b, torque)
    d = _rates(physics + SECONDS * c, torque)
    angles, spins = jnp.split(physics + SECONDS / 6 * (a + 2 * b + 2 * c + d), 2)
    angles = angles - 2 * np.pi * jnp.round(angles / (2 * np.pi))
    return jnp.concatenate([angles, jnp.clip(spins, -FASTEST, FASTEST)])


def _rates(physics: Array, torque: Action) -> Array:
    """Time derivatives of the angles and of their velocities, [4]."""
    first, second, first_spin, second_spin = physics
    sine, cosine = jnp.sin(second), jnp.cos(second)
    inertia = CENTER**2 + 1 + CENTER**2 + 2 * CENTER * cosine + 2
    coupling = CENTER**2 + CENTER * cosine + 1
    second_weight = CENTER * GRAVITY * jnp.sin(first + second)
    first_weight = (
        -CENTER * second_spin**2 * sine
        - 2 * CENTER * second_spin * first_spin * sine
        + (CENTER + 1) * GRAVITY * jnp.sin(first)
        + second_weight
    )
    second_rate = (
        torque + coupling / inertia * first_weight - CENTER * first_spin**2 * sine - second_weight
    ) / (CENTER**2 + 1 - coupling**2 / inertia)
    first_rate = -(coupling * second_rate + first_weight) / inertia
    return jnp.stack([first_spin, second_spin, first_rate, second_rate])

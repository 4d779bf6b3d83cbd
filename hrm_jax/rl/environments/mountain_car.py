"""MountainCar-v0 and MountainCarContinuous-v0: swing a car that is too weak out of a valley."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float32, Int, PRNGKeyArray

from hrm_jax.rl.environments import drawing
from hrm_jax.rl.environments.base import Action, Timestep
from hrm_jax.rl.spaces import Box, Discrete

LEFT, RIGHT, FASTEST = -1.2, 0.6, 0.07
GRAVITY = 0.0025


class State(struct.PyTreeNode):
    """Position, and velocity per step. And the steps of the episode that are done."""

    position: Float32[Array, ""]
    velocity: Float32[Array, ""]
    time: Int[Array, ""]


class _Valley(drawing.Drawn):
    goal: float
    max_steps: int

    @property
    def observation_space(self) -> Box:
        return Box([LEFT, -FASTEST], [RIGHT, FASTEST])

    def reset(self, key: PRNGKeyArray) -> tuple[State, Array]:
        position = jax.random.uniform(key, minval=-0.6, maxval=-0.4)
        state = State(position, jnp.float32(0), jnp.int32(0))
        return state, _observe(state)

    def move(self, state: State, force: Action) -> State:
        velocity = state.velocity + force - GRAVITY * jnp.cos(3 * state.position)
        velocity = jnp.clip(velocity, -FASTEST, FASTEST)
        position = jnp.clip(state.position + velocity, LEFT, RIGHT)
        stopped = (position == np.float32(LEFT)) & (velocity < 0)
        return State(position, jnp.where(stopped, 0, velocity), state.time + 1)

    def arrived(self, state: State) -> Array:
        return (state.position >= self.goal) & (state.velocity >= 0)

    def paint(self, state: State) -> drawing.Canvas:
        canvas = drawing.Canvas((LEFT, -0.1), (RIGHT, 1.2), 300, 217)
        xs = np.linspace(LEFT, RIGHT, 100)
        hills = [*zip(xs, _height(xs), strict=True)]
        canvas.polygon([(LEFT, -1), *hills, (RIGHT, -1)], drawing.GROUND)
        canvas.line(hills, drawing.FAINT, 0.012)
        flag = np.array([self.goal, _height(self.goal)])
        cloth = flag + np.array([(0, 0.16), (0.09, 0.13), (0, 0.10)])
        canvas.line([flag, cloth[0]], drawing.INK, 0.01)
        canvas.polygon(cloth, drawing.RED)
        x = float(state.position)
        slope = np.arctan(1.35 * np.cos(3 * x))
        along, up = (
            np.array([np.cos(slope), np.sin(slope)]),
            np.array([-np.sin(slope), np.cos(slope)]),
        )
        place = np.array([x, _height(x)])
        body = [
            (-0.08, 0.03),
            (-0.08, 0.08),
            (-0.04, 0.12),
            (0.04, 0.12),
            (0.08, 0.08),
            (0.08, 0.03),
        ]
        canvas.polygon([place + a * along + b * up for a, b in body], drawing.BLUE)
        for wheel in (-0.045, 0.045):
            canvas.circle(place + wheel * along + 0.03 * up, 0.025, drawing.INK)
        return canvas

    def caption(self, state: State) -> str:
        position, velocity = float(state.position), float(state.velocity)
        return f"step {int(state.time):3}  position {position:+.3f}  velocity {velocity:+.4f}"


@dataclasses.dataclass(frozen=True)
class MountainCar(_Valley):
    """As gymnasium's `MountainCar-v0`, in float32 (Moore 1990).

    Actions push to the left, not at all, or to the right; each step costs 1. At the goal, position
    0.5, the episode terminates.
    """

    max_steps: int = 200

    name = "MountainCar-v0"
    goal = 0.5

    @property
    def action_space(self) -> Discrete:
        return Discrete(3)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        state = self.move(state, 0.001 * (action - 1))
        truncated = state.time >= self.max_steps
        return state, Timestep(_observe(state), jnp.float32(-1), self.arrived(state), truncated)


@dataclasses.dataclass(frozen=True)
class MountainCarContinuous(_Valley):
    """As gymnasium's `MountainCarContinuous-v0`, in float32.

    The action [1] pushes with a force in [-1, 1], at a cost of its square / 10. At the goal,
    position 0.45, is a reward of 100, and the episode terminates.
    """

    max_steps: int = 999

    name = "MountainCarContinuous-v0"
    goal = 0.45

    @property
    def action_space(self) -> Box:
        return Box(-1, 1, (1,))

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        state = self.move(state, 0.0015 * jnp.clip(action[0], -1, 1))
        arrived = self.arrived(state)
        reward = 100 * arrived.astype(jnp.float32) - 0.1 * action[0] ** 2
        return state, Timestep(_observe(state), reward, arrived, state.time >= self.max_steps)


def _observe(state: State) -> Float32[Array, " 2"]:
    return jnp.stack([state.position, state.velocity])


def _height(x):  # type: ignore[no-untyped-def]
    return np.sin(3 * x) * 0.45 + 0.55

"""Catch: move a paddle under a falling ball."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float32, Int, PRNGKeyArray

from hrm_jax.fields import require_fields
from hrm_jax.rl.environments import drawing
from hrm_jax.rl.environments.base import Action, Environment, Picture, Timestep
from hrm_jax.rl.spaces import Box, Discrete


class State(struct.PyTreeNode):
    """Row of the ball, from the top, and the columns of ball and paddle."""

    row: Int[Array, ""]
    ball: Int[Array, ""]
    paddle: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Catch(Environment):
    """A ball falls from a random place in the first row, a row a step; the paddle, in the last row,
    moves left, stays or moves right. There is 1 for the ball caught and -1 for the ball missed, and
    the episode terminates (Mnih et al. 2014, https://arxiv.org/abs/1406.6247; in these sizes in
    bsuite, https://arxiv.org/abs/1908.03568). Who plays well catches each.

    The observation is the board, float32 [rows, columns], 1 where ball or paddle are.
    """

    rows: int = 10
    columns: int = 5

    name = "Catch"

    def __post_init__(self) -> None:
        require_fields(self, self.name, "at least 2", lambda x: x >= 2, "rows", "columns")

    @property
    def observation_space(self) -> Box:
        return Box(0, 1, (self.rows, self.columns))

    @property
    def action_space(self) -> Discrete:
        return Discrete(3)

    def reset(self, key: PRNGKeyArray) -> tuple[State, Array]:
        ball = jax.random.randint(key, (), 0, self.columns)
        state = State(jnp.int32(0), ball, jnp.int32(self.columns // 2))
        return state, self._observe(state)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        paddle = jnp.clip(state.paddle + action - 1, 0, self.columns - 1)
        state = State(state.row + 1, state.ball, paddle)
        landed = state.row == self.rows - 1
        reward = jnp.where(state.ball == paddle, jnp.float32(1), -1) * landed
        return state, Timestep(self._observe(state), reward, landed, jnp.bool_(False))

    def _observe(self, state: State) -> Float32[Array, "R C"]:
        rows, columns = jnp.arange(self.rows)[:, None], jnp.arange(self.columns)
        ball = (rows == state.row) & (columns == state.ball)
        paddle = (rows == self.rows - 1) & (columns == state.paddle)
        return (ball | paddle).astype(jnp.float32)

    def frame(self, state: State) -> Picture:
        colours = np.full((self.rows, self.columns), drawing.GROUND)
        colours[-1, int(state.paddle)] = drawing.BLUE
        colours[int(state.row), int(state.ball)] = drawing.RED
        return drawing.board(colours, 20).picture()

    def text(self, state: State) -> str:
        board = np.full((self.rows, self.columns), "·")
        board[-1, int(state.paddle)] = "▀"
        board[int(state.row), int(state.ball)] = "●"
        return "\n".join(map(" ".join, board))

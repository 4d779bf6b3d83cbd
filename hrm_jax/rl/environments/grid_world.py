"""A grid world whose optimal values are known, by value iteration."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import struct
from jaxtyping import Array, Int, PRNGKeyArray

from hrm_jax.fields import require
from hrm_jax.rl.environments import drawing
from hrm_jax.rl.environments.base import Action, Environment, Picture, Timestep
from hrm_jax.rl.spaces import Box, Discrete

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left

Values = npt.NDArray[np.float64]


class State(struct.PyTreeNode):
    """Number of the cell, row by row. And the steps of the episode that are done."""

    cell: Int[Array, ""]
    time: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class GridWorld(Environment):
    """A walk over a grid to its goal, by default the 4×3 world of Russell and Norvig ("Artificial
    Intelligence", chapter on Markov decision processes).

    Actions are up, right, down, left. A move into a wall, or off the grid, does not move. The
    observation is one-hot, float32 [cells].

    Attributes:
        layout: Rows of the same length: "G" is a goal, worth 1, and "P" a pit, worth -1, in both of
            which an episode terminates; "#" is a wall, "S" is where an episode may begin, which is
            anywhere on "." where there is no "S".
        slip: Probability to move to a side of where one wants to go, half of it for each side.
        step_reward: Reward of each step, that of goal or pit beside it.
        max_steps: Limit of an episode.
    """

    layout: tuple[str, ...] = ("...G", ".#.P", "S...")
    slip: float = 0.2
    step_reward: float = -0.04
    max_steps: int = 100

    name = "GridWorld"

    def __post_init__(self) -> None:
        where = f"{self.name}.layout"
        require(len({len(row) for row in self.layout}) == 1, f"{where}: rows of different lengths")
        found = set("".join(self.layout))
        require(found <= set("GP#S."), f"{where}: expected G, P, #, S and ., got {sorted(found)}")
        require("G" in found and bool(found & set("S.")), f"{where}: no goal, or nowhere to begin")
        require(0 <= self.slip <= 1, f"{self.name}.slip: expected 0 to 1, got {self.slip}")

    @property
    def observation_space(self) -> Box:
        return Box(0, 1, (self._cells.size,))

    @property
    def action_space(self) -> Discrete:
        return Discrete(4)

    @functools.cached_property
    def _cells(self) -> npt.NDArray[Any]:
        return np.array([list(row) for row in self.layout])

    @functools.cached_property
    def _next(self) -> npt.NDArray[np.int32]:
        """Where a move from each cell leads to, [cells, 4]."""
        rows, columns = self._cells.shape
        row, column = np.indices((rows, columns)).reshape(2, -1, 1)
        down, right = np.array(MOVES).T
        after = np.clip(row + down, 0, rows - 1), np.clip(column + right, 0, columns - 1)
        here, there = row * columns + column, after[0] * columns + after[1]
        return np.where(self._cells[after] == "#", here, there).astype(np.int32)

    @functools.cached_property
    def _worth(self) -> npt.NDArray[np.float32]:
        """Of being led to each cell [cells]."""
        cells = self._cells.ravel()
        return (1 * (cells == "G") - (cells == "P")).astype(np.float32)

    def reset(self, key: PRNGKeyArray) -> tuple[State, Array]:
        begin = "S" if "S" in self._cells else "."
        (choices,) = np.nonzero(self._cells.ravel() == begin)
        cell = jnp.asarray(choices, jnp.int32)[jax.random.randint(key, (), 0, len(choices))]
        return State(cell, jnp.int32(0)), self._observe(cell)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Timestep]:
        side = jax.random.uniform(key)
        left, right = side < self.slip / 2, side >= 1 - self.slip / 2
        direction = (action + right - left) % 4
        cell = jnp.asarray(self._next)[state.cell, direction]
        worth = jnp.asarray(self._worth)[cell]
        state = State(cell, state.time + 1)
        timestep = Timestep(
            self._observe(cell),
            worth + np.float32(self.step_reward),
            worth != 0,
            state.time >= self.max_steps,
        )
        return state, timestep

    def _observe(self, cell: Array) -> Array:
        return jax.nn.one_hot(cell, self._cells.size)

    def action_values(self, gamma: float) -> Values:
        """Expected return of each action in each cell, if all that follow are optimal and no limit
        of time cuts the episode off.

        Found by value iteration to the precision of float64. Walls, goals and pits have values of
        0, for nothing follows.

        Args:
            gamma: Discount in [0, 1]. With 1, and no step reward below 0, it need not converge.

        Returns:
            [rows, columns, 4]
        """
        within = ~np.isin(self._cells.ravel(), ["#", "G", "P"])
        slips = np.array([1 - self.slip, self.slip / 2, self.slip / 2])
        directions = (np.arange(4)[:, None] + [0, 1, -1]) % 4
        after = self._next[:, directions]  # [cells, 4, 3]
        values = np.zeros((len(within), 4))
        for _ in range(10_000):
            best = values.max(1)
            gain = self.step_reward + self._worth[after] + gamma * best[after]
            before, values = values, within[:, None] * (gain @ slips)
            if np.abs(values - before).max() < 1e-14:
                break
        else:
            raise ValueError(f"the values of {self.name} do not converge with gamma={gamma}")
        return values.reshape(*self._cells.shape, 4)

    def values(self, gamma: float) -> Values:
        """Of the cells, [rows, columns]: the best of `action_values`."""
        return self.action_values(gamma).max(-1)

    def frame(self, state: State) -> Picture:
        colours = {"#": drawing.INK, "G": drawing.GREEN, "P": drawing.RED}
        canvas = drawing.board(
            [[colours.get(cell, drawing.GROUND) for cell in row] for row in self._cells], 40
        )
        row, column = divmod(int(state.cell), self._cells.shape[1])
        canvas.circle((column + 0.5, len(self._cells) - row - 0.5), 0.28, drawing.BLUE)
        return canvas.picture()

    def text(self, state: State) -> str:
        board = np.where(np.isin(self._cells, [".", "S"]), "·", self._cells)
        board.flat[int(state.cell)] = "●"
        return "\n".join(map(" ".join, board))

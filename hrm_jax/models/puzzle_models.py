"""The networks that think about puzzles, told apart by the type of their configuration."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float, Int, PRNGKeyArray

from hrm_jax.models import recurrent
from hrm_jax.models.hrm import HRM, HRMConfig
from hrm_jax.models.recurrent import RecurrentNetwork, Thought, Variables
from hrm_jax.models.trm import TRM, TRMConfig

PuzzleModelConfig = HRMConfig | TRMConfig


def _network(config: PuzzleModelConfig) -> RecurrentNetwork:
    return TRM(config) if isinstance(config, TRMConfig) else HRM(config)


def init(config: PuzzleModelConfig, key: PRNGKeyArray) -> dict[str, Any]:
    """Draws fresh variables: `params`, `constants` and, with a puzzle embedding, `tables`.

    Raises:
        ConfigError: The config does not say how long puzzles are or how many tokens there are.
    """
    return recurrent.init(_network(config), key)


def think(
    config: PuzzleModelConfig,
    variables: Variables,
    z_H: Float[Array, "B T D"],
    z_L: Float[Array, "B T D"],
    inputs: Int[Array, "B S"],
    puzzle_rows: Float[Array, "B E"] | None,
) -> Thought:
    """One ACT step; see `hrm_jax.models.recurrent.think`."""
    return recurrent.think(_network(config), variables, z_H, z_L, inputs, puzzle_rows)

"""The networks that think about puzzles, told apart by the type of their configuration."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float, Int, PRNGKeyArray

from hrm_jax.models import hrm, trm
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.recurrent import Thought, Variables
from hrm_jax.models.trm import TRMConfig

PuzzleModelConfig = HRMConfig | TRMConfig


def init(config: PuzzleModelConfig, key: PRNGKeyArray) -> dict[str, Any]:
    """Draws fresh variables: `params`, `constants` and, with a puzzle embedding, `tables`.

    Raises:
        ConfigError: The config does not say how long puzzles are or how many tokens there are.
    """
    return trm.init(config, key) if isinstance(config, TRMConfig) else hrm.init(config, key)


def think(
    config: PuzzleModelConfig,
    variables: Variables,
    z_H: Float[Array, "B T D"],
    z_L: Float[Array, "B T D"],
    inputs: Int[Array, "B S"],
    puzzle_rows: Float[Array, "B E"] | None,
) -> Thought:
    """One ACT step; see `hrm.think` and `trm.think`."""
    if isinstance(config, TRMConfig):
        return trm.think(config, variables, z_H, z_L, inputs, puzzle_rows)
    return hrm.think(config, variables, z_H, z_L, inputs, puzzle_rows)

"""What can be learnt: one file per task."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from hrm_jax.configs import ConfigError, from_mapping, to_mapping
from hrm_jax.models.trm import TRMConfig
from hrm_jax.tasks.arc import ArcConfig, ArcTask
from hrm_jax.tasks.base import RunConfig
from hrm_jax.tasks.domino import DominoConfig, DominoTask
from hrm_jax.tasks.maze import MazeConfig, MazeTask
from hrm_jax.tasks.sudoku import SudokuConfig, SudokuTask

_TASKS: dict[str, tuple[type[RunConfig], Any]] = {
    "sudoku": (SudokuConfig, SudokuTask),
    "maze": (MazeConfig, MazeTask),
    "domino": (DominoConfig, DominoTask),
    "arc": (ArcConfig, ArcTask),
}


def parse(config: Mapping[str, Any]) -> RunConfig:
    """Turns a nested mapping into the frozen configuration of the task it names.

    Raises:
        ConfigError: An unknown task or field (the nearest known one is named), or a bad value.
    """
    name = config.get("task")
    if name not in _TASKS:
        raise ConfigError(f"config.task: expected one of {', '.join(_TASKS)}, got {name!r}")
    return from_mapping(_TASKS[name][0], config)


def defaults(task: str) -> dict[str, Any]:
    """Every field of a task's configuration with its default, nested, for a file in `configs/`.

    `model` has the fields of all networks, so that `model.name` alone can be changed.
    """
    values = to_mapping(_TASKS[task][0](task=task))
    return {**values, "model": {**to_mapping(TRMConfig()), **values["model"]}}


def kind(config: RunConfig) -> Any:
    """The class of the task that a configuration is for."""
    return _TASKS[config.task][1]


def build(
    config: RunConfig,
    data_cache: pathlib.Path | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Any:
    """Builds the task of a configuration; see `hrm_jax.tasks.base.Task`.

    Args:
        config: From `parse`.
        data_cache: Folder in which generated data are kept.
        variables: Weights to start from instead of fresh ones.
    """
    return kind(config)(config, data_cache, variables)

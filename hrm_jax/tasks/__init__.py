"""What can be learnt: one file per task."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from hrm_jax.configs import ConfigError, from_mapping
from hrm_jax.tasks.base import RunConfig
from hrm_jax.tasks.sudoku import SudokuConfig, SudokuTask

_TASKS: dict[str, tuple[type[RunConfig], Any]] = {"sudoku": (SudokuConfig, SudokuTask)}


def parse(config: Mapping[str, Any]) -> RunConfig:
    """Turns a nested mapping into the frozen configuration of the task it names.

    Raises:
        ConfigError: An unknown task or field (the nearest known one is named), or a bad value.
    """
    name = config.get("task")
    if name not in _TASKS:
        raise ConfigError(f"config.task: expected one of {', '.join(_TASKS)}, got {name!r}")
    return from_mapping(_TASKS[name][0], config)


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
    return _TASKS[config.task][1](config, data_cache, variables)

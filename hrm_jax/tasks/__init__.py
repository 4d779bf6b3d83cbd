"""What can be learnt: one file per task."""

from __future__ import annotations

import pathlib
import typing
from collections.abc import Mapping
from typing import Any

from hrm_jax.fields import ConfigError, from_mapping, to_mapping
from hrm_jax.puzzles import PUZZLES
from hrm_jax.tasks.base import RunConfig
from hrm_jax.tasks.language.pairs import PairConfig, PairTask
from hrm_jax.tasks.language.text import TextConfig, TextTask
from hrm_jax.tasks.puzzles.task import PuzzleTask, config_of

_TASKS: dict[str, tuple[type[RunConfig], Any]] = {
    **{name: (config_of(puzzle), PuzzleTask) for name, puzzle in PUZZLES.items()},
    "text": (TextConfig, TextTask),
    "pairs": (PairConfig, PairTask),
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
    kind = _TASKS[task][0]
    values = to_mapping(kind(task=task))
    models = typing.get_args(typing.get_type_hints(kind)["model"])
    fields = {k: v for model in models for k, v in to_mapping(model()).items()}
    return {**values, "model": {**fields, **values["model"]}}


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

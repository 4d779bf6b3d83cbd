"""What can be learnt: a folder for each family of tasks."""

from __future__ import annotations

import os
import pathlib
import runpy
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from hrm_jax.fields import ConfigError, choose_preset, from_mapping, to_mapping
from hrm_jax.puzzles import PUZZLES
from hrm_jax.tasks.base import RunConfig
from hrm_jax.tasks.infinito.config import InfinitoConfig
from hrm_jax.tasks.infinito.scheduler import SchedulerConfig, SchedulerTask
from hrm_jax.tasks.infinito.task import InfinitoTask
from hrm_jax.tasks.language.instruct import InstructTask
from hrm_jax.tasks.language.instruct_config import InstructConfig
from hrm_jax.tasks.language.pairs import PairConfig, PairTask
from hrm_jax.tasks.language.tenminatorc import with_json
from hrm_jax.tasks.language.text import TextConfig, TextTask
from hrm_jax.tasks.puzzles.task import PuzzleTask, config_of
from hrm_jax.tasks.relational.task import FamilyConfig, QuestionTask, SortOfClevrConfig
from hrm_jax.tasks.rl.dqn import DQNConfig, DQNTask
from hrm_jax.tasks.rl.ppo import PPOConfig, PPOTask

_TASKS: dict[str, tuple[type[RunConfig], Any]] = {
    **{name: (config_of(puzzle), PuzzleTask) for name, puzzle in PUZZLES.items()},
    "text": (TextConfig, TextTask),
    "pairs": (PairConfig, PairTask),
    "sort_of_clevr": (SortOfClevrConfig, QuestionTask),
    "family": (FamilyConfig, QuestionTask),
    "instruct": (InstructConfig, InstructTask),
    "infinito": (InfinitoConfig, InfinitoTask),
    "infinito_scheduler": (SchedulerConfig, SchedulerTask),
    "ppo": (PPOConfig, PPOTask),
    "dqn": (DQNConfig, DQNTask),
}


def parse(config: Mapping[str, Any]) -> RunConfig:
    """Turns a nested mapping, as `preset_config` makes one, into the frozen configuration of the
    task it names; fields that are absent take their defaults."""
    values = dict(config)
    preset = values.pop("preset_values", {})
    if values.get("from_json") and config_class(values) is TextConfig:
        values = with_json(values, _merged(defaults(values["task"]), preset))
    return from_mapping(config_class(config), values, preset=preset)


def _merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with others in the place of some."""
    inner = {k: _merged(values[k], v) if isinstance(v, Mapping) else v for k, v in more.items()}
    return {**values, **inner}


def config_class(config: Mapping[str, Any]) -> type[RunConfig]:
    """The class of a nested mapping's configuration."""
    name = config.get("task")
    if name not in _TASKS:
        raise ConfigError(f"config.task: expected one of {', '.join(_TASKS)}, got {name!r}")
    return _TASKS[name][0]


def preset_config(
    task: str, presets: Mapping[str, Mapping[str, Any]], preset: str
) -> ml_collections.ConfigDict:
    """The configuration that a file in `configs/` returns.

    It has every field of the task, and those of all networks, so that `model.name` alone can be
    changed. What the preset sets stands in `preset_values` too: where another network or other data
    are chosen, `parse` then knows what the user has not set. The `preset` "" chooses by the
    hardware, see `choose_preset`.
    """
    name, why = choose_preset(preset, presets)
    config = ml_collections.ConfigDict(defaults(task)).lock()
    config.update({"preset": why, **presets[name]})
    with config.unlocked():
        config.preset_values = presets[name]
    return config


def file_config(path: str | os.PathLike[str], preset: str = "") -> ml_collections.ConfigDict:
    """What a file like those in `configs/` says of a preset; it is run."""
    config: ml_collections.ConfigDict = runpy.run_path(os.fspath(path))["get_config"](preset)
    return config


def defaults(task: str) -> dict[str, Any]:
    """Every field of a task's configuration with its default, nested, and those of all networks."""
    kind = _TASKS[task][0]
    values = to_mapping(kind(task=task))
    if not isinstance(values["model"], dict):  # the name of one
        return values
    models = typing.get_args(typing.get_type_hints(kind)["model"])
    fields = {k: v for model in models for k, v in to_mapping(model()).items()}
    return {**values, "model": {**fields, **values["model"]}}


def kind(config: RunConfig) -> Any:
    """The class of the task that a configuration is for."""
    return _TASKS[config.task][1]


def build(config: RunConfig, data_cache: pathlib.Path | None = None, **given: Any) -> Any:
    """Builds the task of a configuration, which keeps generated data in a folder. Given may be
    `variables`, to start from instead of fresh weights, and `base`, the model that `config.base`
    names; see `hrm_jax.tasks.base.Task`."""
    return kind(config)(config, data_cache, **given)

"""A run's folder: its configuration and the identity of its data, checked before anything else."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from hrm_jax.data.identity import Identity
from hrm_jax.fields import ConfigError, from_mapping, to_mapping
from hrm_jax.files import read_json, write_json, write_text
from hrm_jax.tasks.base import RunConfig
from hrm_jax.training.processes import is_first, require_same

# Fields that may differ when a run goes on: they change no step that has been made.
_FREE = (
    *(
        "preset",
        "expect",
        "steps",
        "log_every",
        "eval_every",
        "checkpoint_every",
        "keep_checkpoints",
    ),
    *(
        "best_metric",
        "early_stopping",
        "control",
        "profile",
        "tensorboard",
        "wandb",
        "eval_aug",
        "eval_slots",
        "eval_max_steps",
    ),
    *("init_from", "reset_puzzle_table", "shard_tables", "mesh", "model.attention"),
)
_FREE_DATA = ("path", "train_csv", "test_csv")  # the identity tells whether the puzzles differ


class WorkdirError(ValueError):
    """The workdir belongs to a run of another configuration or other data, or is not one."""


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result.update(_flat(value, f"{prefix}{name}."))
        else:
            result[prefix + name] = list(value) if isinstance(value, tuple) else value
    return result


def _completed(stored: Mapping[str, Any], config: RunConfig) -> Mapping[str, Any]:
    """A stored configuration with the defaults of fields that came later."""
    try:
        return json.loads(json.dumps(to_mapping(from_mapping(type(config), stored))))
    except ConfigError:  # one of another task, or with fields that are gone
        return stored


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    free = {*_FREE, *(f"data.{name}" for name in _FREE_DATA)}
    before, now = _flat(old), _flat(new)
    return [
        f"config.{name}: {before.get(name)!r} in the workdir, {now.get(name)!r} now"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and name not in free and name.split(".")[0] not in free
    ]


def prepare(workdir: str | os.PathLike[str], config: RunConfig, identity: Identity) -> None:
    """Makes a new workdir, or checks that the run in an existing one is the same.

    All processes of a run call it, and the first one writes.

    Args:
        workdir: The run's folder.
        config: The configuration.
        identity: What identifies its data.

    Raises:
        WorkdirError: The folder holds a run of another configuration or of other data; the
            message names the fields that differ.
        ConfigError: Another process has another configuration or other data.
        OSError: The folder cannot be written.
    """
    folder = pathlib.Path(workdir)
    now = json.loads(json.dumps(to_mapping(config)))
    if (folder / "config.json").exists():
        wrong = _differences(_completed(read_json(folder / "config.json"), config), now)
        stored = read_identity(folder)
        wrong += [f"data {line}" for line in stored.differences(identity)] if stored else []
        if wrong:
            raise WorkdirError(
                f"{folder} holds a run that differs from this one:\n  "
                + "\n  ".join(wrong)
                + "\nTake another --workdir, or the same configuration and data."
            )
    require_same("configuration", now)
    require_same("data", identity.to_json())
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "identity.json", identity.to_json() + "\n")
        write_json(folder / "config.json", now)


def checkpoint(text: str) -> str | int:
    """A checkpoint as it is named on a command line: "last", "best" or a step."""
    return text if text in ("last", "best") else int(text)


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration of the run in `workdir`.

    Raises:
        WorkdirError: There is no run there.
    """
    path = pathlib.Path(workdir) / "config.json"
    if not path.exists():
        raise WorkdirError(f"{workdir}: not the workdir of a run (there is no config.json in it)")
    try:
        return read_json(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def read_identity(workdir: str | os.PathLike[str]) -> Identity | None:
    """What identifies the data of the run in `workdir`; None if it was never written."""
    path = pathlib.Path(workdir) / "identity.json"
    return Identity.from_json(path.read_text(encoding="utf-8")) if path.exists() else None

"""A run's folder: its configuration and the identity of its data, checked before anything else."""

from __future__ import annotations

import functools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict

from hrm_jax.data.identity import Identity
from hrm_jax.fields import ConfigError, from_mapping, to_mapping, without_effect
from hrm_jax.files import read_json, write_json, write_text
from hrm_jax.tasks import config_class
from hrm_jax.tasks.base import RunConfig
from hrm_jax.training.processes import is_first, require_same

VERSION = 2
"""Of what a run leaves. Since 2 the task says what its weights are, and checkpoints hold these and
the rest of its state; runs of before can be used and started from, but not gone on with."""


class WorkdirError(ValueError):
    """The workdir belongs to a run of another configuration or other data, or is not one."""


def _completed(stored: Mapping[str, Any], config: RunConfig) -> Mapping[str, Any]:
    """A stored configuration with the defaults of fields that came later."""
    try:
        return json.loads(json.dumps(to_mapping(from_mapping(type(config), stored, preset=stored))))
    except ConfigError:  # one of another task
        return stored


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], free: Sequence[str]) -> list[str]:
    before, now = (flatten_dict(values, sep=".") for values in (old, new))
    return [
        f"config.{name}: {before.get(name)!r} in the workdir, {now.get(name)!r} now"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and name not in free and name.split(".")[0] not in free
    ]


def prepare(workdir: str | os.PathLike[str], config: RunConfig, identity: Identity) -> None:
    """Makes a new workdir, or checks that the run in an existing one is the same. All processes of
    a run call it, and the first one writes.

    Raises:
        WorkdirError: The folder holds a run of another configuration or of other data; names
            the fields that differ.
        ConfigError: Another process has another configuration or other data.
    """
    folder = pathlib.Path(workdir)
    now = json.loads(json.dumps(to_mapping(config)))
    if (folder / "config.json").exists():
        before = read_json(folder / "config.json")
        if before.pop("version", 1) != VERSION:
            raise WorkdirError(
                f"{folder}: a run of an earlier version of hrm_jax. It can be loaded, evaluated "
                "and exported, but not gone on with; take another --workdir, and "
                f"--config.init_from={folder} to start from its weights"
            )
        free = (*config.free, *without_effect(config))
        wrong = _differences(_completed(before, config), now, free)
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
        write_json(folder / "config.json", {"version": VERSION, **now})


def checkpoint(text: str) -> str | int:
    """A checkpoint as it is named on a command line: "last", "best" or a step."""
    return text if text in ("last", "best") else int(text)


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration of a run, without fields that are gone; `WorkdirError` where there is
    none."""
    path = pathlib.Path(workdir) / "config.json"
    if not path.exists():
        raise WorkdirError(f"{workdir}: not the workdir of a run (there is no config.json in it)")
    try:
        values = read_json(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if values.pop("version", 1) < VERSION:
        for name in config_class(values).gone:
            *groups, field = name.split(".")
            functools.reduce(lambda inner, group: inner.get(group, {}), groups, values).pop(
                field, None
            )
    return {**values, "preset_values": values}  # whatever stands there was accepted before


def read_identity(workdir: str | os.PathLike[str]) -> Identity | None:
    """What identifies the data of the run in `workdir`; None if it was never written."""
    path = pathlib.Path(workdir) / "identity.json"
    return Identity.from_json(path.read_text(encoding="utf-8")) if path.exists() else None

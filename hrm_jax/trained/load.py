"""From a workdir to a model that is ready to use."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from hrm_jax import tasks
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError
from hrm_jax.interop.peft import load_adapter
from hrm_jax.layers import lora
from hrm_jax.paths import path_of
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.training.checkpoints import CheckpointError, load_weights
from hrm_jax.training.workdir import WorkdirError, read_config


def load(workdir: str | os.PathLike[str], checkpoint: str | int = "last") -> Any:
    """Loads the model that a run has trained, with averaged parameters where the run kept them.

    The checkpoint is "last", "best" or the step of one that is still kept. The model is a
    `PuzzleModel`, see its `solve`, or a `LanguageModel`, see its `generate`.

    Raises:
        WorkdirError: There is no run in `workdir`.
        CheckpointError: There is no such checkpoint, or it is damaged.
    """
    config = tasks.parse(read_config(workdir))
    weights, _ = load_weights(workdir, checkpoint)
    return tasks.kind(config).load(config, weights, pathlib.Path(workdir))


def load_last(workdir: str | os.PathLike[str], last: int) -> list[PuzzleModel]:
    """Loads the models of the `last` newest checkpoints, the newest first."""
    if last < 1:
        raise ValueError(f"last: expected at least 1, got {last}")
    read_config(workdir)
    folder = path_of(workdir) / "checkpoints"
    steps = sorted((int(x.name) for x in folder.glob("*") if x.name.isdigit()), reverse=True)
    if len(steps) < last:
        kept = ", ".join(map(str, reversed(steps))) or "none"
        raise CheckpointError(
            f"{folder}: last={last}, but the checkpoints there are: {kept}; training keeps more "
            f"with --config.keep_checkpoints={last}"
        )
    return [load(workdir, step) for step in steps[:last]]


def with_adapters(
    model: LanguageModel, folders: Mapping[str, str | os.PathLike[str]]
) -> LanguageModel:
    """The model, ready to serve low-rank adapters by name; their folders are peft's."""
    if model.name in folders:
        raise ConfigError(f"adapter: {model.name!r} is the model's own name; expected another")
    params = model.variables["params"]
    read = {name: load_adapter(path_of(folder), params) for name, folder in folders.items()}
    for name, (_, adapters) in read.items():
        if adapters["params"]:
            raise ConfigError(
                f"{folders[name]}: trains parameters of the model's own (bias or modules_to_save), "
                "which cannot differ from request to request; expected it merged into the model"
            )
    return dataclasses.replace(model, adapters=read)


def merge_adapter(model: LanguageModel, folder: str | os.PathLike[str]) -> LanguageModel:
    """The model with a low-rank adapter, in a folder of peft's, merged into it."""
    params = model.variables["params"]
    config, adapters = load_adapter(path_of(folder), params)
    merged = lora.merge(config, params, adapters).params
    sizes = model.config
    if "embed_tokens" in merged:
        size = len(merged["embed_tokens"]["embedding"])
        sizes = dataclasses.replace(sizes, vocab_size=size)
    return dataclasses.replace(model, config=sizes, variables={"params": merged})


def load_language(workdir: str | os.PathLike[str], checkpoint: str | int = "last") -> LanguageModel:
    """As `load`, of a language model; WorkdirError if the run is of something else."""
    model = load(workdir, checkpoint)
    if not isinstance(model, LanguageModel):
        raise WorkdirError(f"{workdir}: not the run of a language model, which this takes")
    return model

"""From a workdir to a model that is ready to use."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from hrm_jax import tasks
from hrm_jax.data.text.tokenizers import load_tokenizer
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError
from hrm_jax.interop.hugging_face import from_hugging_face
from hrm_jax.paths import path_of
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.trained.pretrained import PRETRAINED, pretrained
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
    base = {"base": read_base(config.base)} if config.base else {}
    return tasks.kind(config).load(config, weights, pathlib.Path(workdir), **base)


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


def load_language(workdir: str | os.PathLike[str], checkpoint: str | int = "last") -> LanguageModel:
    """As `load`, of a language model; WorkdirError if the run is of something else."""
    model = load(workdir, checkpoint)
    if not isinstance(model, LanguageModel):
        raise WorkdirError(f"{workdir}: not the run of a language model, which this takes")
    return model


def read_base(name: str) -> LanguageModel:
    """The model of a configuration's `model`: one that comes with the package, by its name; the
    workdir of a run; or a folder with a model and a tokenizer of Hugging Face's.

    Raises `ConfigError` where there is no such model.
    """
    path = path_of(name)
    if name in PRETRAINED:
        return pretrained(name)
    if (path / "checkpoints").is_dir():
        return load_language(path)
    if not (path / "config.json").is_file():
        raise ConfigError(
            f"config.model: {name}: no folder with a model in it (config.json, weights and "
            f"tokenizer.json of Hugging Face's, or a workdir), and none of {', '.join(PRETRAINED)}"
        )
    config, params = from_hugging_face(path)
    return LanguageModel(config, {"params": params}, load_tokenizer(str(path)), str(path), name)

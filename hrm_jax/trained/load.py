"""From a workdir to a model that is ready to use."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from hrm_jax import tasks
from hrm_jax.engine.language import LanguageModel
from hrm_jax.training.checkpoints import load_weights
from hrm_jax.training.workdir import WorkdirError, read_config


def load(workdir: str | os.PathLike[str], checkpoint: str | int = "last") -> Any:
    """Loads the model that a run has trained.

    Averaged parameters are taken where the run kept them.

    Args:
        workdir: Folder given to `launch/train.py --workdir`.
        checkpoint: "last", "best" or the step of a checkpoint that is still kept.

    Returns:
        A `PuzzleModel`, see its `solve`, or a `LanguageModel`, see its `generate`.

    Raises:
        WorkdirError: There is no run in `workdir`.
        CheckpointError: There is no such checkpoint, or it is damaged.
    """
    config = tasks.parse(read_config(workdir))
    weights, _ = load_weights(workdir, checkpoint)
    return tasks.kind(config).model(config, weights, pathlib.Path(workdir).resolve().name)


def load_language(workdir: str | os.PathLike[str], checkpoint: str | int = "last") -> LanguageModel:
    """As `load`, of a language model.

    Raises:
        WorkdirError: The run is of something else.
    """
    model = load(workdir, checkpoint)
    if not isinstance(model, LanguageModel):
        raise WorkdirError(f"{workdir}: not the run of a language model, which this takes")
    return model

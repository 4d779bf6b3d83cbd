"""From a workdir to a model that is ready to use."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from hrm_jax import tasks
from hrm_jax.data.text.tokenizers import load_tokenizer
from hrm_jax.engine.language import LanguageModel
from hrm_jax.puzzles import PUZZLES
from hrm_jax.tasks.language.task import LanguageConfig
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.training.checkpoints import load_weights
from hrm_jax.training.workdir import read_config


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
    config: Any = tasks.parse(read_config(pathlib.Path(workdir)))
    weights, _ = load_weights(workdir, checkpoint)
    averages = weights.pop("ema", None) or {}
    variables = {name: value for name, value in {**weights, **averages}.items() if value}
    if isinstance(config, LanguageConfig):
        tokenizer = config.data.tokenizer
        name = pathlib.Path(workdir).resolve().name
        return LanguageModel(config.model, variables, load_tokenizer(tokenizer), tokenizer, name)
    return PuzzleModel(
        config.model, variables, PUZZLES[config.task], max_steps=config.eval_max_steps or None
    )

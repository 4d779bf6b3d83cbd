"""From a workdir, or a folder of Hugging Face's, to a model that is ready to use."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from hrm_jax import tasks
from hrm_jax.data.text.tokenizer_files import chat_template
from hrm_jax.data.text.tokenizers import load_tokenizer
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError, require
from hrm_jax.files import read_json
from hrm_jax.interop.hugging_face import from_hugging_face
from hrm_jax.interop.peft import load_adapter
from hrm_jax.layers import lora
from hrm_jax.paths import path_of
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.trained.pretrained import PRETRAINED, pretrained
from hrm_jax.training.checkpoints import CheckpointError, load_weights
from hrm_jax.training.workdir import WorkdirError, read_config


def load(workdir: str | os.PathLike[str], checkpoint: str | int = "last") -> Any:
    """Loads the model that a run has trained, with averaged parameters where the run kept them; or
    that of a folder of Hugging Face's (see `load_pretrained`), which has no checkpoints.

    The checkpoint is "last", "best" or the step of one that is still kept. The model is a
    `PuzzleModel`, see its `solve`, or a `LanguageModel`, see its `generate`.

    Raises:
        WorkdirError: There is no run in `workdir`.
        CheckpointError: There is no such checkpoint, or it is damaged.
    """
    if _is_pretrained(path_of(workdir)):
        if checkpoint != "last":
            raise CheckpointError(f"{workdir}: a model's folder has no checkpoint {checkpoint!r}")
        return load_pretrained(workdir)
    config = tasks.parse(read_config(workdir))
    weights, _ = load_weights(workdir, checkpoint)
    base = {"base": read_base(config.base)} if config.base else {}
    return tasks.kind(config).load(config, weights, pathlib.Path(workdir), **base)


def load_pretrained(
    folder: str | os.PathLike[str], dtype: Literal["float32", "bfloat16"] = "float32"
) -> LanguageModel:
    """Loads a language model of Hugging Face's transformers with its tokenizer and chat template.

    The folder is one that `from_hugging_face` and `load_tokenizer` take, or the name of a model
    that comes with the package. Weights are kept, and is computed, in `dtype`. A `ConfigError` or
    `DataError` says what is missing or not supported.
    """
    if folder in PRETRAINED:
        return pretrained(os.fspath(folder), dtype)
    path = path_of(folder)
    require(
        path.is_dir(),
        f"{path}: there is no such folder, and what comes with the package is "
        f"{', '.join(PRETRAINED)}",
    )
    tokenizer = load_tokenizer(os.fspath(path))
    config, params = from_hugging_face(path, dtype=dtype)
    require(
        tokenizer.vocab_size <= config.vocab_size,
        f"{path}: vocab_size: {config.vocab_size}, but its tokenizer has {tokenizer.vocab_size}",
    )
    return LanguageModel(
        dataclasses.replace(config, dtype=dtype),
        {"params": params},
        tokenizer,
        os.fspath(path),
        path.resolve().name,
        chat_template(path),
    )


def _is_pretrained(folder: pathlib.Path) -> bool:
    """Whether the config.json in a folder is one of transformers."""
    path = folder / "config.json"
    return path.is_file() and "model_type" in read_json(path)


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
    """The model with a low-rank adapter, in a folder of peft's, merged into it. A tokenizer
    beside it is taken where its vocabulary is another, and a chat template in any case."""
    folder, params = path_of(folder), model.variables["params"]
    config, adapters = load_adapter(folder, params)
    merged = lora.merge(config, params, adapters).params
    size = len(merged["embed_tokens"]["embedding"]) if "embed_tokens" in merged else 0
    changes: dict[str, Any] = {"chat_template": chat_template(folder) or model.chat_template}
    if size and size != model.config.vocab_size:
        beside = (folder / "tokenizer.json").is_file()
        name = os.fspath(folder) if beside else model.tokenizer_name
        tokenizer = load_tokenizer(name) if beside else model.tokenizer
        require(
            tokenizer.vocab_size <= size,
            f"{folder}: embeddings of {size} tokens, but its tokenizer has {tokenizer.vocab_size}",
        )
        changes |= {"tokenizer": tokenizer, "tokenizer_name": name}
        changes["config"] = dataclasses.replace(model.config, vocab_size=size)
    return dataclasses.replace(model, variables={"params": merged}, **changes)


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
    return dataclasses.replace(load_pretrained(path), name=name)

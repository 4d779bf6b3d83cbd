"""Arguments of scripts that take a language model: a run's, or one of Hugging Face's."""

from __future__ import annotations

import argparse
from typing import Any

from hrm_jax.engine.language import LanguageModel
from hrm_jax.paths import expanded
from hrm_jax.trained.load import load_language, load_pretrained
from hrm_jax.training.workdir import checkpoint


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds `--workdir` and `--model`, of which exactly one must be given, and what goes with it."""
    either: Any = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--workdir", type=expanded, help="folder of a language model's run")
    either.add_argument(
        "--model",
        type=expanded,
        help="folder with a model of Hugging Face's transformers; or spanish-gpt2 (packaged)",
    )
    parser.add_argument(
        "--checkpoint", type=checkpoint, help="of a run: last (the default), best or a step"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="what a --model's weights are kept and computed in; float32 by default",
    )


def load_model(args: argparse.Namespace) -> LanguageModel:
    """The model that the arguments of `add_model` name; `ValueError` where one of them is for the
    other kind of folder, and the errors of `load_language` and `load_pretrained`."""
    if args.model is None:
        if args.dtype is not None:
            raise ValueError("--dtype: only with --model; a run says itself what it computes in")
        return load_language(args.workdir, "last" if args.checkpoint is None else args.checkpoint)
    if args.checkpoint is not None:
        raise ValueError("--checkpoint: only with --workdir; a model's folder has none")
    return load_pretrained(args.model, args.dtype or "float32")

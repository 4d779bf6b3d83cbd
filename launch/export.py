"""Exports trained weights: `python launch/export.py --workdir=W --output=model.safetensors`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import hrm_jax
from hrm_jax.interop.language import LANGUAGE_FORMATS
from hrm_jax.interop.weights import write_weights
from hrm_jax.paths import expanded
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=expanded, required=True, help="folder of a training run")
    parser.add_argument("--output", type=expanded, required=True, help="file for the weights")
    parser.add_argument(
        "--format",
        choices=(*LANGUAGE_FORMATS, "peft", "stable_baselines3"),
        default="safetensors",
        help="suffixes: .safetensors, .pt, .npz, .weights.h5 and .pkl (a dict of NumPy arrays, "
        "which any Python with NumPy can unpickle); hugging_face: a folder for transformers "
        "(GPT-2, Llama, Mistral, Qwen); peft: a folder with the adapter of a run on instructions; "
        "stable_baselines3: a state dict for its policies",
    )
    parser.add_argument(
        "--checkpoint", type=checkpoint, default="last", help="last, best or a step"
    )
    args = parser.parse_args(argv)
    try:
        model = hrm_jax.load(args.workdir, checkpoint=args.checkpoint)
        print(*write_weights(model, args.output, args.format), sep="\n")
    except (ValueError, OSError, ImportError, CheckpointError) as error:
        print(f"export: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

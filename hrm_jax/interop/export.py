"""Trained weights and their configuration, written as the PyTorch reference writes them."""

from __future__ import annotations

import os
import pathlib

import yaml

from hrm_jax.files import write_text
from hrm_jax.interop.files import split_name, write_state_dict
from hrm_jax.interop.hrm_names import to_reference
from hrm_jax.interop.reference_config import to_reference_config
from hrm_jax.models.recurrent import RecurrentConfig, Variables
from hrm_jax.tasks.puzzles.losses import LossName


def export(
    config: RecurrentConfig,
    variables: Variables,
    output: str | os.PathLike[str],
    format: str,
    loss: LossName = "stablemax",
) -> list[pathlib.Path]:
    """Writes weights as `write_state_dict`, and beside them `<name>.config.yaml`, which says what
    `loss` they were trained with; returns both.

    `load_hrm` and `load_trm` of `hrm_jax.interop.torch` read the pair back.
    """
    weights = pathlib.Path(output)
    write_state_dict(weights, to_reference(variables), format)
    beside = weights.with_name(f"{split_name(weights)[0]}.config.yaml")
    write_text(beside, yaml.safe_dump(to_reference_config(config, loss), sort_keys=False))
    return [weights, beside]

"""Trained weights and their configuration, written as the PyTorch reference writes them."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml

from hrm_jax.files import write_text
from hrm_jax.interop.files import split_name, write_state_dict
from hrm_jax.interop.hrm_names import to_reference
from hrm_jax.interop.reference_config import to_reference_config
from hrm_jax.models.recurrent import RecurrentConfig, Variables


def export(
    config: RecurrentConfig,
    variables: Variables,
    output: str | os.PathLike[str],
    format: str,
    extra_config: Mapping[str, Any] | None = None,
) -> list[pathlib.Path]:
    """Writes the weights, and beside them `<name>.config.yaml` in the reference's layout.

    `load_hrm` and `load_trm` of `hrm_jax.interop.torch` read the pair back.

    Args:
        config, variables: The model.
        output: File for the weights, with a suffix of `format`; replaced if it exists.
        format: One of `files.FORMATS`.
        extra_config: Further arguments of `to_reference_config`, such as `loss_type` or `lr`.

    Returns:
        The two files: weights, configuration.

    Raises:
        ConfigError: `extra_config` is wrong.
        ValueError, ImportError, OSError: As by `write_state_dict`.
    """
    mapping = to_reference_config(config, **(extra_config or {}))
    weights = pathlib.Path(output)
    write_state_dict(weights, to_reference(variables), format)
    beside = weights.with_name(f"{split_name(weights)[0]}.config.yaml")
    write_text(beside, yaml.safe_dump(mapping, sort_keys=False))
    return [weights, beside]

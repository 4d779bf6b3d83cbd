"""Weights of the PyTorch reference, ready to use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hrm_jax.interop.files import read_state_dict
from hrm_jax.interop.hrm_names import from_reference
from hrm_jax.interop.reference_config import from_reference_config
from hrm_jax.tasks.puzzle_model import PuzzleModel


def load_hrm(
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    config: Mapping[str, Any] | str | os.PathLike[str],
    *,
    seq_len: int | None = None,
    reset_puzzle_table: bool = False,
) -> PuzzleModel:
    """Loads weights with the reference's tensor names, whichever file format they are in.

    Args:
        path_or_state_dict: A file that `files.read_state_dict` reads, or torch tensors or arrays
            by name.
        config: The reference's configuration, flat or as in its `all_config.yaml`, or the path of
            such a file (.yaml, .yml, .json).
        seq_len: Grid tokens, where `config` and weights do not tell.
        reset_puzzle_table: Whether a puzzle table with another number of rows than
            `num_puzzle_identifiers` is replaced by its mean row instead of refused.

    Returns:
        The model.

    Raises:
        ConfigError: The configuration is not HRM's, or the weights do not fit it.
        ValueError: The file is damaged, of unknown format or holds anything but tensors.
        ImportError: PyTorch is needed to read the file, and missing.
        OSError: A file cannot be read.
    """
    if isinstance(path_or_state_dict, Mapping):
        state_dict = path_or_state_dict
    else:
        state_dict = read_state_dict(path_or_state_dict)
    sizes = from_reference_config(config, state_dict, seq_len=seq_len)
    variables = from_reference(state_dict, sizes, reset_puzzle_table=reset_puzzle_table)
    return PuzzleModel(config=sizes, variables=variables)

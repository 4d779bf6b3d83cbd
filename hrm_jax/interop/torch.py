"""Weights of the PyTorch references, ready to use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hrm_jax.interop.files import read_state_dict
from hrm_jax.interop.hrm_names import from_reference
from hrm_jax.interop.reference_config import from_reference_config
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.recurrent import RecurrentConfig
from hrm_jax.models.trm import TRMConfig
from hrm_jax.tasks.puzzles.model import PuzzleModel


def load_hrm(
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    config: Mapping[str, Any] | str | os.PathLike[str],
    *,
    seq_len: int | None = None,
    reset_puzzle_table: bool = False,
) -> PuzzleModel:
    """Loads HRM's weights with the reference's tensor names, whichever file format they are in.

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
    return _load(HRMConfig, path_or_state_dict, config, seq_len, reset_puzzle_table)


def load_trm(
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    config: Mapping[str, Any] | str | os.PathLike[str],
    *,
    seq_len: int | None = None,
    reset_puzzle_table: bool = False,
) -> PuzzleModel:
    """Loads TRM's weights with the names of the public code (TinyRecursiveModels).

    Args:
        path_or_state_dict: As for `load_hrm`. Whether these are averaged weights is not written in
            such a file.
        config: The public code's configuration, as for `load_hrm`.
        seq_len: As for `load_hrm`; with `mlp_t` the weights tell it.
        reset_puzzle_table: As for `load_hrm`.

    Returns:
        The model.

    Raises:
        ConfigError: The configuration is not TRM's or has q_continue, or the weights do not fit it.
        ValueError, ImportError, OSError: As for `load_hrm`.
    """
    return _load(TRMConfig, path_or_state_dict, config, seq_len, reset_puzzle_table)


def _load(
    kind: type[RecurrentConfig],
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    config: Mapping[str, Any] | str | os.PathLike[str],
    seq_len: int | None,
    reset_puzzle_table: bool,
) -> PuzzleModel:
    if isinstance(path_or_state_dict, Mapping):
        state_dict = path_or_state_dict
    else:
        state_dict = read_state_dict(path_or_state_dict)
    sizes = from_reference_config(config, state_dict, seq_len=seq_len, kind=kind)
    variables = from_reference(state_dict, sizes, reset_puzzle_table=reset_puzzle_table)
    return PuzzleModel(config=sizes, variables=variables)

"""Weights of the PyTorch references, ready to use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hrm_jax.fields import naming
from hrm_jax.interop.files import only_state_dict, read_state_dict
from hrm_jax.interop.hrm_names import bare_names, from_reference
from hrm_jax.interop.reference_config import from_reference_config, reference_loss
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.recurrent import RecurrentConfig
from hrm_jax.models.trm import TRMConfig
from hrm_jax.tasks.puzzles.model import PuzzleModel

Source = Mapping[str, Any] | str | os.PathLike[str]


def load_hrm(
    path_or_state_dict: Source,
    config: Source,
    *,
    seq_len: int | None = None,
    reset_puzzle_table: bool = False,
) -> PuzzleModel:
    """Loads HRM's weights with the reference's tensor names, whichever file format they are in.

    Args:
        path_or_state_dict: As for `files.read_state_dict`; or torch tensors or arrays by name, or
            what a training saves with them (see `files.only_state_dict`).
        config: The reference's configuration, flat or as in its `all_config.yaml`, or the path of
            such a file (.yaml, .yml, .json).
        seq_len: Grid tokens, where `config` and weights do not tell.
        reset_puzzle_table: Whether a puzzle table with another number of rows than
            `num_puzzle_identifiers` is replaced by its mean row instead of refused.

    Raises:
        ConfigError: The configuration is not HRM's, or the weights do not fit it.
    """
    return _load(HRMConfig, path_or_state_dict, config, seq_len, reset_puzzle_table)


def load_trm(
    path_or_state_dict: Source,
    config: Source,
    *,
    seq_len: int | None = None,
    reset_puzzle_table: bool = False,
) -> PuzzleModel:
    """Loads TRM's weights with the names of the public code (TinyRecursiveModels).

    As `load_hrm`, but that with `mlp_t` the weights tell `seq_len`, and that a network with
    q_continue is refused. Whether the weights are averaged ones is not written in such a file.
    """
    return _load(TRMConfig, path_or_state_dict, config, seq_len, reset_puzzle_table)


def _load(
    kind: type[RecurrentConfig],
    weights: Source,
    config: Source,
    seq_len: int | None,
    reset_puzzle_table: bool,
) -> PuzzleModel:
    where, found = "", weights
    if not isinstance(found, Mapping):
        where, found = os.fspath(found), read_state_dict(found)
    with naming(where):
        found = only_state_dict(found)
        tensors = {bare: found[name] for bare, name in bare_names(found).items()}
    sizes = from_reference_config(config, tensors, seq_len=seq_len, kind=kind)
    with naming(where):
        variables = from_reference(tensors, sizes, reset_puzzle_table=reset_puzzle_table)
    return PuzzleModel(sizes, variables, loss=reference_loss(config))

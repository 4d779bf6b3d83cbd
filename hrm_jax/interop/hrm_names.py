"""HRM's and TRM's variables under the tensor names of the PyTorch references, and back.

The references are sapientinc/HRM and, for TRM, SamsungSAILMontreal/TinyRecursiveModels; names and
shapes are those of the state dicts they save.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.fields import ConfigError
from hrm_jax.interop.files import Tensors
from hrm_jax.interop.torch_names import (
    LEAVES,
    from_torch_names,
    to_numpy,
    to_torch_names,
    unwrapped,
)
from hrm_jax.models.recurrent import RecurrentConfig, Variables, init

PUZZLE_TABLE = "puzzle_emb.weights"

_PREFIX = "model.inner."
_LEAVES = {**LEAVES, "embedding": "embedding_weight"}

# Computed from the configuration, or scratch space of the reference's optimizer: nothing learnt.
_NOT_LEARNT = frozenset(
    {
        "puzzle_emb.local_weights",
        "puzzle_emb.local_ids",
        "rotary_emb.cos_cached",
        "rotary_emb.sin_cached",
        "n_averaged",  # of torch's AveragedModel
    }
)


def bare_names(state_dict: Mapping[str, Any]) -> dict[str, str]:
    """Maps names without any prefix to the names in `state_dict`.

    `model.`, `inner.` and what `unwrapped` takes off are prefixes; tensors of the reference that
    hold nothing learnt are left out.
    """
    names: dict[str, str] = {}
    for short, name in unwrapped(state_dict, "embed_tokens.embedding_weight").items():
        bare = short.removeprefix("model.").removeprefix("inner.")
        if bare in _NOT_LEARNT:
            continue
        if bare in names:
            raise ConfigError(f"state dict: {names[bare]!r} and {name!r} are the same tensor")
        names[bare] = name
    return names


def to_reference(variables: Variables) -> Tensors:
    """Variables under the reference's names, with the prefix `model.inner.`, in its layouts."""
    return to_torch_names(_inner(variables), _LEAVES)


def from_reference(
    state_dict: Mapping[str, Any], config: RecurrentConfig, *, reset_puzzle_table: bool = False
) -> dict[str, Any]:
    """Reads variables, float32, from a state dict of the reference; `to_reference` inverted.

    Names may lack the prefixes that `bare_names` takes off; tensors that do not fit the sizes are
    refused as by `matching`. With `reset_puzzle_table`, a puzzle table of another number of rows,
    because the data set is another one, is not: every identifier gets the mean row of the table, as
    the reference does.
    """
    template = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    tensors = {_PREFIX + bare: state_dict[name] for bare, name in bare_names(state_dict).items()}
    hints, place = {}, _PREFIX + PUZZLE_TABLE
    table, rows = to_numpy(tensors.get(place, 0)), config.num_puzzle_identifiers
    if table.shape[1:] == (config.puzzle_emb_ndim,) and len(table) != rows:
        hints[place] = (
            f" (the weights know {len(table)} puzzle identifiers, the configuration {rows}; "
            "reset_puzzle_table=True puts the mean row in the place of every row)"
        )
        if reset_puzzle_table and len(table) and jnp.issubdtype(table.dtype, jnp.floating):
            mean = table.astype(np.float64).mean(axis=0)
            tensors[place] = np.repeat(mean[None], rows, axis=0)
    named = from_torch_names(tensors, _inner(template), _LEAVES, hints)["model"]["inner"]
    found = {kind: {k: named[k] for k in template[kind]} for kind in ("params", "constants")}
    if "tables" in template:
        found["tables"] = {"puzzle_emb": named["puzzle_emb"]["weights"]}
    return found


def _inner(variables: Variables) -> dict[str, Any]:
    """All variables in one tree, as the reference's modules have them."""
    inner = {**variables["params"], **variables.get("constants", {})}
    if "tables" in variables:
        inner["puzzle_emb"] = {"weights": variables["tables"]["puzzle_emb"]}
    return {"model": {"inner": inner}}

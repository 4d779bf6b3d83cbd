"""HRM's and TRM's variables under the tensor names of the PyTorch references, and back.

The references are sapientinc/HRM and, for TRM, SamsungSAILMontreal/TinyRecursiveModels; names and
shapes are those of the state dicts they save. Their Linear weights are [out, in], ours [in, out];
everything else has the same layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import traverse_util

from hrm_jax.fields import ConfigError
from hrm_jax.models.recurrent import RecurrentConfig, Variables, init

Float32Array = npt.NDArray[np.float32]

PREFIX = "model.inner."
PUZZLE_TABLE = "puzzle_emb.weights"

# Computed from the configuration, or scratch space of the reference's optimizer: nothing learnt.
_NOT_LEARNT = frozenset(
    {
        "puzzle_emb.local_weights",
        "puzzle_emb.local_ids",
        "rotary_emb.cos_cached",
        "rotary_emb.sin_cached",
    }
)


def bare_names(state_dict: Mapping[str, Any]) -> dict[str, str]:
    """Maps names without any prefix to the names in `state_dict`.

    `model.`, `inner.` and the `_orig_mod.` that `torch.compile` adds are prefixes; tensors of the
    reference that hold nothing learnt are left out.

    Raises:
        ConfigError: Two names differ in their prefix only.
    """
    names: dict[str, str] = {}
    for name in state_dict:
        bare = name.replace("_orig_mod.", "").removeprefix("model.").removeprefix("inner.")
        if bare in _NOT_LEARNT:
            continue
        if bare in names:
            raise ConfigError(f"state dict: {names[bare]!r} and {name!r} are the same tensor")
        names[bare] = name
    return names


def _reference_name(path: tuple[str, ...]) -> str:
    """The reference's name, without prefix, of the variable at `path`."""
    collection, *parts = path
    if collection == "tables":
        return PUZZLE_TABLE
    parts[-1] = {"kernel": "weight", "embedding": "embedding_weight"}.get(parts[-1], parts[-1])
    return re.sub(r"\blayers_(\d+)", r"layers.\1", ".".join(parts))


def _is_linear(path: tuple[str, ...]) -> bool:
    return path[-1] == "kernel"


def to_reference(variables: Variables) -> dict[str, Float32Array]:
    """Gives variables the names and layouts of the reference.

    Args:
        variables: `params`, `constants` and, with a puzzle embedding, `tables`.

    Returns:
        Contiguous float32 arrays by name, with the prefix `model.inner.`.
    """
    tensors = {}
    for path, value in traverse_util.flatten_dict(dict(variables)).items():
        array = np.asarray(value).astype(np.float32)
        array = array.T if _is_linear(path) else array
        tensors[PREFIX + _reference_name(path)] = np.ascontiguousarray(array)
    return tensors


def from_reference(
    state_dict: Mapping[str, Any], config: RecurrentConfig, *, reset_puzzle_table: bool = False
) -> dict[str, Any]:
    """Reads variables from a state dict of the reference; `to_reference` inverted.

    Args:
        state_dict: Torch tensors or arrays of any floating dtype (bfloat16 is widened) by name,
            with or without the prefixes that `bare_names` takes off.
        config: Sizes that the tensors must fit.
        reset_puzzle_table: What to do with a puzzle table whose number of rows is not
            `config.num_puzzle_identifiers`, because the data set is another one: False refuses
            it; True gives every identifier the mean row of the table, as the reference does. A
            table with the right number of rows is always kept.

    Returns:
        `params`, `constants` and, with a puzzle embedding, `tables`; float32.

    Raises:
        ConfigError: Tensors are missing, unexpected, or of the wrong shape or dtype; the message
            lists all of them.
    """
    template = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    names = bare_names(state_dict)
    variables: dict[tuple[str, ...], jax.Array] = {}
    problems = []
    for path, leaf in traverse_util.flatten_dict(template).items():
        bare = _reference_name(path)
        expected = leaf.shape[::-1] if _is_linear(path) else leaf.shape
        if bare not in names:
            problems.append(f"missing: {PREFIX}{bare} {list(expected)}")
            continue
        name = names.pop(bare)
        array = _to_numpy(state_dict[name])
        if not jnp.issubdtype(array.dtype, jnp.floating):
            problems.append(f"wrong dtype: {name} is {array.dtype}, expected a floating dtype")
            continue
        array = array.astype(np.float32)
        if bare == PUZZLE_TABLE and reset_puzzle_table and array.shape[1:] == expected[1:]:
            array = _with_rows(array, expected[0])
        if array.shape != expected:
            problems.append(_wrong_shape(name, bare, expected, array.shape))
        variables[path] = jnp.asarray(array.T if _is_linear(path) else array)
    problems += [f"unexpected: {n} {list(np.shape(state_dict[n]))}" for n in names.values()]
    if problems:
        lines = "\n  ".join(sorted(problems))
        raise ConfigError(f"the state dict does not fit the configuration:\n  {lines}")
    return traverse_util.unflatten_dict(variables)


def _to_numpy(value: Any) -> npt.NDArray[Any]:
    if hasattr(value, "detach"):  # a torch tensor; NumPy has no bfloat16 to convert it to
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
        value = value.numpy()
    return np.asarray(value)


def _with_rows(table: Float32Array, rows: int) -> Float32Array:
    if len(table) in (0, rows):
        return table
    mean = table.mean(axis=0, dtype=np.float64).astype(np.float32)
    return np.repeat(mean[None], rows, axis=0)


def _wrong_shape(name: str, bare: str, expected: tuple[int, ...], found: tuple[int, ...]) -> str:
    message = f"wrong shape: {name}: expected {list(expected)}, found {list(found)}"
    if bare == PUZZLE_TABLE and found[1:] == expected[1:]:
        message += (
            f" (the weights know {found[0]} puzzle identifiers, the configuration {expected[0]}; "
            "reset_puzzle_table=True puts the mean row in the place of every row)"
        )
    return message

"""Parameters under the names and in the layouts that PyTorch modules would have, and back.

`layers_0.attention.q_proj.kernel` becomes `layers.0.attention.q_proj.weight`. Weights of Linear
layers are [out, in], ours [in, out]; everything else has the same layout. Scanned layers, which
have one array for all of them under `layers`, are written one by one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from hrm_jax.fields import ConfigError
from hrm_jax.interop.files import Tensors
from hrm_jax.models.transformer import stack_layers, unstack_layers

Shapes = Mapping[str, tuple[int, ...]]


def to_torch_names(params: Mapping[str, Any]) -> Tensors:
    """Gives parameters the names and layouts of PyTorch modules.

    Args:
        params: Nested parameters of a `Transformer`, or of a module with Transformers in it.

    Returns:
        Contiguous float32 arrays by name.
    """
    named = with_torch_names(params)
    return {k: np.asarray(v, np.float32, order="C") for k, v in named.items()}


def from_torch_names(tensors: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
    """Reads parameters from a state dict; `to_torch_names` inverted.

    Args:
        tensors: Torch tensors or arrays of any floating dtype by name.
        template: Nested parameters of the same shapes, or `jax.ShapeDtypeStruct`s in their place.

    Returns:
        Parameters like `template`, float32; scanned layers where it has such.

    Raises:
        ConfigError: Tensors are missing, unexpected, or of the wrong shape or dtype; the message
            lists all of them.
    """
    arrays = matching(tensors, shapes(jax.eval_shape(with_torch_names, template)))
    flat = {}
    for path in traverse_util.flatten_dict(jax.eval_shape(_one_by_one, template)):
        array = arrays[_torch_name(path)]
        flat[path] = jnp.asarray(array.T if _is_linear(path) else array)
    return _scanned_as(template, traverse_util.unflatten_dict(flat))


def with_torch_names(params: Mapping[str, Any]) -> dict[str, Any]:
    """`to_torch_names` with JAX's or NumPy's arrays as they are; can be traced."""
    flat = traverse_util.flatten_dict(_one_by_one(params))
    return {_torch_name(path): x.T if _is_linear(path) else x for path, x in flat.items()}


def shapes(arrays: Mapping[str, Any]) -> Shapes:
    """Shapes of arrays by name."""
    return {name: tuple(array.shape) for name, array in arrays.items()}


def matching(tensors: Mapping[str, Any], expected: Shapes) -> Tensors:
    """Float32 arrays with exactly the names and shapes expected.

    Args:
        tensors: Torch tensors or arrays of any floating dtype (bfloat16 too) by name.
        expected: Shapes by name.

    Raises:
        ConfigError: Tensors are missing, unexpected, or of the wrong shape or dtype; the message
            lists all of them.
    """
    found, problems = {}, []
    for name, shape in expected.items():
        if name not in tensors:
            problems.append(f"missing: {name} {list(shape)}")
            continue
        array = _to_numpy(tensors[name])
        if not jnp.issubdtype(array.dtype, jnp.floating):
            problems.append(f"wrong dtype: {name} is {array.dtype}, expected a floating dtype")
        elif array.shape != shape:
            problems.append(
                f"wrong shape: {name}: expected {list(shape)}, found {list(array.shape)}"
            )
        else:
            found[name] = array.astype(np.float32, copy=False)
    problems += [f"unexpected: {n} {list(tensors[n].shape)}" for n in tensors if n not in expected]
    if problems:
        lines = "\n  ".join(sorted(problems))
        raise ConfigError(f"the state dict does not fit the configuration:\n  {lines}")
    return found


def _to_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor; NumPy has no bfloat16 to convert it to
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    return np.asarray(value)


def _torch_name(path: tuple[str, ...]) -> str:
    *modules, leaf = path
    leaf = "weight" if leaf in ("kernel", "embedding", "scale") else leaf
    return re.sub(r"\blayers_(\d+)", r"layers.\1", ".".join([*modules, leaf]))


def _is_linear(path: tuple[str, ...]) -> bool:
    return path[-1] == "kernel"


def _one_by_one(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters without scanned layers, at any depth."""
    params = unstack_layers(params) if "layers" in params else params
    return {k: _one_by_one(v) if isinstance(v, Mapping) else v for k, v in params.items()}


def _scanned_as(template: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with scanned layers where `template` has them."""
    params = stack_layers(params) if "layers" in template else params
    return {
        k: _scanned_as(v, params[k]) if isinstance(v, Mapping) else params[k]
        for k, v in template.items()
    }

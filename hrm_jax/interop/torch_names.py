"""Parameters under the names and in the layouts that PyTorch modules would have, and back.

`layers_0.attention.q_proj.kernel` becomes `layers.0.attention.q_proj.weight`. Weights of Linear
layers are [out, in], ours [in, out]; those of Conv2d are [out, in, height, width], ours [height,
width, in, out]; everything else has the same layout. Scanned layers, which
have one array for all of them under `layers`, are written one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from hrm_jax.fields import ConfigError
from hrm_jax.interop.files import Tensors
from hrm_jax.models.transformer import stack_layers, unstack_layers

Leaves = Mapping[str, str]

LEAVES: Leaves = {"kernel": "weight", "embedding": "weight", "scale": "weight"}
"""What PyTorch calls the parameters of a layer; those that are not here have the same name."""

_FLOATS = ("float64", "float32", "float16", "bfloat16")

# DataParallel and averaged models, torch.compile, Lightning Fabric, FSDP, checkpointed activations.
_WRAPPERS = {
    *("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module"),
    "_checkpoint_wrapped_module",
}


def to_torch_names(params: Mapping[str, Any], leaves: Leaves = LEAVES) -> Tensors:
    """Gives nested parameters names and layouts of PyTorch: contiguous float32 arrays by name."""
    named = with_torch_names(params, leaves)
    return {k: np.asarray(v, np.float32, order="C") for k, v in named.items()}


def with_torch_names(params: Mapping[str, Any], leaves: Leaves = LEAVES) -> dict[str, Any]:
    """`to_torch_names` with JAX's or NumPy's arrays as they are; can be traced."""
    flat = traverse_util.flatten_dict(_one_by_one(params))
    return {torch_name(path, leaves): _turned(path, x, _TO_TORCH) for path, x in flat.items()}


def from_torch_names(
    tensors: Mapping[str, Any],
    template: Mapping[str, Any],
    leaves: Leaves = LEAVES,
    hints: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Reads parameters, float32, from a state dict; `to_torch_names` inverted.

    `template` are nested parameters of the same shapes, or `jax.ShapeDtypeStruct`s in their place;
    tensors that do not fit are refused as by `matching`.
    """
    named = jax.eval_shape(lambda params: with_torch_names(params, leaves), template)
    arrays = matching(tensors, {name: x.shape for name, x in named.items()}, hints)
    flat = {}
    for path in traverse_util.flatten_dict(jax.eval_shape(_one_by_one, template)):
        array = arrays[torch_name(path, leaves)]
        flat[path] = jnp.asarray(_turned(path, array, _FROM_TORCH))
    return _scanned_as(template, traverse_util.unflatten_dict(flat))


def matching(
    tensors: Mapping[str, Any],
    expected: Mapping[str, tuple[int, ...]],
    hints: Mapping[str, str] | None = None,
) -> Tensors:
    """Float32 arrays with exactly the names and shapes expected.

    They are of torch tensors or arrays of any floating dtype, bfloat16 too. A `ConfigError` lists
    all that are missing, unexpected, or of the wrong shape (with the hint by that name) or dtype.
    """
    arrays = {name: to_numpy(x) if name in expected else x for name, x in tensors.items()}
    require_matching(arrays, expected, hints)
    return {name: arrays[name].astype(np.float32, copy=False) for name in expected}


def require_matching(
    tensors: Mapping[str, Any],
    expected: Mapping[str, tuple[int, ...]],
    hints: Mapping[str, str] | None = None,
) -> None:
    """The errors of `matching`, of arrays or of what has their shape and dtype."""
    problems = []
    for name, shape in expected.items():
        if name not in tensors:
            problems.append(f"missing: {name} {list(shape)}")
            continue
        tensor = tensors[name]
        if str(tensor.dtype) not in _FLOATS:
            problems.append(f"wrong dtype: {name} is {tensor.dtype}, expected a floating dtype")
        elif tensor.shape != shape:
            wrong = f"{name}: expected {list(shape)}, found {list(tensor.shape)}"
            problems.append(f"wrong shape: {wrong}{(hints or {}).get(name, '')}")
    others = tensors.keys() - expected.keys()
    problems += [f"unexpected: {name} {list(tensors[name].shape)}" for name in others]
    if problems:
        lines = "\n  ".join(sorted(problems))
        raise ConfigError(f"the state dict does not fit the configuration:\n  {lines}")


def unwrapped(names: Iterable[str], anchor: str, kept: str = "") -> dict[str, str]:
    """Maps names without what a training has put around the model to the names as they are.

    That are wrappers' names, anywhere, and whatever stands before the parameter `anchor`, which
    every model has once (`net.` where a LightningModule has it so); but not the prefix `kept`. A
    `ConfigError` names two parameters that would be one, or the prefixes of several models.
    """
    bare: dict[str, str] = {}
    for name in names:
        short = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if short in bare:
            raise ConfigError(f"state dict: {bare[short]!r} and {name!r} are the same tensor")
        bare[short] = name
    found = [name for name in bare if f".{name}".endswith(f".{anchor}")]
    starts = sorted({name.removesuffix(anchor).removesuffix(kept) for name in found})
    if len(starts) > 1:
        raise ConfigError(
            f"state dict: several models in one, {anchor} under {', '.join(map(repr, starts))}; "
            "expected the tensors of one"
        )
    start = starts[0] if starts else ""
    return {short.removeprefix(start): name for short, name in bare.items()}


def to_numpy(value: Any) -> np.ndarray:
    """An array of a torch tensor or of what NumPy takes; torch's bfloat16 becomes float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    return np.asarray(value)


_TO_TORCH, _FROM_TORCH = (3, 2, 0, 1), (2, 3, 1, 0)  # axes of the kernel of a convolution


def _turned(path: tuple[str, ...], array: Any, convolution: tuple[int, ...]) -> Any:
    """A parameter in the other layout."""
    if path[-1] != "kernel":
        return array
    return array.transpose(convolution) if array.ndim == 4 else array.T


def torch_name(path: tuple[str, ...], leaves: Leaves = LEAVES) -> str:
    """The name of the parameter at a path of nested ones."""
    *modules, leaf = path
    return re.sub(r"\blayers_(\d+)", r"layers.\1", ".".join([*modules, leaves.get(leaf, leaf)]))


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

"""Tensors of a folder of weights, whole or in pieces, read one at a time."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors

from hrm_jax.data.errors import DataError, reading
from hrm_jax.files import read_json
from hrm_jax.interop.files import read_state_dict
from hrm_jax.interop.torch_names import to_numpy

WEIGHTS = ("model.safetensors", "pytorch_model.bin")

# Kinds of numbers in safetensors files that are taken, by their names there.
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_Whole = Callable[[pathlib.Path], Mapping[str, np.ndarray]]


class StoredTensor(NamedTuple):
    """A tensor that is not in memory yet."""

    shape: tuple[int, ...]
    dtype: str  # as NumPy or ml_dtypes call it, or as the file does
    read: Callable[[], np.ndarray]


def in_memory(tensors: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """Torch tensors or arrays of NumPy or JAX, looked at in the same way."""
    return {
        name: StoredTensor(
            tuple(x.shape), str(x.dtype).removeprefix("torch."), functools.partial(to_numpy, x)
        )
        for name, x in tensors.items()
    }


def stored_tensors(folder: pathlib.Path) -> dict[str, StoredTensor]:
    """The tensors of `model.safetensors` or `pytorch_model.bin`, or of the pieces that
    `<name>.index.json` lists.

    Of a safetensors file, only the header is read; its tensors are read when they are asked for,
    each by itself. Of PyTorch's files, the one that was read last is kept, whole.

    Raises:
        FileNotFoundError: There is none of these files.
        DataError: A file is damaged, or the index names files elsewhere or two of a tensor.
    """
    whole = functools.lru_cache(maxsize=1)(read_state_dict)
    for name in WEIGHTS:
        if (folder / name).exists():
            return _tensors_of(folder / name, whole)
        index = folder / f"{name}.index.json"
        if index.exists():
            return _of_pieces(index, whole)
    raise FileNotFoundError(f"{folder}: expected {' or '.join(WEIGHTS)}, whole or in pieces")


def _of_pieces(index: pathlib.Path, whole: _Whole) -> dict[str, StoredTensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise DataError(f"{index}: weight_map: expected names of files by names of tensors")
    tensors: dict[str, StoredTensor] = {}
    for name in sorted(set(places.values())):
        if pathlib.PurePath(name).name != name or name in ("", "..") or "\0" in name:
            raise DataError(f"{index}: weight_map: expected files beside it, got {name!r}")
        piece = _tensors_of(index.with_name(name), whole)
        if twice := piece.keys() & tensors.keys():
            raise DataError(f"{index}: {name} has {min(twice)!r}, as another piece has")
        tensors |= piece
    return tensors


def _tensors_of(path: pathlib.Path, whole: _Whole) -> dict[str, StoredTensor]:
    if path.suffix != ".safetensors":
        return {
            name: x._replace(read=functools.partial(_read_whole, whole, path, name))
            for name, x in in_memory(whole(path)).items()
        }
    with open(path, "rb"), reading(path), safetensors.safe_open(path, "numpy") as file:
        tensors = {}
        for name in file.keys():  # noqa: SIM118 (a file of theirs is no mapping)
            part = file.get_slice(name)
            dtype = _FLOATS.get(part.get_dtype(), part.get_dtype())
            read = functools.partial(_read_one, path, name)
            tensors[name] = StoredTensor(tuple(part.get_shape()), dtype, read)
        return tensors


def _read_whole(whole: _Whole, path: pathlib.Path, name: str) -> np.ndarray:
    return whole(path)[name]


def _read_one(path: pathlib.Path, name: str) -> np.ndarray:
    # Opened anew for each tensor: what a mapping has touched counts as memory until it is closed.
    with reading(path), safetensors.safe_open(path, "numpy") as file:
        return np.asarray(file.get_tensor(name))

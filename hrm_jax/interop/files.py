"""State dicts (tensors by name) in files: safetensors, PyTorch, NumPy, Keras and pickle.

Reading never executes anything a file brings along, not even a pickle (see `pickles`). PyTorch and
h5py (for Keras) are imported only where they are needed.

A Keras file is for `load_weights` of a `keras.Model` whose attribute `hrm` is a layer built like
the reference's `model.inner` (for a Transformer `transformer`): Dense, Embedding and normalization
layers under the same names, the blocks in a list `layers` and of a class `Block`, and `H_init` and
`L_init` as its own weights; `tests/interop/test_keras.py` builds both. Linear weights (not those of
layers `embed…`) are transposed to the [in, out] of Keras' Dense. Each dataset's attribute `name`
keeps the tensor's name, which Keras does not write, so that only our own files can be read back.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from hrm_jax.files import atomic_path
from hrm_jax.interop.pickles import read_pickle, write_pickle

Tensors = dict[str, npt.NDArray[Any]]
Path = str | os.PathLike[str]

# The first suffix is the usual one. The reference's checkpoints, such as `step_1234`, have none.
SUFFIXES: dict[str, tuple[str, ...]] = {
    "safetensors": (".safetensors",),
    "torch": (".pt", ".pth", ".bin", ""),
    "numpy": (".npz",),
    "keras": (".weights.h5",),
    "pickle": (".pkl",),
}
FORMATS = tuple(SUFFIXES)


def split_name(path: Path) -> tuple[str, str | None]:
    """The name of a file without its suffix, and the format that the suffix tells, if any."""
    path = pathlib.Path(path)
    for format, suffixes in SUFFIXES.items():
        for suffix in suffixes:
            if path.name.endswith(suffix) and (suffix or not path.suffix):
                return path.name.removesuffix(suffix), format
    return path.name, None


def read_state_dict(path: Path) -> Tensors:
    """Reads the tensors of a file, in its dtypes, except that bfloat16 becomes float32.

    The suffix tells the format (see `SUFFIXES`).

    Raises:
        ValueError: The suffix is unknown, the file is damaged, or it holds anything but tensors.
        ImportError: A package is missing; the message tells how to install it.
    """
    path = pathlib.Path(path)
    _, format = split_name(path)
    if format is None:
        known = ", ".join(repr(s) for suffixes in SUFFIXES.values() for s in suffixes)
        raise ValueError(f"{path}: unknown kind of file; expected a suffix among {known}")
    with open(path, "rb"):  # missing, a folder, unreadable: the same errors for all formats
        pass
    return _READERS[format](path)


def write_state_dict(path: Path, tensors: Mapping[str, npt.NDArray[Any]], format: str) -> None:
    """Writes tensors to a file, atomically; `read_state_dict` gives them back bit for bit.

    Raises:
        ValueError: `path` has no suffix of `format`, or the format has no such dtype.
        ImportError: A package is missing; the message tells how to install it.
    """
    path = pathlib.Path(path)
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if split_name(path)[1] != format:
        expected = path.stem + SUFFIXES[format][0]
        raise ValueError(f"{path}: not a name for the format {format}; expected {expected}")
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with atomic_path(path) as temporary:
        _WRITERS[format](temporary, tensors)


def _optional(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this file format needs {module}: pip install 'hrm_jax[{extra}]'"
        ) from error


def _read_safetensors(path: pathlib.Path) -> Tensors:
    try:
        tensors = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file: {error}") from error
    # ml_dtypes' bfloat16 is no dtype of NumPy's own
    return {k: v if v.dtype.kind in "biufc" else v.astype(np.float32) for k, v in tensors.items()}


def _read_torch(path: pathlib.Path) -> Tensors:
    torch = _optional("torch", "torch")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: refused, because it is no file of plain tensors; other pickles can run any "
            f"code when they are read. Save a state dict: torch.save(model.state_dict(), ...)"
        ) from error
    except (RuntimeError, EOFError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a PyTorch file, or damaged: {error}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected tensors by name, got {type(content).__name__}")
    other = [str(k) for k, v in content.items() if not isinstance(v, torch.Tensor)]
    if other:
        raise ValueError(f"{path}: expected tensors by name only; no tensor: {', '.join(other)}")
    return {
        str(k): (v.float() if v.dtype == torch.bfloat16 else v).detach().numpy()
        for k, v in content.items()
    }


def _write_torch(path: pathlib.Path, tensors: Tensors) -> None:
    torch = _optional("torch", "torch")
    with open(path, "wb") as file:  # given a name, torch.save writes it into the file
        torch.save({k: torch.from_numpy(v.copy()) for k, v in tensors.items()}, file)


def _read_numpy(path: pathlib.Path) -> Tensors:
    try:
        with np.load(path, allow_pickle=False) as content:
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            return {name: content[name] for name in content.files}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not an .npz file of plain arrays: {error}") from error


def _write_numpy(path: pathlib.Path, tensors: Tensors) -> None:
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **tensors)


def _is_linear(name: str, array: npt.NDArray[Any]) -> bool:
    embedding = re.search(r"\bembed\w*\.weight$", name)
    return name.endswith(".weight") and array.ndim == 2 and not embedding


def _keras_group(name: str) -> str:
    """The HDF5 group of a tensor's layer. Keras names items of a list by class and count."""
    layer = name.rpartition(".")[0].replace("model.inner", "hrm", 1)
    layer = re.sub(r"\blayers\.(\d+)", r"layers.block_\1", layer).replace(".block_0", ".block")
    return "/".join([*layer.split("."), "vars"])


def _read_keras(path: pathlib.Path) -> Tensors:
    h5py = _optional("h5py", "keras")
    tensors: Tensors = {}

    def visit(place: str, node: Any) -> None:
        if not isinstance(node, h5py.Dataset):
            return
        name = node.attrs.get("name")
        if not isinstance(name, str):
            raise ValueError(f"{path}: {place} has no attribute 'name': not written by hrm_jax")
        array = np.asarray(node[()])  # h5py gives scalars of NumPy for single numbers
        tensors[name] = np.ascontiguousarray(array.T) if _is_linear(name, array) else array

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: not an HDF5 file, or damaged: {error}") from error
    return tensors


def _write_keras(path: pathlib.Path, tensors: Tensors) -> None:
    h5py = _optional("h5py", "keras")
    names = sorted(tensors, key=lambda name: (name.endswith(".bias"), name))
    # A keras.Model has `layers` of its own, so that ours must be those of a layer.
    parent = "transformer." if any(name.startswith("layers.") for name in names) else ""
    with h5py.File(path, "w") as file:
        for name in names:
            group = file.require_group(_keras_group(parent + name))
            array = tensors[name]
            data = array.T if _is_linear(name, array) else array
            group.create_dataset(str(len(group)), data=data).attrs["name"] = name


_READERS: dict[str, Callable[[pathlib.Path], Tensors]] = {
    "safetensors": _read_safetensors,
    "torch": _read_torch,
    "numpy": _read_numpy,
    "keras": _read_keras,
    "pickle": read_pickle,
}
_WRITERS: dict[str, Callable[[pathlib.Path, Tensors], None]] = {
    "safetensors": lambda path, tensors: safetensors.numpy.save_file(tensors, path),
    "torch": _write_torch,
    "numpy": _write_numpy,
    "keras": _write_keras,
    "pickle": write_pickle,
}

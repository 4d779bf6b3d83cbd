"""State dicts (tensors by name) in files: safetensors, PyTorch, NumPy, Keras and pickle.

Reading never executes anything a file brings along, not even a pickle (see `pickles`), and where a
file has checksums (`.npz`, PyTorch's since 1.6) they are checked. PyTorch and h5py (for Keras) are
imported only where they are needed.

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
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from hrm_jax.data.errors import DataError, reading
from hrm_jax.files import atomic_path
from hrm_jax.interop.pickles import read_pickle, write_pickle
from hrm_jax.reading import Allowance

Tensors = dict[str, npt.NDArray[Any]]
Path = str | os.PathLike[str]

# The first suffix is the usual one. The reference's checkpoints, such as `step_1234`, have none.
SUFFIXES: dict[str, tuple[str, ...]] = {
    "safetensors": (".safetensors",),
    "torch": (".pt", ".pth", ".bin", ".ckpt", ""),
    "numpy": (".npz",),
    "keras": (".weights.h5",),
    "pickle": (".pkl",),
}
FORMATS = tuple(SUFFIXES)
_TITLES = {
    "safetensors": "a safetensors file",
    "torch": "a PyTorch file",
    "numpy": "an .npz file of plain arrays",
    "keras": "an HDF5 file",
    "pickle": "a pickle",
}


def split_name(path: Path) -> tuple[str, str | None]:
    """The name of a file without its suffix, and the format that the suffix tells, if any."""
    path = pathlib.Path(path)
    for format, suffixes in SUFFIXES.items():
        for suffix in suffixes:
            if path.name.endswith(suffix) and (suffix or not path.suffix):
                return path.name.removesuffix(suffix), format
    return path.name, None


def read_state_dict(path: Path, *, limit: int | None = None) -> Tensors:
    """Reads the tensors of a file, in its dtypes, except that bfloat16 becomes float32.

    The suffix tells the format (see `SUFFIXES`). Of a PyTorch file in which a state dict lies
    beside other things, it is that (see `only_state_dict`). The tensors may take `limit` bytes,
    by default as many as `Allowance` says.

    Raises:
        DataError: The file is damaged, holds anything but tensors, or more of them than its size
            lets one expect.
        ValueError: The suffix is unknown.
        ImportError: A package is missing; the message tells how to install it.
    """
    path = pathlib.Path(path)
    _, format = split_name(path)
    if format is None:
        known = ", ".join(repr(s) for suffixes in SUFFIXES.values() for s in suffixes)
        raise ValueError(f"{path}: unknown kind of file; expected a suffix among {known}")
    with open(path, "rb"):  # missing, a folder, unreadable: the same errors for all formats
        pass
    with reading(path):
        try:
            tensors = _READERS[format](path, Allowance(path, limit))
            if not tensors:
                raise ValueError("it holds no tensors")
            return tensors
        except (ImportError, MemoryError):
            raise
        except Exception as error:
            if str(path) in str(error):
                raise
            raise DataError(f"{path}: not {_TITLES[format]}, or damaged: {error}") from error


def only_state_dict(content: Any, where: str = "state dict") -> Mapping[str, Any]:
    """Tensors by name in what a training has saved: `content` itself, or a part of it.

    Such a part is, at any depth, a group of nothing but tensors that is not of an optimizer, like
    `model` in {model, optimizer, step} or `state_dict` in a checkpoint of Lightning. A `DataError`
    names the parts where there are several, and what is no tensor where there is none.
    """
    if not isinstance(content, Mapping):
        raise DataError(f"{where}: expected tensors by name, got {type(content).__name__}")
    other = [str(name) for name, value in content.items() if not _is_tensor(value)]
    if not other:
        return content
    found = dict(_state_dicts(content))
    if len(found) > 1:
        raise DataError(
            f"{where}: holds several state dicts, {', '.join(found)}; expected one: save the one "
            "that is meant, torch.save(content[...], ...)"
        )
    if not found or any(_is_tensor(x) and _is_learnt(x) for x in content.values()):
        raise DataError(f"{where}: expected tensors by name only; no tensor: {', '.join(other)}")
    return next(iter(found.values()))


def _state_dicts(content: Mapping[Any, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Groups of tensors of which some are learnt, by their places; none of an optimizer."""
    for name, value in content.items():
        if not isinstance(value, Mapping) or str(name).startswith("optim"):
            continue
        if not all(map(_is_tensor, value.values())):
            yield from _state_dicts(value, f"{place}{name}.")
        elif any(map(_is_learnt, value.values())):
            yield f"{place}{name}", value


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_learnt(tensor: Any) -> bool:
    """Whether it may be: neither a count or loss, nor the state of a random generator."""
    return len(tensor.shape) > 0 and "float" in str(tensor.dtype)


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


def _read_safetensors(path: pathlib.Path, allowance: Allowance) -> Tensors:
    tensors = safetensors.numpy.load_file(path)
    # ml_dtypes' bfloat16 is no dtype of NumPy's own
    return {k: v if v.dtype.kind in "biufc" else v.astype(np.float32) for k, v in tensors.items()}


def _checked_zip(path: pathlib.Path, allowance: Allowance) -> zipfile.ZipFile:
    """Opens a zip that has all members it says it has, no two under the same name."""
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    with open(path, "rb") as file:
        file.seek(-22 - len(archive.comment), os.SEEK_END)  # the record at the end
        said = int.from_bytes(file.read(12)[10:], "little")
    if said not in (len(members), 0xFFFF):
        raise ValueError(f"its directory lists {len(members)} of {said} members")
    allowance.take(sum(member.file_size for member in members))
    if len({member.filename for member in members}) < len(members):
        raise ValueError("two members have the same name")
    return archive


def _read_torch(path: pathlib.Path, allowance: Allowance) -> Tensors:
    torch = _optional("torch", "torch")
    with open(path, "rb") as file:
        packed = file.read(2) == b"PK"
    if packed:  # torch does not look at the checksums
        with _checked_zip(path, Allowance(path, allowance.limit)) as archive:
            if wrong := archive.testzip():
                raise ValueError(f"the checksum of {wrong} is not that of its bytes")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        held = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" (it holds {held[1]})" if held else ""
        raise DataError(
            f"{path}: refused, because it is no file of plain tensors{what}; other pickles can run "
            "any code when they are read. Save a state dict: torch.save(model.state_dict(), ...)"
        ) from error
    tensors = only_state_dict(content, os.fspath(path))
    allowance.take(sum(x.numel() * x.element_size() for x in tensors.values()))
    return {
        str(k): (v.float() if v.dtype == torch.bfloat16 else v).detach().numpy()
        for k, v in tensors.items()
    }


def _write_torch(path: pathlib.Path, tensors: Tensors) -> None:
    torch = _optional("torch", "torch")
    with open(path, "wb") as file:  # given a name, torch.save writes it into the file
        torch.save({k: torch.from_numpy(v.copy()) for k, v in tensors.items()}, file)


def _read_numpy(path: pathlib.Path, allowance: Allowance) -> Tensors:
    tensors: Tensors = {}
    with _checked_zip(path, allowance) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
                if file.read(1):  # the checksum is looked at where the bytes end
                    raise ValueError(f"{member} has more bytes than numbers")
            tensors[member.removesuffix(".npy")] = array
    return tensors


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


def _read_keras(path: pathlib.Path, allowance: Allowance) -> Tensors:
    h5py = _optional("h5py", "keras")
    tensors: Tensors = {}

    def visit(place: str, node: Any) -> None:
        if not isinstance(node, h5py.Dataset):
            return
        name = node.attrs.get("name")
        if not isinstance(name, str):
            raise DataError(f"{path}: {place} has no attribute 'name': not written by hrm_jax")
        if node.external or node.is_virtual:
            raise DataError(f"{path}: {place} takes its numbers from other files")
        allowance.take(node.nbytes)
        array = np.asarray(node[()])  # h5py gives scalars of NumPy for single numbers
        tensors[name] = np.ascontiguousarray(array.T) if _is_linear(name, array) else array

    with h5py.File(path, "r") as file:
        file.visititems(visit)
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


_READERS: dict[str, Callable[[pathlib.Path, Allowance], Tensors]] = {
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

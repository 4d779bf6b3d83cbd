"""Pickles of arrays by name, read without unpickling.

Python's unpickler imports and calls what a file names, and a filter on top of it can be passed by:
through `copyreg`'s cache of extensions, or by changing an object that the filter lets through. So
the few opcodes that arrays need are interpreted here. Nothing is imported, looked up or called;
names in the file are only compared with those that NumPy writes.
"""

from __future__ import annotations

import dataclasses
import mmap
import pathlib
import pickle
import pickletools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.reading import Allowance

_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}
_GLOBALS = {
    "_codecs.encode",  # bytes, in protocol 2
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",  # arrays, in protocol 5
}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}


class _Refused(ValueError):
    """The file asks for more than data."""


@dataclasses.dataclass(frozen=True)
class _Global:
    """A name that NumPy writes. It stands for itself only; `_reduce` knows what is meant."""

    name: str


@dataclasses.dataclass
class _Dtype:
    code: str
    order: str = "="


@dataclasses.dataclass
class _Array:
    value: npt.NDArray[Any] | None = None


def _global(module: Any, name: Any) -> _Global:
    full = f"{module}.{name}"
    known = full.replace("numpy._core.", "numpy.core.", 1)  # NumPy 2 and NumPy 1
    if known not in _GLOBALS:
        raise _Refused(full)
    return _Global(known)


def _array(raw: bytes | bytearray, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> _Array:
    view: npt.NDArray[Any] = np.ndarray(shape, np.dtype(dtype.order + dtype.code), raw, order=order)
    if view.nbytes != len(raw):
        raise ValueError(f"an array of {view.nbytes} bytes has {len(raw)}")
    return _Array(view.copy(order="C"))


def _reduce(function: Any, arguments: Any) -> Any:
    """What calling an allowed name gives."""
    match getattr(function, "name", None), arguments:
        case "numpy.dtype", (str(code), 0, 1):
            if code not in _DTYPES:
                raise _Refused(f"the dtype {code!r}")
            return _Dtype(code)
        case "numpy.core.multiarray._reconstruct", (_Global("numpy.ndarray"), (0,), b"b"):
            return _Array()
        case "numpy.core.multiarray.scalar", (_Dtype() as dtype, bytes(raw)):
            return _array(raw, dtype, (), "C")
        case (
            "numpy.core.numeric._frombuffer",
            (bytes() | bytearray() as raw, _Dtype() as dtype, tuple(shape), "C" | "F" as order),
        ):
            return _array(raw, dtype, shape, order)
        case "_codecs.encode", (str(text), "latin1"):
            return text.encode("latin1")
    name = getattr(function, "name", type(function).__name__)
    raise _Refused(f"a call of {name} as NumPy does not make it")


def _build(target: Any, state: Any) -> None:
    """Gives a fresh array or dtype what it consists of."""
    match target, state:
        case _Dtype(), (3, "<" | ">" | "|" | "=" as order, None, None, None, -1, -1, 0):
            target.order = order
        case _Array(None), (1, tuple(shape), _Dtype() as dtype, bool(fortran), bytes(raw)):
            target.value = _array(raw, dtype, shape, "F" if fortran else "C").value
        case _:
            raise _Refused(f"a state of {type(target).__name__.lower()} that NumPy does not write")


def _size(value: Any) -> int:
    """Bytes of what a call has made, perhaps once more of the same bytes of the file."""
    if isinstance(value, bytes):
        return len(value)
    made = value.value if isinstance(value, _Array) else None
    return 0 if made is None else made.nbytes


def _interpret(content: Any, allowance: Allowance) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def taken(count: int | None) -> list[Any]:
        """The last so many items, or those since the last mark, off the stack."""
        start = marks.pop() if count is None else len(stack) - count
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(content):
        match code := opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case _ if code in _CONSTANTS:
                stack.append(_CONSTANTS[code])
            case _ if code in _LITERALS:
                stack.append(argument)
            case _ if code in _EMPTY:
                stack.append(_EMPTY[code]())
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(taken(None if code == "TUPLE" else int(code[-1]))))
            case "APPEND" | "APPENDS":
                items = taken(1 if code == "APPEND" else None)
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = taken(2 if code == "SETITEM" else None)
                for key, value in zip(items[::2], items[1::2], strict=True):
                    if not isinstance(key, str):
                        raise _Refused(f"a dict with keys of type {type(key).__name__}")
                    stack[-1][key] = value
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(_global(stack.pop(), name))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_reduce(stack.pop(), arguments))
                allowance.take(_size(stack[-1]))
            case "BUILD":
                state = stack.pop()
                _build(stack[-1], state)
                allowance.take(_size(stack[-1]))
            case _:
                raise _Refused(f"{code} {argument if argument is not None else ''}".rstrip())


def read_pickle(path: pathlib.Path, allowance: Allowance) -> dict[str, npt.NDArray[Any]]:
    """Reads a pickle (protocol 2 to 5) of a dict of NumPy arrays by name; refuses all else."""
    try:
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            found = _interpret(content, allowance)
    except _Refused as error:
        raise DataError(
            f"{path}: refused, because it holds {error}; a pickle is read only if it holds nothing "
            "but numbers, strings, dicts, lists, tuples and NumPy arrays of numbers"
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected arrays by name, got {type(found).__name__.strip('_')}")
    arrays = {k: v.value for k, v in found.items() if isinstance(v, _Array) and v.value is not None}
    if other := [name for name in found if name not in arrays]:
        raise DataError(f"{path}: expected arrays by name only; no array: {', '.join(other)}")
    return arrays


def write_pickle(path: pathlib.Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes a dict of arrays, which Python's own `pickle.load` reads too, with NumPy alone."""
    for name, array in tensors.items():
        if array.dtype.str[1:] not in _DTYPES:
            raise ValueError(f"{name}: {array.dtype} cannot be pickled without further packages")
    with open(path, "wb") as file:
        pickle.dump(dict(tensors), file, protocol=4)

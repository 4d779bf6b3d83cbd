"""Writing files so that a reader never sees half of one, and reading what others wrote.

Whatever a file holds, who reads it within `reading` gets an error that names it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

_POINTER = b"version https://git-lfs.github.com/spec/"
_LEAST_LIMIT = 1 << 28
_LIMIT = "HRM_JAX_MAX_UNPACKED"
_RATIO = 100  # weights hardly pack at all, padded grids to a fiftieth, a bomb to a thousandth


class DataError(ValueError):
    """Data that cannot be used; the message names the file and line or field, and what it found."""


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], expected: str = "") -> Iterator[None]:
    """Around code that parses a file: whatever it raises becomes a `DataError` that names the file.

    Errors that name it already, missing packages and the system's errors with a file name pass.
    `expected` says in a few words what the file should have been. A file that Git LFS has left a
    pointer in the place of is refused before anything is read.
    """
    refuse_pointer(path)
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # parsers raise anything: RecursionError, LZMAError, TokenError, …
        named = isinstance(error, (ValueError, OSError)) and os.fspath(path) in str(error)
        if named or getattr(error, "filename", None) is not None:
            raise
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        wanted = f"; expected {expected}" if expected else ""
        raise DataError(f"{path}: damaged, or not what its name says ({what}){wanted}") from error


def refuse_pointer(path: str | os.PathLike[str]) -> None:
    """Raises `DataError` for a file that only says where Git LFS keeps the real one."""
    if os.path.isfile(path):  # of a pipe nothing must be taken
        with open(path, "rb") as file:
            pointer = file.read(len(_POINTER)) == _POINTER
        if pointer:
            raise DataError(
                f"{path}: a Git LFS pointer in the place of the file itself; run `git lfs pull` in "
                "its repository, or download the file"
            )


class Allowance:
    """The bytes that a packed file may unpack to, so that a small one cannot fill the memory.

    They are `limit`, or else what the environment variable HRM_JAX_MAX_UNPACKED says, but at least
    the file's size; or else 100 times that size, but at least 256 MiB.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int | None = None) -> None:
        self._path = path
        if limit is None:
            told = os.environ.get(_LIMIT, "")
            if told and not told.isdecimal():
                raise ValueError(f"{_LIMIT}: expected a number of bytes, got {told!r}")
            size = os.path.getsize(path)
            limit = max(int(told), size) if told else max(_LEAST_LIMIT, _RATIO * size)
        self.limit = self._left = limit

    def take(self, count: int) -> None:
        """Counts bytes that are unpacked, or are about to be; `DataError` once it is too many."""
        self._left -= count
        if self._left < 0:
            raise DataError(
                f"{self._path}: unpacks to more than {self.limit} bytes, which its size does not "
                f"let one expect; if it is meant to, set {_LIMIT} to the bytes allowed"
            )


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; what was written there becomes `path` on success.

    The data reach the disk before the name changes; on an exception nothing at `path` is touched.
    Its folder is made if missing. The temporary name keeps the suffix, which writers look at.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent
    )
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder beside `path` that takes the place of what is there on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        new, old = base / "new", base / "old"
        new.mkdir()
        yield new
        if path.is_dir():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.is_dir():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(base, ignore_errors=True)


def opened(path: str | os.PathLike[str], mode: str = "rb", **text: str) -> Any:
    """Opens a file that is packed if its name ends in `.gz`; a pointer of Git LFS is refused."""
    refuse_pointer(path)
    kind: Any = gzip.open if os.fspath(path).endswith(".gz") else open
    return kind(path, mode, **text)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON object; a `DataError` names file and line where it is none."""
    with reading(path, "a JSON object"):
        try:
            value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8: {error}") from error
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}: expected a JSON object, got {type(value).__name__}")
        return value

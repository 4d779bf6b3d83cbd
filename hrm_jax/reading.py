"""Reading what others wrote: whatever a file holds, the error is ours and names the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_POINTER = b"version https://git-lfs.github.com/spec/"
_LEAST_LIMIT = 1 << 28
LIMIT = "HRM_JAX_MAX_UNPACKED"
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


def unpacked_limit(usual: int) -> int:
    """Bytes that one file may unpack to: the environment's HRM_JAX_MAX_UNPACKED, or the usual."""
    told = os.environ.get(LIMIT, "")
    if not told:
        return usual
    if not told.isdecimal() or not int(told):
        raise DataError(f"{LIMIT}: expected a number of bytes, got {told!r}")
    return int(told)


class Allowance:
    """The bytes that a packed file may unpack to, so that a small one cannot fill the memory.

    They are `limit`, or else what the environment variable HRM_JAX_MAX_UNPACKED says, but at least
    the file's size; or else 100 times that size, but at least 256 MiB.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int | None = None) -> None:
        self._path = path
        if limit is None:
            size = os.path.getsize(path)
            limit = max(unpacked_limit(max(_LEAST_LIMIT, _RATIO * size)), size)
        self.limit = self._left = limit

    def take(self, count: int) -> None:
        """Counts bytes that are unpacked, or are about to be; `DataError` once it is too many."""
        self._left -= count
        if self._left < 0:
            raise DataError(
                f"{self._path}: unpacks to more than {self.limit} bytes, which its size does not "
                f"let one expect; if it is meant to, set {LIMIT} to the bytes allowed"
            )

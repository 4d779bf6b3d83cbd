"""The error that all readers raise for data they cannot use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


class DataError(ValueError):
    """Data that cannot be used; the message names the file and line or field, and what it found."""


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], expected: str = "") -> Iterator[None]:
    """Around code that parses a file: whatever it raises becomes a `DataError` that names the file.

    Errors that name it already, missing packages and the system's errors with a file name pass.
    `expected` says in a few words what the file should have been.
    """
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # parsers raise anything: RecursionError, LZMAError, TokenError, …
        if isinstance(error, (ValueError, OSError)) and os.fspath(path) in str(error):
            raise
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        wanted = f"; expected {expected}" if expected else ""
        raise DataError(f"{path}: damaged, or not what its name says ({what}){wanted}") from error

"""A data set folder that appears under its name only when it is complete."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from hrm_jax.data.errors import DataError
from hrm_jax.files import atomic_folder


@contextlib.contextmanager
def output_folder(
    path: str | os.PathLike[str], overwrite: bool, mark: str = "identity.json"
) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `path` that becomes `path` on success.

    Args:
        path: Final name. An empty folder may stand there.
        overwrite: Replace a folder that stands there, if it holds the file `mark`: what is not
            one of our data sets is never deleted.
        mark: File that all our data sets have; the caller writes it.

    Raises:
        DataError: Something is in the way; raised before the caller's work.
    """
    path = pathlib.Path(path).absolute()
    if path.exists() and not path.is_dir():
        raise DataError(f"{path}: is a file, expected a folder to make")
    occupied = path.is_dir() and any(path.iterdir())
    if occupied and not overwrite:
        raise DataError(f"{path}: folder is not empty; choose another or pass --overwrite")
    if occupied and not (path / mark).is_file():
        raise DataError(f"{path}: holds no {mark}, so it is no data set of ours to overwrite")
    with atomic_folder(path) as folder:
        yield folder

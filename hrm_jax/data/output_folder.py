"""A data set folder that appears under its name only when it is complete."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from hrm_jax.data.errors import DataError
from hrm_jax.files import atomic_folder


@contextlib.contextmanager
def output_folder(path: str | os.PathLike[str], overwrite: bool) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `path` that becomes `path` on success.

    To `overwrite`, what stands there must hold `identity.json`, which all data sets of ours do;
    before the caller's work, a `DataError` names what is in the way.
    """
    path = pathlib.Path(path).absolute()
    if path.exists() and not path.is_dir():
        raise DataError(f"{path}: is a file, expected a folder to make")
    occupied = path.is_dir() and any(path.iterdir())
    if occupied and not overwrite:
        raise DataError(f"{path}: folder is not empty; choose another or pass --overwrite")
    if occupied and not (path / "identity.json").is_file():
        raise DataError(
            f"{path}: holds no identity.json, so it is no data set of ours to overwrite"
        )
    with atomic_folder(path) as folder:
        yield folder

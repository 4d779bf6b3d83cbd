"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from hrm_jax.paths import path_of
from hrm_jax.reading import DataError, reading, refuse_pointer


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around code that writes a file: errors of the system, such as a full disk, name it."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; what was written there becomes `path` on success.

    The data reach the disk before the name changes; on an exception nothing at `path` is touched.
    Its folder is made if missing. The temporary name keeps the suffix, which writers look at.
    """
    path = path_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent
    )
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        with writing(path):
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
    return kind(path_of(path), mode, **text)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Writes `value` as indented JSON, lists of numbers on one line, atomically."""
    indented = json.dumps(value, indent=2)  # a string holds no end of line
    text = re.sub(r"\[\n\s+([^][{}\"]*?)\s+\]", _on_one_line, indented)
    write_text(path, text + "\n")


def _on_one_line(numbers: re.Match[str]) -> str:
    return f"[{' '.join(numbers[1].split())}]"


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

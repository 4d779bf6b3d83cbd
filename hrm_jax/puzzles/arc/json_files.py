"""The JSON files of a folder, of a tar or ZIP archive of one, or a single one."""

from __future__ import annotations

import bz2
import functools
import gzip
import json
import lzma
import pathlib
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hrm_jax.data.errors import DataError, reading
from hrm_jax.data.unpacked import Limited
from hrm_jax.reading import unpacked_limit

_LARGEST_FILE = 2**26  # bytes; Kaggle's largest file has a fifteenth of that
_LARGEST_ARCHIVE = 2**30  # bytes, unpacked
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_EXPECTED = "a folder, a tar archive or .zip of one, or ..._challenges.json"


class JsonFile(NamedTuple):
    """A JSON file: its name below the source, its name for messages, and how to read it."""

    name: pathlib.PurePosixPath
    where: str
    read: Callable[[], bytes]

    def parse(self) -> dict[str, Any]:
        """The object that it holds."""
        with reading(self.where, "a JSON object"):
            try:
                value = json.loads(self.read().decode("utf-8-sig"))
            except json.JSONDecodeError as error:
                line = f"line {error.lineno}: not valid JSON: {error.msg}"
                raise DataError(f"{self.where}: {line}") from error
            except (UnicodeDecodeError, RecursionError) as error:
                raise DataError(f"{self.where}: not valid JSON: {error}") from error
        if not isinstance(value, dict):
            found = type(value).__name__
            raise DataError(f"{self.where}: expected a JSON object, found {found}")
        return value


def json_files(root: pathlib.Path) -> list[JsonFile]:
    """All of a source but hidden ones, sorted by name; of an archive no path is opened."""
    if root.is_dir():
        files = [
            JsonFile(
                pathlib.PurePosixPath(x.relative_to(root)), str(x), functools.partial(_read, x)
            )
            for x in root.rglob("*.json")
            if x.is_file()
        ]
    elif root.suffix == ".json":
        files = [JsonFile(pathlib.PurePosixPath(root.name), str(root), lambda: _read(root))]
    else:
        with reading(root, _EXPECTED):
            with open(root, "rb") as file:
                magic = file.read(6)
            files = list(_zipped(root) if magic.startswith(b"PK") else _tarred(root, magic))
    return sorted(
        (file for file in files if not file.name.name.startswith(".")), key=lambda x: str(x.name)
    )


def _read(path: pathlib.Path) -> bytes:
    _check_size(str(path), path.stat().st_size)
    return path.read_bytes()


def _check_size(where: str, size: int) -> None:
    most = unpacked_limit(_LARGEST_FILE)
    if size > most:
        raise DataError(f"{where}: has {size} bytes, expected at most {most}")


def _tarred(root: pathlib.Path, magic: bytes) -> Iterator[JsonFile]:
    opened = next((x for start, x in _PACKED.items() if magic.startswith(start)), open)
    with (
        Limited(opened(root, "rb"), root, unpacked_limit(_LARGEST_ARCHIVE)) as stream,
        tarfile.open(fileobj=stream, mode="r:") as archive,
    ):
        for member in archive:
            name = pathlib.PurePosixPath(member.name)
            if member.isfile() and name.suffix == ".json":
                where = f"{root}, member {member.name}"
                _check_size(where, member.size)
                content = archive.extractfile(member)
                assert content is not None  # only of members that are no files
                yield JsonFile(name, where, functools.partial(bytes, content.read()))
        # tarfile takes a damaged header for the end; and what packs has a checksum at its end.
        stream.seek(archive.offset)
        end = stream.read(tarfile.BLOCKSIZE)
        if end != tarfile.NUL * tarfile.BLOCKSIZE:
            raise DataError(f"{root}: damaged or cut off, after byte {archive.offset}")
        while stream.read(1 << 20):
            pass


def _zipped(root: pathlib.Path) -> Iterator[JsonFile]:
    limit, total = unpacked_limit(_LARGEST_ARCHIVE), 0
    with zipfile.ZipFile(root) as archive, open(root, "rb") as file:
        for member in archive.infolist():
            name = pathlib.PurePosixPath(member.filename)
            if member.is_dir() or name.suffix != ".json":
                continue
            where = f"{root}, member {member.filename}"
            _check_size(where, member.file_size)
            total += member.file_size
            Limited(file, root, limit).check(total)
            yield JsonFile(name, where, functools.partial(bytes, archive.read(member)))

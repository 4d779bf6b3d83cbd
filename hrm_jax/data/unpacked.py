"""A limit on what packed files may hold, so that a small one cannot fill the memory."""

from __future__ import annotations

import io
import os
from typing import Any

from hrm_jax.reading import LIMIT, DataError


class Limited(io.BufferedIOBase):
    """A binary file of at most `limit` bytes; DataError, which names `path`, for more."""

    def __init__(self, file: Any, path: str | os.PathLike[str], limit: int) -> None:
        self._file, self._path, self._limit = file, path, limit

    @property
    def name(self) -> str:
        """The file's path."""
        return os.fspath(self._path)

    def check(self, size: int) -> None:
        """Refuses so many bytes."""
        if size > self._limit:
            raise DataError(
                f"{self._path}: unpacks to more than {self._limit} bytes; where that is right, set "
                f"{LIMIT} to as many as you expect"
            )

    def read(self, size: int | None = -1, /) -> bytes:
        left = self._limit - self._file.tell()
        data = self._file.read(left + 1 if size is None or size < 0 else min(size, left + 1))
        self.check(self._file.tell())
        return bytes(data)

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(io.DEFAULT_BUFFER_SIZE if size < 0 else size)

    def seek(self, place: int, whence: int = 0, /) -> int:
        if whence == 0:
            self.check(place)
        return int(self._file.seek(place, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

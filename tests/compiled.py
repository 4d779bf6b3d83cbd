"""The programs that tests compile, kept on disk for all workers of xdist and what they fork.

JAX's own way to share a folder, a limit of its size, locks it and looks at every file whenever one
is added: with the thousands of programs of these tests, that is half of their time.
"""

import contextlib
import os
import pathlib
import threading

from jax._src import lru_cache


def _put(self: lru_cache.LRUCache, key: str, value: bytes) -> None:
    """Adds a program whole or not at all: others read while this is written."""
    path = pathlib.Path(str(self.path), f"{key}{lru_cache._CACHE_SUFFIX}")
    part = path.with_name(f".{os.getpid()}.{threading.get_ident()}.part")
    with contextlib.suppress(FileNotFoundError):  # its folder has gone with the last test
        part.write_bytes(value)
        os.replace(part, path)


lru_cache.LRUCache.put = _put

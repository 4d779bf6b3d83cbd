"""Documents in memory: the bytes of all of them, and where each begins."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.data.text.tokenizers import utf8


@dataclasses.dataclass(frozen=True, eq=False)
class Documents:
    """D documents, as UTF-8: document i is tokens[boundaries[i]:boundaries[i + 1]]; read-only."""

    names: tuple[str, ...]  # where each is from: `file`, or `file:line` where that holds several
    tokens: npt.NDArray[np.uint8]  # bytes of all documents one after the other [N]
    boundaries: npt.NDArray[np.int64]  # [D + 1]

    @classmethod
    def of(cls, texts: Iterable[str | bytes], names: Sequence[str] = ()) -> Documents:
        """Makes documents of texts, or of bytes that are UTF-8 already; names are else `0`, `1`, …

        None at all, or an empty one, is a `DataError`.
        """
        data = bytearray()
        ends = [0]
        for text in texts:
            data += utf8(text) if isinstance(text, str) else text
            ends.append(len(data))
        names = tuple(names) or tuple(map(str, range(len(ends) - 1)))
        boundaries = np.array(ends, np.int64)
        if len(ends) == 1:
            raise DataError("there are no documents")
        if not np.diff(boundaries).all():
            raise DataError(f"{names[int(np.argmin(np.diff(boundaries)))]}: the document is empty")
        tokens = np.frombuffer(data, np.uint8)
        tokens.flags.writeable = False
        boundaries.flags.writeable = False
        return cls(names, tokens, boundaries)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> bytes:
        """The bytes of document `index`, counted from 0."""
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        return self.tokens[self.boundaries[index] : self.boundaries[index + 1]].tobytes()

    def text(self, index: int) -> str:
        """Returns document `index`."""
        return self[index].decode()

    def select(self, indices: Iterable[int]) -> Documents:
        """Returns some of the documents, in the order given."""
        chosen = list(indices)
        return Documents.of((self[i] for i in chosen), [self.names[i] for i in chosen])

    def digest(self) -> str:
        """Returns the SHA-256 of texts and boundaries; names do not count."""
        sha = hashlib.sha256(self.boundaries.astype("<i8").tobytes())
        sha.update(self.tokens.tobytes())
        return sha.hexdigest()

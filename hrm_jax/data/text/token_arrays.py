"""Text that is tokens already, in `.npy` files."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError, reading
from hrm_jax.data.text.documents import Documents
from hrm_jax.data.text.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class TokenDocuments:
    """D documents of S tokens each, without the special tokens between them."""

    rows: npt.NDArray[np.int32]  # [D, S]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> bytes:
        """What tells document `index` from others."""
        return self.rows[index].astype("<i4").tobytes()

    @property
    def tokens(self) -> npt.NDArray[np.int32]:
        """All tokens, [D · S]."""
        return self.rows.reshape(-1)

    def select(self, indices: Iterable[int]) -> TokenDocuments:
        """Some of the documents, in the order given."""
        chosen = list(indices)
        return TokenDocuments(self.rows[chosen], tuple(self.names[i] for i in chosen))

    def digest(self) -> str:
        """The SHA-256 of tokens and shape."""
        shape = np.array(self.rows.shape, "<i8").tobytes()
        return hashlib.sha256(shape + self.rows.astype("<i4").tobytes()).hexdigest()

    def decoded(self, tokenizer: Tokenizer) -> Documents:
        """The same as text."""
        return Documents.of((tokenizer.decode(row.tolist()) for row in self.rows), self.names)

    def divided(self, share: float) -> tuple[TokenDocuments, TokenDocuments]:
        """The beginning of one long document, and its end: that share of it, a token at least."""
        size = self.rows.shape[1]
        cut = min(max(1, size - round(share * size)), size - 1)
        if size < 2:
            raise DataError(f"{self.names[0]}: one token cannot be divided")
        return (
            TokenDocuments(self.rows[:, :cut], self.names),
            TokenDocuments(self.rows[:, cut:], self.names),
        )


def read_token_array(path: str, tokenizer: Tokenizer) -> TokenDocuments:
    """Reads integers [N], one document, or [D, S], one a row; they are tokens of that tokenizer.

    A `DataError` names the file, and what is wrong with shape, dtype or the values.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise DataError(f"{path}: there is no such file")
    with reading(path, "an array of tokens as numpy.save writes it"):
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind not in "iu":
        raise DataError(f"{path}: dtype is {array.dtype}, expected integers")
    if array.ndim not in (1, 2) or not array.size:
        raise DataError(f"{path}: shape is {array.shape}, expected [N] or [rows, N], not empty")
    rows = np.atleast_2d(array)
    least, most = int(rows.min()), int(rows.max())
    if least < 0 or most >= tokenizer.vocab_size:
        row, column = np.argwhere((rows < 0) | (rows >= tokenizer.vocab_size))[0]
        raise DataError(
            f"{path}: token {rows[row, column]} at [{row}, {column}], expected tokens in [0, "
            f"{tokenizer.vocab_size}); data.tokenizer says which tokenizer has made them"
        )
    names = (path,) if array.ndim == 1 else tuple(f"{path}:{i}" for i in range(len(rows)))
    return TokenDocuments(rows.astype(np.int32), names)

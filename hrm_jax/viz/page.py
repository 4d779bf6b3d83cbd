"""A web page to browse puzzles and to watch a model solve them: one file, no server, no network."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import importlib.resources
import json
import math
import os
import pathlib
import re
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.files import atomic_path

Kind = Literal["sudoku", "maze", "arc", "domino", "tokens"]
Array = npt.NDArray[Any]

MAX_EXAMPLES = 10_000
MAX_BYTES = 512 << 20  # of what the browser unpacks into memory

_SUDOKUS = {(16, 6), (36, 8), (81, 11)}  # (seq_len, vocab_size)


@dataclasses.dataclass(frozen=True)
class Steps:
    """The course of T ACT steps on N puzzles of S tokens.

    Attributes:
        boards: Answer after each step, tokens [N, T, S].
        confidence: Probability of each of these tokens, 255 for 1, uint8 [N, T, S].
        q_halt: Halting value after each step [N, T].
        stops: Step whose board is the answer [N], 1..T.
        solved: Whether the answer counts as right [N]; None where it must equal the labels.
    """

    boards: Array
    confidence: Array
    q_halt: Array
    stops: Array
    solved: Array | None = None


def guess_kind(seq_len: int, vocab_size: int) -> Kind:
    """What the tokens mean, guessed from the sizes; "tokens" where nothing is known to fit."""
    if (seq_len, vocab_size) in _SUDOKUS:
        return "sudoku"
    if (seq_len, vocab_size) == (72, 8):
        return "domino"
    square = math.isqrt(seq_len) ** 2 == seq_len
    if square and vocab_size == 6:
        return "maze"
    if square and vocab_size == 12:
        return "arc"
    return "tokens"


def write_page(
    path: str | os.PathLike[str],
    puzzles: PuzzleSet,
    steps: Steps | None = None,
    *,
    num: int | None = None,
    kind: Kind | None = None,
    title: str = "Puzzles",
    names: Sequence[str] = (),
) -> pathlib.Path:
    """Writes the page, atomically.

    Args:
        path: HTML file to write.
        puzzles: Questions and answers.
        steps: The model's course on the first N of them; None shows the puzzles alone.
        num: Show the first so many puzzles; None takes N, or all, up to `MAX_EXAMPLES`.
        kind: What the tokens mean; None guesses by `guess_kind`.
        title: Heading of the page.
        names: Names of the puzzle identifiers.

    Returns:
        `path`.

    Raises:
        ValueError: `steps` does not fit the puzzles, or there is too much to show.
        OSError: The file cannot be written.
    """
    text = render_page(payload(puzzles, steps, num=num, kind=kind, title=title, names=names))
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return pathlib.Path(path)


def payload(
    puzzles: PuzzleSet,
    steps: Steps | None = None,
    *,
    num: int | None = None,
    kind: Kind | None = None,
    title: str = "Puzzles",
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """What the page shows, as JSON values; arguments as of `write_page`."""
    meta = puzzles.metadata
    count = min(len(puzzles), MAX_EXAMPLES if num is None else num)
    if steps is not None:
        count = min(count, len(steps.boards))
        _check(steps, meta.seq_len)
    if not 1 <= count <= MAX_EXAMPLES:
        raise ValueError(f"expected 1 to {MAX_EXAMPLES} puzzles on a page, got {count}")
    identifiers = puzzles.example_identifiers()[:count]
    arrays = {"inputs": puzzles.inputs[:count], "labels": puzzles.labels[:count]}
    shown: list[str] = []
    if names and (identifiers < len(names)).all():
        used, arrays["names"] = np.unique(identifiers, return_inverse=True)
        shown = [names[i] for i in used]
    if puzzles.ratings is not None:
        arrays["ratings"] = puzzles.ratings[:count].astype(np.float32)
    if steps is not None:
        arrays["boards"] = steps.boards[:count]
        arrays["confidence"] = steps.confidence[:count].astype(np.uint8)
        arrays["q_halt"] = steps.q_halt[:count].astype(np.float32)
        arrays["stops"] = steps.stops[:count].astype(np.int32)
        if steps.solved is not None:
            arrays["solved"] = steps.solved[:count].astype(np.uint8)
    size = sum(array.nbytes for array in arrays.values())
    if size > MAX_BYTES:
        raise ValueError(
            f"{count} puzzles make {size >> 20} MiB, more than a browser shows well "
            f"({MAX_BYTES >> 20} MiB); take fewer puzzles or ACT steps"
        )
    return {
        "title": title,
        "kind": kind or guess_kind(meta.seq_len, meta.vocab_size),
        "seq_len": meta.seq_len,
        "vocab_size": meta.vocab_size,
        "ignore": meta.ignore_label_id,
        "total": len(puzzles),
        "count": count,
        "names": shown,
        "arrays": {name: _pack(array) for name, array in arrays.items()},
    }


def render_page(data: dict[str, Any] | None) -> str:
    """The page as text.

    Nothing in `data` can end the element it stands in, and the page's own policy forbids it the
    network and any script or style but the ones it came with.

    Args:
        data: Of `payload`; None makes an empty page that waits for a data set folder.
    """
    template = importlib.resources.files("hrm_jax.viz").joinpath("page.html")
    page = template.read_text(encoding="utf-8")
    values = {
        "policy": "; ".join(
            [
                "default-src 'none'",
                f"script-src '{_hash(page, 'script')}'",
                f"style-src '{_hash(page, 'style')}'",
                "base-uri 'none'",
                "form-action 'none'",
            ]
        ),
        "title": html.escape(data["title"] if data else "Puzzles"),
        "data": escaped_json(data),
    }
    return re.sub(r"\{\{(policy|title|data)\}\}", lambda match: values[match[1]], page)


def escaped_json(value: Any) -> str:
    """JSON without the characters that mean something to an HTML parser."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(page: str, element: str) -> str:
    """The source expression that allows the page's one inline script or style."""
    (body,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digest = hashlib.sha256(body.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _pack(array: Array) -> dict[str, Any]:
    """An array as {dtype, shape, data}: little-endian, deflated, base64."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    if little.dtype.str[1:] not in ("u1", "u2", "i4", "f4"):
        little = little.astype("<i4")
    packed = zlib.compress(little.tobytes(), 6)
    return {
        "dtype": little.dtype.str[1:],
        "shape": list(little.shape),
        "data": base64.b64encode(packed).decode(),
    }


def _check(steps: Steps, seq_len: int) -> None:
    boards = steps.boards
    if boards.ndim != 3 or boards.shape[2] != seq_len or not boards.shape[1]:
        raise ValueError(f"boards has shape {boards.shape}, expected (puzzles, steps, {seq_len})")
    expected = {
        "confidence": boards.shape,
        "q_halt": boards.shape[:2],
        "stops": boards.shape[:1],
    }
    if steps.solved is not None:
        expected["solved"] = boards.shape[:1]
    for name, shape in expected.items():
        found = getattr(steps, name).shape
        if found != shape:
            raise ValueError(f"{name} has shape {found}, expected {shape}")
    if steps.stops.size and not 1 <= steps.stops.min() <= steps.stops.max() <= boards.shape[1]:
        raise ValueError(f"stops: expected steps 1 to {boards.shape[1]}")

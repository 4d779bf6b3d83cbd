"""A web page to browse puzzles and to watch a model solve them: one file, no server, no network."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import importlib.resources
import json
import os
import pathlib
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.files import atomic_path
from hrm_jax.puzzles import PUZZLES, guess
from hrm_jax.trained.browse import Steps

Array = npt.NDArray[Any]

KINDS = (*PUZZLES, "tokens")  # the last one are puzzles that nothing is known of
MAX_EXAMPLES = 10_000
MAX_BYTES = 512 << 20  # of what the browser unpacks into memory

_TOKENS = {"kind": "tokens", "name": "Tokens", "layout": "grid", "lines": True}


def write_page(
    path: str | os.PathLike[str], puzzles: PuzzleSet, steps: Steps | None = None, **options: Any
) -> pathlib.Path:
    """Writes the page that shows what `payload` takes, atomically."""
    text = render_page(payload(puzzles, steps, **options))
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return pathlib.Path(path)


def payload(
    puzzles: PuzzleSet,
    steps: Steps | None = None,
    *,
    num: int | None = None,
    kind: str | None = None,
    title: str = "Puzzles",
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """What the page shows, as JSON values.

    It is the first `num` puzzles, with the model's `steps` on the first N of them; None takes N, or
    all, up to `MAX_EXAMPLES`. `kind` says what the tokens mean, one of `KINDS`; None guesses from
    the sizes. `names` are those of the puzzle identifiers.

    Raises:
        ValueError: `steps` or `kind` do not fit the puzzles, or there is too much to show.
    """
    meta = puzzles.metadata
    guessed = guess(meta.seq_len, meta.vocab_size)
    kind = kind or (guessed.name if guessed else "tokens")
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    count = min(len(puzzles), MAX_EXAMPLES if num is None else num)
    if steps is not None:
        count = min(count, len(steps.boards))
        if steps.boards.shape[2] != meta.seq_len:
            raise ValueError(f"boards has shape {steps.boards.shape}, expected (…, {meta.seq_len})")
    if not 1 <= count <= MAX_EXAMPLES:
        raise ValueError(f"expected 1 to {MAX_EXAMPLES} puzzles on a page, got {count}")
    arrays = {name: getattr(puzzles, name) for name in ("inputs", "labels", "ratings")}
    shown: list[str] = []
    identifiers = puzzles.example_identifiers()[:count]
    if names and (identifiers < len(names)).all():
        used, arrays["names"] = np.unique(identifiers, return_inverse=True)
        shown = [names[i] for i in used]
    if steps is not None:
        arrays |= {field.name: getattr(steps, field.name) for field in dataclasses.fields(steps)}
    sent = {name: array[:count] for name, array in arrays.items() if array is not None}
    size = sum(array.nbytes for array in sent.values())
    if size > MAX_BYTES:
        raise ValueError(
            f"{count} puzzles make {size >> 20} MiB, more than a browser shows well "
            f"({MAX_BYTES >> 20} MiB); take fewer puzzles or ACT steps"
        )
    return {
        "title": title,
        "look": _TOKENS if kind == "tokens" else _look(kind, meta.seq_len),
        "seq_len": meta.seq_len,
        "vocab_size": meta.vocab_size,
        "ignore": meta.ignore_label_id,
        "total": len(puzzles),
        "count": count,
        "names": shown,
        "arrays": {name: _pack(array) for name, array in sent.items()},
    }


def render_page(data: dict[str, Any] | None) -> str:
    """The page as text, of `payload`; None makes an empty page that waits for a data set folder.

    Nothing in `data` can end the element it stands in, and the page's own policy forbids it the
    network and any script or style but the ones it came with.
    """
    page = importlib.resources.files("hrm_jax.viz").joinpath("page.html").read_text("utf-8")
    policy = [
        "default-src 'none'",
        f"script-src '{_hash(page, 'script')}'",
        f"style-src '{_hash(page, 'style')}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    values = {
        "policy": "; ".join(policy),
        "title": html.escape(data["title"] if data else "Puzzles"),
        "data": _escaped_json({"looks": _looks(), "page": data}),
    }
    return re.sub(r"\{\{(policy|title|data)\}\}", lambda match: values[match[1]], page)


def _look(kind: str, seq_len: int | None) -> dict[str, Any]:
    """How the page shows boards of a puzzle; what the fields mean stands in the page's script."""
    return {"kind": kind, **PUZZLES[kind].painter.page(seq_len)}


def _looks() -> list[dict[str, Any]]:
    """All looks with the sizes they fit: those of one length first, that of any array last."""
    looks = [
        {"seq_len": seq_len, "vocab_size": vocab_size, **_look(kind, seq_len)}
        for kind, puzzle in PUZZLES.items()
        for seq_len, vocab_size in puzzle.painter.vocab_sizes.items()
    ]
    return [*sorted(looks, key=lambda look: look["seq_len"] is None), _TOKENS]


def _escaped_json(value: Any) -> str:
    """JSON without the characters that mean something to an HTML parser."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _hash(page: str, element: str) -> str:
    """The source expression that allows the page's one inline script or style."""
    (body,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digest = hashlib.sha256(body.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _pack(array: Array) -> dict[str, Any]:
    """An array as {dtype, shape, data}: little-endian, deflated, base64."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    if little.dtype.str[1:] not in ("u1", "u2", "i4", "f4"):
        little = little.astype("<f4" if little.dtype.kind == "f" else "<i4")
    packed = zlib.compress(little.tobytes(), 6)
    return {
        "dtype": little.dtype.str[1:],
        "shape": list(little.shape),
        "data": base64.b64encode(packed).decode(),
    }

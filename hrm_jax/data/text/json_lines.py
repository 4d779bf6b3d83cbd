"""JSON records in files, one a line, with the place of all that is wrong with them."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from hrm_jax.data.errors import DataError
from hrm_jax.data.text.reader import open_lines
from hrm_jax.files import opened

ACCEPT = "--config.data.accept_json=true"

_MARKS = {
    b"\xef\xbb\xbf": "UTF-8 with a byte order mark",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_COMMA = re.compile(r",\s*[}\]]")
_SPACE = re.compile(r"\s*")
_SHOWN = 40


class Row(NamedTuple):
    """A record, or why there is none."""

    line: int  # counted from 1
    record: dict[str, Any]
    error: str = ""


def json_rows(
    path: pathlib.Path, *, accept_json: bool = False, max_unpacked: int = 0
) -> Iterator[Row]:
    """The records of a file in UTF-8, packed if its name ends in `.gz`: a JSON object on each line
    that is not blank. Lines may end in CRLF.

    Of a line that holds no record the row says what is wrong. A file that is no such file at all is
    a `DataError`: one with a byte order mark, and one JSON document, or several, printed over many
    lines; with `accept_json` these are read, and arrays in them are taken for their items.
    """
    _refuse_mark(path)
    lines = [(number, line) for number, line in open_lines(path, max_unpacked) if line.strip()]
    rows = [Row(number, *_record(line)) for number, line in lines]
    if not any(row.error for row in rows):
        yield from rows
        return
    documents, wrong = _documents(b"".join(line for _, line in open_lines(path, max_unpacked)))
    if not documents and lines[0][1].strip() not in (b"{", b"["):
        yield from rows
        return
    array = lines[0][1].lstrip().startswith(b"[")
    if not accept_json:
        what = "a JSON array" if array else "JSON objects printed over several lines"
        raise DataError(
            f"{path}:{lines[0][0]}: {what}, expected JSONL, one object a line; {ACCEPT} reads it "
            "nevertheless"
        )
    if wrong:
        raise DataError(f"{path}:{wrong}")
    for number, value in documents:
        for item in value if isinstance(value, list) else [value]:
            yield Row(number, *_checked(item))


def _refuse_mark(path: pathlib.Path) -> None:
    try:
        with opened(path) as file:
            start = file.read(3)
    except (OSError, EOFError):
        return  # `open_lines` says it
    for mark, what in _MARKS.items():
        if start.startswith(mark):
            raise DataError(f"{path}:1: {what}, expected UTF-8 without a byte order mark")


def _record(line: bytes) -> tuple[dict[str, Any], str]:
    if b"\0" in line:
        return {}, f"a NUL byte at byte {line.index(0) + 1}, expected text"
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return {}, f"invalid UTF-8: {error.reason} at byte {error.start + 1}"
    try:
        return _checked(json.loads(text, object_pairs_hook=_without_repetition))
    except _Repeated as error:
        return {}, str(error)
    except json.JSONDecodeError as error:
        return {}, _no_json(text, error)
    except (ValueError, RecursionError) as error:  # integers too long, groups too deep
        return {}, f"not JSON: {type(error).__name__}: {error}"


def _no_json(text: str, error: json.JSONDecodeError) -> str:
    found = f"not JSON: {error.msg} at character {error.pos + 1}"
    if error.msg == "Extra data" and not text[error.pos :].strip(", \t\r\n"):
        return f"{found}: a comma behind the object, expected one object a line and nothing between"
    comma = _COMMA.search(text, max(0, error.pos - 2))
    if comma and comma.start() <= error.pos:
        return f"{found}: a comma before {comma[0][-1]!r}, which JSON does not have"
    return f"{found}; expected one JSON object a line, found {text.strip()[:_SHOWN]!r}"


def _checked(value: Any) -> tuple[dict[str, Any], str]:
    if isinstance(value, dict):
        return value, ""
    return {}, f"expected a JSON object, found {type(value).__name__}"


class _Repeated(ValueError):
    """A field stands twice in an object."""


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Repeated(f"the field {twice!r} stands twice")
    return found


def _documents(data: bytes) -> tuple[list[tuple[int, Any]], str]:
    """The JSON values that a file is made of, and the lines they begin on; none where each stands
    on a line of its own. Or the line and what is wrong there."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_repetition)
    found: list[tuple[int, Any]] = []
    at, several = 0, False
    try:
        text = data.decode()
        while (at := _SPACE.match(text, at).end()) < len(text):  # type: ignore[union-attr]
            value, end = decoder.raw_decode(text, at)
            several |= "\n" in text[at:end] or isinstance(value, list)
            found.append((text.count("\n", 0, at) + 1, value))
            at = end
    except json.JSONDecodeError as error:
        return [], f"{error.lineno}: {_no_json(text, error)}"
    except (ValueError, RecursionError) as error:
        return [], f"{data.count(10, 0, at) + 1}: not JSON: {error}"
    return found if several else [], ""

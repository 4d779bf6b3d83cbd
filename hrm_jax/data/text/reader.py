"""Documents from text files, JSONL files and folders of both, packed with gzip or not."""

from __future__ import annotations

import glob
import itertools
import json
import logging
import os
import pathlib
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from hrm_jax.data.errors import DataError
from hrm_jax.data.text.documents import Documents
from hrm_jax.data.text.tokenizers import utf8
from hrm_jax.files import opened

log = logging.getLogger("hrm_jax")

SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")

_SHOWN = 5  # places with invalid bytes that are named
_UNPACKED, _PACKED = 1 << 26, 200  # bytes that any packed file may have, and bytes of one

Line = tuple[int, bytes]  # its number, counted from 1, and what stands on it, with its end


def read_documents(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    json_field: str = "text",
    document: Literal["file", "line", "blank_line"] = "file",
    normalize: bool = False,
    strict: bool = False,
    max_unpacked: int = 0,
) -> Documents:
    """Reads documents, line by line; a `DataError` names file and line of what is wrong.

    Args:
        paths: Files (`.txt`, `.jsonl`, each also with `.gz`), folders (all such files in them at
            any depth, sorted, but nothing whose name begins with a dot), or patterns like
            `books/*.txt`; one or several.
        json_field: The text's field in the records of a `.jsonl`; each record is a document.
        document: What a document is in a `.txt`: the whole file, each line, or the lines between
            blank lines. Lines that hold nothing but blanks are no documents.
        normalize: Brings text into Unicode's form NFC.
        strict: Refuses bytes that are not UTF-8, instead of replacing them with a warning.
        max_unpacked: Most bytes of a packed file's text; see `open_lines` for 0.
    """
    if document not in ("file", "line", "blank_line"):
        raise ValueError(f"document is {document!r}, expected file, line or blank_line")
    names: list[str] = []
    texts: list[bytes] = []
    repair = _Repair(strict, normalize, max_unpacked)
    files = find_files([paths] if isinstance(paths, str | os.PathLike) else paths)
    for path in files:
        before = len(names)
        lines = repair.lines(path)
        records = path.name.endswith((".jsonl", ".jsonl.gz"))
        several = records or document != "file"
        if records:
            found = _records(path, lines, json_field, repair)
        else:
            found = {"file": _whole, "line": _each, "blank_line": _between_blanks}[document](lines)
        for number, text in found:
            names.append(f"{path}:{number}" if several else str(path))
            texts.append(text)
        if len(names) == before:
            raise DataError(f"{path}: there is no text in it")
    repair.report()
    return Documents.of(texts, names)


def find_files(
    paths: Sequence[str | os.PathLike[str]], suffixes: tuple[str, ...] = SUFFIXES
) -> list[pathlib.Path]:
    """Returns the files that paths mean, as those of `read_documents`, without repetitions; their
    names end in one of the `suffixes`."""
    expected = f"expected {', '.join(suffixes)}"
    if not paths:
        raise DataError("no text files are named")
    found: dict[pathlib.Path, None] = {}
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            inside = [
                p
                for p in sorted(path.rglob("*"))
                if p.name.endswith(suffixes)
                and p.is_file()
                and not any(part.startswith(".") for part in p.relative_to(path).parts)
            ]
            what = f"there are no text files in the folder; {expected}"
        elif path.exists():
            inside = [path]
        else:
            inside = sorted(map(pathlib.Path, glob.glob(str(path), recursive=True)))
            inside = [p for p in inside if p.is_file()]
            what = "no file fits the pattern" if glob.has_magic(str(path)) else "no such file"
        if not inside:
            raise DataError(f"{path}: {what}")
        for file in inside:
            if not file.name.endswith(suffixes):
                raise DataError(f"{file}: unknown kind of file; {expected}")
        found.update(dict.fromkeys(inside))
    return list(found)


def open_lines(path: pathlib.Path, max_unpacked: int = 0) -> Iterator[Line]:
    """Yields number and bytes of each line of a file, packed or not, without a byte order mark.

    A packed one may have `max_unpacked` bytes at most; 0 allows 200 times its own size, which no
    text of a language packs to, and 64 MiB at least.
    """
    number = 0
    try:
        left = 1 << 62
        if path.name.endswith(".gz"):
            left = max_unpacked or max(_UNPACKED, _PACKED * path.stat().st_size)
        with opened(path) as file:
            while line := file.readline(left + 1):
                number += 1
                left -= len(line)
                if left < 0:
                    raise DataError(
                        f"{path}:{number}: unpacks to more than is allowed; if it is to be read "
                        "nevertheless, data.max_unpacked says how many bytes it may have"
                    )
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read, after line {number}: {error}") from error


class _Repair:
    """Makes every line valid UTF-8, and keeps count."""

    def __init__(self, strict: bool, normalize: bool, max_unpacked: int) -> None:
        self._strict = strict
        self._max_unpacked = max_unpacked
        self._normalize = normalize
        self._bytes = 0
        self._lines = 0
        self._first: list[str] = []

    def lines(self, path: pathlib.Path) -> Iterator[Line]:
        for number, line in open_lines(path, self._max_unpacked):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                text = line.decode(errors="replace")
                bad = len(line) - len(line.decode(errors="ignore").encode())
                self.note(path, number, bad, f"{error.reason} at byte {error.start + 1}")
            else:
                if not self._normalize:
                    yield number, line
                    continue
            yield number, self.normal(text)

    def normal(self, text: str) -> bytes:
        return utf8(unicodedata.normalize("NFC", text) if self._normalize else text)

    def note(self, path: pathlib.Path, number: int, count: int, what: str) -> None:
        if self._strict:
            raise DataError(f"{path}:{number}: invalid UTF-8: {what}")
        self._bytes += count
        self._lines += 1
        if len(self._first) < _SHOWN:
            self._first.append(f"{path}:{number}")

    def report(self) -> None:
        if self._bytes:
            log.warning(
                "%d bytes on %d lines are not UTF-8 and were replaced by U+FFFD; the first at %s",
                self._bytes, self._lines, ", ".join(self._first),
            )  # fmt: skip


def _whole(lines: Iterable[Line]) -> Iterator[Line]:
    text = b"".join(line for _, line in lines)
    if text.strip():
        yield 1, text


def _each(lines: Iterable[Line]) -> Iterator[Line]:
    for number, line in lines:
        if line.strip():
            yield number, line.rstrip(b"\r\n")


def _between_blanks(lines: Iterable[Line]) -> Iterator[Line]:
    for blank, group in itertools.groupby(lines, lambda line: not line[1].strip()):
        if not blank:
            numbers, texts = zip(*group, strict=True)
            yield numbers[0], b"".join(texts).rstrip(b"\r\n")


def _records(
    path: pathlib.Path, lines: Iterable[Line], field: str, repair: _Repair
) -> Iterator[Line]:
    for number, record in json_records(path, lines):
        text = string_field(path, number, record, field)
        surrogates = sum("\ud800" <= c <= "\udfff" for c in text)
        if surrogates:
            repair.note(path, number, surrogates, f"{field} has a lone surrogate")
        if text.strip():
            yield number, repair.normal(text)


def json_records(path: pathlib.Path, lines: Iterable[Line]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields line number and record of each line that is not blank."""
    for number, line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{number}: expected one JSON object a line, found {line[:40]!r}: {error}"
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                f"{path}:{number}: expected a JSON object, found {type(record).__name__}"
            )
        yield number, record


def string_field(path: pathlib.Path, number: int, record: dict[str, Any], field: str) -> str:
    if field not in record:
        raise DataError(
            f"{path}:{number}: there is no field {field!r}; the fields are {', '.join(record)}"
        )
    if not isinstance(record[field], str):
        found = type(record[field]).__name__
        raise DataError(f"{path}:{number}: {field} is of type {found}, expected a string")
    return str(record[field])

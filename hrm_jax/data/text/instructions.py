"""Instructions and their answers: from files of records to a training and a held-out part."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from hrm_jax.data.errors import DataError
from hrm_jax.data.text.json_lines import json_rows
from hrm_jax.data.text.reader import find_files

log = logging.getLogger("hrm_jax")

SUFFIXES = (".jsonl", ".jsonl.gz")
DESCRIPTIVE = frozenset({
    *("id", "branch", "language", "lang", "task_type", "type", "quality_score", "created_at"),
    *("updated_at", "title", "source", "url", "license", "author", "split", "version"),
    *("category", "subcategory", "domain", "topic", "subject", "difficulty", "level"),
    *("academic_level", "keywords", "tags"),
})  # fmt: skip
"""Fields that say something about a record; they are not trained on."""

_LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "instruction": ("instruction", "input", "output"),
    "messages": ("messages",),
    "prompt": ("prompt", "completion"),
}
_EXPECTED = "instruction, output and perhaps input; or messages; or prompt and completion"
_ROLES = ("system", "user", "assistant")
_SHOWN = 5  # places that are named


class Message(NamedTuple):
    """One turn of a conversation; `input` is what an instruction is about, "" for nothing."""

    role: str
    content: str
    input: str = ""


Prompt = str | tuple[Message, ...]
"""A text that is taken as it is; or the turns before the answer, the last of the user."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A prompt, and the answer to learn."""

    prompt: Prompt
    answer: str
    where: str  # it is from, as `file:line`
    branch: str = ""  # its record says, "" where it says none

    @property
    def asked(self) -> bytes:
        """A SHA-256 of the prompt."""
        return _sha(self.prompt)

    @property
    def content(self) -> bytes:
        """A SHA-256 of prompt and answer."""
        return _sha([self.prompt, self.answer])


@dataclasses.dataclass(frozen=True)
class Instructions:
    """E different instructions from files, and what else was there."""

    records: tuple[Instruction, ...]
    rows: int  # of the files, valid or not
    invalid: tuple[str, ...] = ()  # what is wrong, and where

    def __len__(self) -> int:
        return len(self.records)

    def digest(self) -> str:
        """Returns the SHA-256 of prompts and answers; where they are from does not count."""
        return hashlib.sha256(b"".join(x.content for x in self.records)).hexdigest()


def read_instructions(
    paths: str | Sequence[str],
    *,
    branch: str = "",
    invalid: Literal["refuse", "drop", "keep"] = "refuse",
    accept_json: bool = False,
    max_unpacked: int = 0,
) -> Instructions:
    """Reads records, without those that other records repeat, whatever file these are in.

    A record is one of

        {"instruction": …, "input": …, "output": …}        `input` may be "" or left out
        {"messages": [{"role": …, "content": …}, …]}       the last is the assistant's: the answer
        {"prompt": …, "completion": …}                     two texts, which are taken as they are,
                                                           or two lists of messages

    and may have fields of `DESCRIPTIVE`; with any other field it is invalid. Texts that differ only
    in blanks at their ends, or in CRLF for LF, are the same (but for `prompt` and `completion`).

    Args:
        paths: Files `.jsonl` or `.jsonl.gz`, folders with such files, or patterns; several have
            commas between them.
        branch: What the field `branch` must be, where a record has it; "" for anything.
        invalid: Whether invalid rows are an error, are left out with a warning, or without.
        accept_json, max_unpacked: See `json_rows`; `accept_json` takes files `.json` too.

    Raises:
        DataError: It names file and line of what is wrong, and how many such rows there are.
    """
    if isinstance(paths, str):
        paths = [path.strip() for path in paths.split(",")]
    suffixes = (*SUFFIXES, ".json", ".json.gz") if accept_json else SUFFIXES
    found: dict[bytes, Instruction] = {}
    rows, wrong = 0, []
    for path in find_files(paths, suffixes):
        for line, record, error in json_rows(
            path, accept_json=accept_json, max_unpacked=max_unpacked
        ):
            rows += 1
            try:
                read = _instruction(record, f"{path}:{line}", error, branch)
            except DataError as reason:
                wrong.append(str(reason))
                continue
            found.setdefault(read.content, read)
    _tell(wrong, rows, invalid)
    if not found and invalid != "keep":
        raise DataError(f"{', '.join(map(str, paths))}: there are no records in it")
    return Instructions(tuple(found.values()), rows, tuple(wrong))


def _tell(wrong: Sequence[str], rows: int, invalid: str) -> None:
    if not wrong or invalid == "keep":
        return
    lines = [*wrong[:_SHOWN], *["…"] * (len(wrong) > _SHOWN)]
    told = "\n".join([*lines, f"{len(wrong)} of {rows} rows are invalid"])
    if invalid == "refuse":
        raise DataError(wrong[0] if len(wrong) == 1 else told)
    log.warning("%s; they are left out", told)


def split_instructions(
    found: Instructions, held_out: float, seed: int
) -> tuple[Instructions, Instructions]:
    """A training and a held-out part, at least one record each, in the order given.

    A share `held_out` of the different prompts is kept aside, chosen by a hash of the prompt and
    the seed: files and their order do not matter, and no prompt is in both, whatever its answers.
    """
    salt = f"{seed}:".encode()
    hashes = [hashlib.sha256(salt + x.asked).digest() for x in found.records]
    ranked = sorted(set(hashes))
    if len(ranked) < 2:
        raise DataError(
            f"{found.records[0].where}: one prompt cannot be divided into a training and a "
            "held-out part; give a held-out file"
        )
    chosen = set(ranked[: min(max(1, round(held_out * len(ranked))), len(ranked) - 1)])

    def part(out: bool) -> Instructions:
        pairs = zip(found.records, hashes, strict=True)
        records = tuple(x for x, of in pairs if (of in chosen) == out)
        return dataclasses.replace(found, records=records)

    return part(False), part(True)


def without_prompts(found: Instructions, others: Instructions) -> Instructions:
    """Records whose prompts are not among those of others."""
    known = {x.asked for x in others.records}
    records = tuple(x for x in found.records if x.asked not in known)
    return dataclasses.replace(found, records=records)


def _sha(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value).encode()).digest()


def _instruction(record: Mapping[str, Any], where: str, error: str, branch: str) -> Instruction:
    """`DataError` where it is invalid."""
    if error:
        raise DataError(f"{where}: {error}")
    layout = _layout(record, where)
    of = record.get("branch", "")
    if not isinstance(of, str):
        raise DataError(f"{where}: branch is of type {_kind(of)}, expected a string")
    if branch and of and of != branch:
        raise DataError(f"{where}: the record is of the branch {of!r}, expected {branch!r}")
    if layout == "instruction":
        turn = Message(
            "user",
            _text(record, "instruction", where),
            _text(record, "input", where, empty=True) if "input" in record else "",
        )
        return Instruction((turn,), _text(record, "output", where), where, of)
    if layout == "messages":
        turns = _messages(record["messages"], where, "messages")
    elif isinstance(record.get("prompt"), str):
        prompt, answer = (_text(record, x, where, strip=False) for x in _LAYOUTS["prompt"])
        return Instruction(prompt, answer, where, of)
    else:
        both = (_messages(record.get(name), where, name) for name in _LAYOUTS["prompt"])
        turns = [message for part in both for message in part]
    return Instruction(*_answered(turns, where), where, of)


def _layout(record: Mapping[str, Any], where: str) -> str:
    """Which of the layouts a record has."""
    has = [x for x, fields in _LAYOUTS.items() if any(name in record for name in fields)]
    if len(has) != 1:
        fields = ", ".join(record) or "none"
        raise DataError(f"{where}: the fields are {fields}; expected {_EXPECTED}")
    own = _LAYOUTS[has[0]]
    for name in own:
        if name not in record and name != "input":
            raise DataError(f"{where}: there is no field {name!r}; expected {_EXPECTED}")
    others = [name for name in record if name not in own and name not in DESCRIPTIVE]
    if others:
        raise DataError(
            f"{where}: unknown field {others[0]!r}; expected {', '.join(own)}, or one that only "
            f"describes: {', '.join(sorted(DESCRIPTIVE))}"
        )
    return has[0]


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _text(
    record: Mapping[str, Any],
    name: str,
    where: str,
    *,
    empty: bool = False,
    strip: bool = True,
    of: str = "",
) -> str:
    """A field's text."""
    value, field = record[name], of + name
    if not isinstance(value, str):
        raise DataError(f"{where}: {field} is of type {_kind(value)}, expected a string")
    if "\0" in value:
        raise DataError(f"{where}: {field} has a NUL character, expected text")
    if re.search("[\ud800-\udfff]", value):
        raise DataError(f"{where}: {field} has a lone surrogate, which is no character")
    if not empty and not value.strip():
        raise DataError(f"{where}: {field} is empty")
    return value.replace("\r\n", "\n").strip() if strip else value


def _messages(value: Any, where: str, field: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        found = "empty" if value == [] else f"of type {_kind(value)}"
        raise DataError(f"{where}: {field} is {found}, expected a list of messages")
    turns = []
    for number, message in enumerate(value):
        place = f"{field}[{number}]"
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            fields = ", ".join(message) if isinstance(message, dict) else _kind(message)
            raise DataError(f"{where}: {place}: expected role and content, found {fields}")
        if message["role"] not in _ROLES:
            expected = ", ".join(_ROLES)
            raise DataError(
                f"{where}: {place}.role: expected one of {expected}, found {message['role']!r}"
            )
        turns.append(Message(message["role"], _text(message, "content", where, of=f"{place}.")))
    return turns


def _answered(turns: list[Message], where: str) -> tuple[tuple[Message, ...], str]:
    """The turns before the answer, and that."""
    talk = turns[1:] if turns[0].role == "system" else turns
    expected = ["user", "assistant"] * ((len(talk) + 1) // 2)
    if not talk or [x.role for x in talk] != expected:
        roles = ", ".join(x.role for x in turns)
        raise DataError(
            f"{where}: messages are of {roles}; expected user and assistant in turn, the "
            "assistant last, and a system at most before them"
        )
    return tuple(turns[:-1]), talk[-1].content

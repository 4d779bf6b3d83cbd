"""Prompts and their targets: from TSV or JSONL files to training batches."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.data.pipeline import Batch, Draws, Indices
from hrm_jax.data.text.reader import json_records, open_lines, string_field
from hrm_jax.data.text.tokenizers import Tokenizer, around, encode_in_range, utf8

log = logging.getLogger("hrm_jax")

Tokens = npt.NDArray[np.int32]

_ESCAPE = re.compile(r"\\[tn\\]")
_MEANING = {r"\t": "\t", r"\n": "\n", "\\\\": "\\"}
_SHOWN = 5  # places that are named
_PROMPTS = ("prompt", "input", "question", "instruction", "query", "source", "src")
_TARGETS = ("target", "output", "answer", "response", "completion", "label", "tgt")


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Prompts, and what is to follow each."""

    prompts: tuple[str, ...]
    targets: tuple[str, ...]
    where: tuple[str, ...]  # each is from, as `file:line` for instance

    def __len__(self) -> int:
        return len(self.prompts)

    def digest(self) -> str:
        """Returns the SHA-256 of prompts and targets; where they are from does not count."""
        sha = hashlib.sha256()
        for text in (t for pair in zip(self.prompts, self.targets, strict=True) for t in pair):
            data = utf8(text)
            sha.update(len(data).to_bytes(8, "little") + data)
        return sha.hexdigest()


def read_pairs(
    path: str | os.PathLike[str],
    *,
    prompt_field: str = "prompt",
    target_field: str = "target",
    max_unpacked: int = 0,
) -> Pairs:
    r"""Reads pairs from a file in UTF-8, packed if its name ends in `.gz`.

    It is a `.jsonl` of records with both fields, or else has `prompt<TAB>target` on each line, in
    which `\t`, `\n` and `\\` stand for tab, newline and backslash and any other backslash for
    itself. Blank lines are left out. A first line that has both fields names columns, of which
    there may then be more; and one of two such names as `question` and `answer` is no pair. A
    packed file may have `max_unpacked` bytes, see `open_lines` for 0. A `DataError` names file and
    line of what is wrong.
    """
    path = pathlib.Path(path)
    packed = path.name.endswith((".jsonl", ".jsonl.gz"))
    read = _of_records if packed else _of_lines
    found = read(path, _text_lines(path, max_unpacked), prompt_field, target_field)
    prompts, targets, where = [], [], []
    for number, prompt, target in found:
        for name, text in (("prompt", prompt), ("target", target)):
            if not text.strip():
                raise DataError(f"{path}:{number}: the {name} is empty")
        prompts.append(prompt)
        targets.append(target)
        where.append(f"{path}:{number}")
    if not prompts:
        raise DataError(f"{path}: there are no pairs in it")
    return Pairs(tuple(prompts), tuple(targets), tuple(where))


def _text_lines(path: pathlib.Path, max_unpacked: int) -> Iterator[tuple[int, str]]:
    for number, line in open_lines(path, max_unpacked):
        try:
            yield number, line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{number}: invalid UTF-8: {error.reason} at byte {error.start + 1}"
            ) from error


def _of_lines(
    path: pathlib.Path, lines: Iterable[tuple[int, str]], prompt: str, target: str
) -> Iterator[tuple[int, str, str]]:
    width, first, second = 2, 0, 1
    wanted = prompt.lower(), target.lower()
    filled = ((number, line) for number, line in lines if line.strip())
    for place, (number, line) in enumerate(filled):
        cells = line.split("\t")
        names = [cell.strip().lower() for cell in cells]
        if not place and set(wanted) <= set(names):
            width, first, second = len(names), *map(names.index, wanted)
            continue
        if not place and len(names) == 2 and names[0] in _PROMPTS and names[1] in _TARGETS:
            log.info("%s:%d: %r names columns and is taken for no pair", path, number, line)
            continue
        if len(cells) != width:
            tabs = len(cells) - 1
            found = "there is no tab" if not tabs else f"there are {tabs} tabs"
            expected = "prompt<TAB>target with one" if width == 2 else f"{width - 1} as in line 1"
            raise DataError(
                f"{path}:{number}: {found} on the line, expected {expected}; "
                r"a tab inside a text is written \t"
            )
        both = (_ESCAPE.sub(lambda m: _MEANING[m[0]], cells[x]) for x in (first, second))
        yield number, next(both), next(both)


def _of_records(
    path: pathlib.Path, lines: Iterable[tuple[int, str]], prompt: str, target: str
) -> Iterator[tuple[int, str, str]]:
    for number, record in json_records(path, ((n, line.encode()) for n, line in lines)):
        yield (
            number,
            string_field(path, number, record, prompt),
            string_field(path, number, record, target),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedPairs:
    """E pairs as tokens, filled up with PAD."""

    prompt: Tokens  # [E, P], without what the tokenizer puts in front
    prompt_length: Tokens  # [E]
    target: Tokens  # [E, T], each ending in EOS
    target_length: Tokens  # [E], EOS among them

    def __len__(self) -> int:
        return len(self.prompt)

    def batch(self, rows: Indices) -> Batch:
        """Some of the pairs as the arrays `prompt`, `prompt_length`, `target`, `target_length`."""
        names = ("prompt", "prompt_length", "target", "target_length")
        return {name: getattr(self, name)[rows] for name in names}


def encode_pairs(
    pairs: Pairs,
    tokenizer: Tokenizer,
    prompt_length: int,
    target_length: int,
    too_long: Literal["refuse", "drop"] = "refuse",
) -> EncodedPairs:
    """Makes tokens of pairs: up to `prompt_length` (P), and `target_length` with the EOS (T).

    Longer ones are refused, or left out with a warning; where all are too long, they are refused.
    """
    if too_long not in ("refuse", "drop"):
        raise ValueError(f"too_long is {too_long!r}, expected refuse or drop")
    eos = tokenizer.eos_id
    if eos is None:
        raise ValueError("the tokenizer has no EOS token for targets to end with")
    prefix, suffix = around(tokenizer)
    pad = eos if tokenizer.pad_id is None else tokenizer.pad_id
    prompts, targets, dropped = [], [], []
    for prompt, target, where in zip(pairs.prompts, pairs.targets, pairs.where, strict=True):
        ids = [*encode_in_range(tokenizer, prompt, where), *suffix]
        goal = [*encode_in_range(tokenizer, target, where), eos]
        if not (ids or prefix):
            raise DataError(f"{where}: the tokenizer makes no tokens of the prompt")
        if len(ids) <= prompt_length and len(goal) <= target_length:
            prompts.append(ids)
            targets.append(goal)
        else:
            dropped.append(f"{where} ({len(ids)} + {len(goal)})")
    if dropped:
        message = (
            f"{len(dropped)} of {len(pairs)} pairs are longer than {prompt_length} tokens of "
            f"prompt + {target_length} of target: {', '.join(dropped[:_SHOWN])}"
        )
        if too_long == "refuse" or not prompts:
            raise DataError(f"{message}; allow longer ones, or drop them with too_long='drop'")
        log.warning("%s; they are left out", message)
    return EncodedPairs(
        *_filled_up(prompts, prompt_length, pad), *_filled_up(targets, target_length, pad)
    )


def _filled_up(rows: Sequence[Sequence[int]], length: int, pad: int) -> tuple[Tokens, Tokens]:
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.full((len(rows), length), pad, np.int32)
    tokens[np.arange(length) < lengths[:, None]] = np.concatenate(rows)
    return tokens, lengths


class PairBatches(Draws):
    """Pairs as the arrays of `EncodedPairs`; each epoch has every pair once."""

    def __init__(
        self,
        pairs: Pairs,
        tokenizer: Tokenizer,
        prompt_length: int,
        target_length: int,
        *draws: int,
        too_long: Literal["refuse", "drop"] = "refuse",
        **named: int,
    ) -> None:
        """Makes tokens of the pairs as `encode_pairs` does; the rest is that of `Draws`."""
        self.pairs = encode_pairs(pairs, tokenizer, prompt_length, target_length, too_long)
        super().__init__(len(self.pairs), *draws, **named)

    def batch(self, index: int, items: Indices, epochs: Indices) -> Batch:
        return self.pairs.batch(items)

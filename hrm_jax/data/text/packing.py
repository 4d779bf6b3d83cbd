"""Instructions as rows of tokens, several to a row."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hrm_jax.data.errors import DataError
from hrm_jax.data.pipeline import Batch, Draws, Indices
from hrm_jax.data.text.instructions import Instructions
from hrm_jax.data.text.templates import Template

log = logging.getLogger("hrm_jax")

TooLong = Literal["truncate", "drop", "refuse"]
Tokens = npt.NDArray[np.int32]

_SHOWN = 5  # places that are named


class Example(NamedTuple):
    """A prompt and its answer, which ends in the end token."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Examples that fit."""

    examples: tuple[Example, ...]
    truncated: int  # whose prompts were made shorter
    left_out: int  # that did not fit


def encode_instructions(
    found: Instructions, template: Template, length: int, too_long: TooLong = "truncate"
) -> Encoded:
    """Makes examples of up to `length` tokens.

    Of a longer one the prompt is shortened, never the answer (see `Template.shortened`), and it is
    left out where that is not enough; or it is left out, or refused. All that are changed or left
    out are told of. `DataError` where there is no example left.
    """
    examples, truncated, left_out = [], [], []
    for record in found.records:
        prompt, answer = template.prompt(record.prompt), template.answer(record.answer)
        if not prompt:
            raise DataError(f"{record.where}: the tokenizer makes no tokens of the prompt")
        if len(prompt) + len(answer) > length:
            place = f"{record.where} ({len(prompt)} + {len(answer)})"
            prompt = template.shortened(record.prompt, length - len(answer))
            if too_long != "truncate" or not prompt:
                left_out.append(place)
                continue
            truncated.append(place)
        examples.append(Example(prompt, answer))
    for places, what in ((left_out, "left out"), (truncated, "their prompts are shortened")):
        if not places:
            continue
        message = (
            f"{len(places)} of {len(found)} records have more than {length} tokens of prompt + "
            f"answer: {', '.join(places[:_SHOWN])}"
        )
        if too_long == "refuse" or not examples:
            raise DataError(f"{message}; expected a greater data.length, or data.too_long=drop")
        log.warning("%s; %s", message, what)
    return Encoded(tuple(examples), len(truncated), len(left_out))


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """R rows of S tokens."""

    tokens: Tokens  # [R, S]
    segments: Tokens  # [R, S], 1, 2, … of the examples in a row, 0 where it is filled up
    counted: npt.NDArray[np.bool_]  # [R, S], the tokens of answers

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: Indices) -> Batch:
        """Some of the rows."""
        names = ("tokens", "segments", "counted")
        return {name: getattr(self, name)[rows] for name in names}


def rows_of(examples: Sequence[Example], length: int, pad: int, pack: bool = True) -> Rows:
    """Lays examples into rows of `length` tokens, the longest first, each where the least room is
    left by it; or each into a row of its own.

    What counts follows from lengths alone, so that an end token counts where it is PAD too.
    """
    open_rows: list[list[list[Example]]] = [[] for _ in range(length + 1)]  # by room
    rows: list[list[Example]] = []
    order = sorted(examples, key=len, reverse=True) if pack else list(examples)
    for example in order:
        size = len(example)
        room = next((r for r in range(size, length + 1) if open_rows[r]), length)
        row = open_rows[room].pop() if open_rows[room] else []
        if not row:
            rows.append(row)
        row.append(example)
        if pack:
            open_rows[room - size].append(row)
    tokens = np.full((len(rows), length), pad, np.int32)
    segments = np.zeros((len(rows), length), np.int32)
    counted = np.zeros((len(rows), length), bool)
    for number, row in enumerate(rows):
        at = 0
        for segment, (prompt, answer) in enumerate(row, 1):
            split, end = at + len(prompt), at + len(prompt) + len(answer)
            tokens[number, at:end] = [*prompt, *answer]
            segments[number, at:end] = segment
            counted[number, split:end] = True
            at = end
    return Rows(tokens, segments, counted)


class InstructionBatches(Draws):
    """Rows as the arrays of `Rows`, and `steps` [B]: those of the whole run."""

    def __init__(self, rows: Rows, steps: int, *draws: int, **named: int) -> None:
        """The rest is that of `Draws`."""
        super().__init__(len(rows), *draws, **named)
        self._rows, self._steps = rows, steps

    def batch(self, index: int, items: Indices, epochs: Indices) -> Batch:
        return {**self._rows.batch(items), "steps": np.full(len(items), self._steps, np.int32)}

"""Reads the text of compiled programs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(
    r"\b(body|condition|to_apply|calls|true_computation|false_computation|branch_computations|"
    r"called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+[a-z\d]*)\[([\d,]*)\]")
_OP_NAME = re.compile(r'op_name="([^"]*)"')


def text_of(program: Any) -> str:
    """The text of a compiled program, if it is not that already."""
    return program if isinstance(program, str) else program.as_text()


def instructions(program: Any) -> Iterator[tuple[str, int, bool]]:
    """The lines of a compiled program that are run, in the order of its text.

    Args:
        program: What `jax.jit(f).lower(...).compile()` returns, or its `as_text()`.

    Yields:
        An instruction, how often a run of the program comes to it, and whether that is known.

    Raises:
        ValueError: The text is not that of a compiled program.
    """
    found = computations(program)
    for name, (times, exact) in runs(found).items():
        for line in found[name] if times else ():
            yield line, times, exact


def computations(program: Any) -> dict[str, list[str]]:
    """Lines of each computation by its name; those that are called stand before their callers.

    Args:
        program: As for `instructions`.

    Raises:
        ValueError: The text is not that of a compiled program.
    """
    text = text_of(program)
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            lines = found.setdefault(head[2], [])
        elif line == "}":
            lines = None
        elif lines is not None:
            lines.append(line)
    if not found or not text.startswith("HloModule"):
        raise ValueError("expected the text of a compiled program (HLO), got: " + text[:60])
    return found


def runs(computations: dict[str, list[str]]) -> dict[str, tuple[int, bool]]:
    """How often each computation runs in one run of the last, and whether that is known."""
    times = dict.fromkeys(computations, 0)
    exact = dict.fromkeys(computations, True)
    times[next(reversed(computations))] = 1
    for name in reversed(computations):
        for line in computations[name]:
            trips = _TRIPS.search(line)
            for how, names in called(line):
                turns, known = 1, True
                if how in ("body", "condition"):
                    turns = (int(trips[1]) if trips else 1) + (how == "condition")
                    known = trips is not None
                elif how.endswith("computation") or how == "branch_computations":
                    known = False
                for other in names:
                    if other in times:
                        times[other] += times[name] * turns
                        exact[other] &= exact[name] and known
    return {name: (times[name], exact[name]) for name in computations}


def called(line: str) -> list[tuple[str, list[str]]]:
    """The computations that an instruction names, and as what."""
    return [(how, re.findall(r"[\w.\-]+", names)) for how, names in _CALLED.findall(line)]


def arrays(shape: str) -> list[tuple[str, str]]:
    """Element type and axes of the arrays in a shape as XLA writes it: [("f32", "8,16"), …]."""
    return _ARRAY.findall(shape)


def source(line: str) -> str:
    """Where an instruction comes from in the traced program, as far as XLA says."""
    match = _OP_NAME.search(line)
    return match[1] if match else ""


def array_bytes(kind: str, axes: str) -> int:
    """Bytes of an array, of what `arrays` says of it."""
    bits = 8 if kind == "pred" else int(re.findall(r"\d+", kind)[0])
    return math.prod(int(n) for n in axes.split(",") if n) * bits // 8

"""Which collectives a compiled program runs, read from its text."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

Kind = Literal[
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast",
]  # fmt: skip

_KINDS = "|".join(get_args(Kind))
_COLLECTIVE = re.compile(rf"= (\(.*?\)|\S+) (?:ragged-)?({_KINDS})(-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+[a-z\d]*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(
    r"\b(body|condition|to_apply|calls|true_computation|false_computation|branch_computations|"
    r"called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_LISTED = re.compile(r"replica_groups=(?:\{\{([\d,]*)\}|\[(\d+),(\d+)\]<=)")
_BY_AXES = re.compile(r"replica_groups=mesh\[(.*?)\].*?\{(.*?)\}")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_DEVICES = re.compile(r"\b(?:num_partitions|replica_count)=(\d+)")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One instruction of a program.

    Attributes:
        kind: What it does.
        shapes: The arrays it gives on each device, as XLA writes them, for instance "f32[8,16]".
            They may be many, for XLA combines small collectives.
        result_bytes: Their size.
        group: Devices among which it runs.
        times: How often a run of the program comes to it.
        exact: Whether `times` is known. It is not in a loop whose number of turns XLA does not
            know, of which one is counted, and in a branch, which is counted as taken.
        source: Where it comes from in the traced program, as far as XLA says.
    """

    kind: Kind
    shapes: tuple[str, ...]
    result_bytes: int
    group: int
    times: int
    exact: bool
    source: str

    @property
    def moved_bytes(self) -> int:
        """Bytes that each device sends in one run of the program, if done around a ring.

        With n devices and r bytes of result: 2(n-1)/n r for an all-reduce, (n-1)/n r for an
        all-gather and an all-to-all, (n-1) r for a reduce-scatter, else r.
        """
        n = self.group
        share = {
            "all-reduce": 2 * (n - 1) / n,
            "all-gather": (n - 1) / n,
            "all-to-all": (n - 1) / n,
            "reduce-scatter": n - 1.0,
        }.get(self.kind, 1.0)
        return round(share * self.result_bytes) * self.times


def collectives(program: Any) -> list[Collective]:
    """The collectives of a compiled program, in the order of its text.

    Those among groups of a single device are left out.

    Args:
        program: What `jax.jit(f).lower(...).compile()` returns, or its `as_text()`.

    Raises:
        ValueError: The text is not that of a compiled program.
    """
    text = program if isinstance(program, str) else program.as_text()
    devices = math.prod(int(n) for n in _DEVICES.findall(text.split("\n", 1)[0]))
    found = []
    for line, times, exact in instructions(text):
        match = _COLLECTIVE.search(line)
        group = _group(line, devices) if match else 1
        if match is None or group == 1:
            continue
        arrays = _results(match[1], match[2], bool(match[3]))
        source = _OP_NAME.search(line)
        found.append(
            Collective(
                kind=match[2],  # type: ignore[arg-type]
                shapes=tuple(f"{kind}[{axes}]" for kind, axes in arrays),
                result_bytes=sum(_bytes(kind, axes) for kind, axes in arrays),
                group=group,
                times=times,
                exact=exact,
                source=source[1] if source else "",
            )
        )
    return found


def instructions(program: Any) -> Iterator[tuple[str, int, bool]]:
    """The lines of a compiled program that are run, in the order of its text.

    Args:
        program: As for `collectives`.

    Yields:
        An instruction, how often a run of the program comes to it, and whether that is known.

    Raises:
        ValueError: The text is not that of a compiled program.
    """
    text = program if isinstance(program, str) else program.as_text()
    computations = _computations(text)
    for name, (times, exact) in _runs(computations).items():
        for line in computations[name] if times else ():
            yield line, times, exact


def table(found: Iterable[Collective]) -> str:
    """The same collectives summed by kind and group, as lines of text."""
    sums: dict[tuple[str, int], list[int]] = {}
    exact: dict[tuple[str, int], bool] = collections.defaultdict(lambda: True)
    for one in found:
        key = (one.kind, one.group)
        row = sums.setdefault(key, [0, 0, 0])
        row[0] += one.times
        row[1] += one.times * one.result_bytes
        row[2] += one.moved_bytes
        exact[key] &= one.exact
    lines = [f"{'collective':22}{'devices':>8}{'times':>9}{'result bytes':>16}{'bytes moved':>16}"]
    for (kind, group), (times, size, moved) in sorted(sums.items()):
        count = f"{times:,}" if exact[kind, group] else f"≥ {times:,}"
        lines.append(f"{kind:22}{group:8}{count:>9}{size:16,}{moved:16,}")
    return "\n".join(lines)


def _computations(text: str) -> dict[str, list[str]]:
    """Lines of each computation by its name; those that are called stand before their callers."""
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


def _runs(computations: dict[str, list[str]]) -> dict[str, tuple[int, bool]]:
    """How often each computation runs in one run of the last, and whether that is known."""
    times = dict.fromkeys(computations, 0)
    exact = dict.fromkeys(computations, True)
    times[next(reversed(computations))] = 1
    for name in reversed(computations):
        for line in computations[name]:
            trips = _TRIPS.search(line)
            for how, names in _CALLED.findall(line):
                turns, known = 1, True
                if how in ("body", "condition"):
                    turns = (int(trips[1]) if trips else 1) + (how == "condition")
                    known = trips is not None
                elif how.endswith("computation") or how == "branch_computations":
                    known = False
                for called in re.findall(r"[\w.\-]+", names):
                    if called in times:
                        times[called] += times[name] * turns
                        exact[called] &= exact[name] and known
    return {name: (times[name], exact[name]) for name in computations}


def _results(shapes: str, kind: str, started: bool) -> Sequence[tuple[str, str]]:
    """The arrays that a collective gives; when started apart, operands stand beside them."""
    arrays: list[tuple[str, str]] = _ARRAY.findall(shapes)
    if not started or kind == "all-reduce":
        return arrays
    if shapes.startswith("(("):
        return _ARRAY.findall(shapes[shapes.index(")") :])
    return arrays[1:2]


def _group(line: str, devices: int) -> int:
    """Devices of a group: of those that are listed, of [groups, size], or of named axes."""
    axes = _BY_AXES.search(line)
    if axes:
        sizes = dict(re.findall(r"('\w+')=(\d+)", axes[1]))
        parts = re.findall(r"('\w+')(?::\(\d+\)(\d+))?", axes[2])
        return math.prod(int(part or sizes[name]) for name, part in parts)
    groups = _LISTED.search(line)
    if groups is None:  # one group of all, or a permutation, which names pairs
        return devices
    return int(groups[3]) if groups[3] else len(groups[1].split(","))


def _bytes(kind: str, axes: str) -> int:
    bits = 8 if kind == "pred" else int(re.findall(r"\d+", kind)[0])
    return math.prod(int(n) for n in axes.split(",") if n) * bits // 8

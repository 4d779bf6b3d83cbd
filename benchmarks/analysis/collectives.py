"""Which collectives a compiled program runs, read from its text."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

from analysis import hlo

Kind = Literal[
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast",
]  # fmt: skip

_KINDS = "|".join(get_args(Kind))
_COLLECTIVE = re.compile(rf"= (\(.*?\)|\S+) (?:ragged-)?({_KINDS})(-start)?\(")
_LISTED = re.compile(r"replica_groups=(?:\{\{([\d,]*)\}|\[(\d+),(\d+)\]<=)")
_BY_AXES = re.compile(r"replica_groups=mesh\[(.*?)\].*?\{(.*?)\}")
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
    text = hlo.text_of(program)
    devices = math.prod(int(n) for n in _DEVICES.findall(text.split("\n", 1)[0]))
    found = []
    for line, times, exact in hlo.instructions(text):
        match = _COLLECTIVE.search(line)
        group = _group(line, devices) if match else 1
        if match is None or group == 1:
            continue
        results = _results(match[1], match[2], bool(match[3]))
        found.append(
            Collective(
                kind=match[2],  # type: ignore[arg-type]
                shapes=tuple(f"{kind}[{axes}]" for kind, axes in results),
                result_bytes=sum(hlo.array_bytes(kind, axes) for kind, axes in results),
                group=group,
                times=times,
                exact=exact,
                source=hlo.source(line),
            )
        )
    return found


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


def _results(shapes: str, kind: str, started: bool) -> Sequence[tuple[str, str]]:
    """The arrays that a collective gives; when started apart, operands stand beside them."""
    arrays: list[tuple[str, str]] = hlo.arrays(shapes)
    if not started or kind == "all-reduce":
        return arrays
    if shapes.startswith("(("):
        return hlo.arrays(shapes[shapes.index(")") :])
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

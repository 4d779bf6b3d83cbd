"""What the kernels of a compiled program compute and move, read from its text."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from analysis import hlo

_DEFINED = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_TARGET = re.compile(r'custom_call_target="([^"]+)"')
_SUMMED = re.compile(r'lhs_contracting_dim(?:s=\{|ensions":\[")([\d,]*)')
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("while", "conditional", "call", "partition-id", "replica-id"),
}
_CONTROL = {"while", "conditional", "call", "async-start"}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One instruction that is started by itself.

    Attributes:
        name: XLA's, without its number.
        kind: "product" (of matrices, with what is fused into it), "fusion", the target of a custom
            call, or the operation.
        flops: Floating-point operations of its products of matrices. Those inside custom calls
            that are no products, such as kernels of our own, are not known.
        read_bytes, written_bytes: Of its operands, or of the parts of them that it takes, and of
            its results: what passes through memory if nothing stays in a cache.
        times: How often a run of the program starts it; one turn is counted of loops whose number
            of turns XLA does not know, and branches count as taken.
        source: Where it comes from in the traced program, as far as XLA says.
    """

    name: str
    kind: str
    flops: float
    read_bytes: int
    written_bytes: int
    times: int
    source: str

    @property
    def moved_bytes(self) -> int:
        """Bytes that it reads and writes each time."""
        return self.read_bytes + self.written_bytes


class _Line(NamedTuple):
    name: str
    shape: str
    operation: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest.split("), ", 1)[0])


def kernels(program: Any) -> list[Kernel]:
    """The kernels of a compiled program, in the order of its text.

    Args:
        program: What `jax.jit(f).lower(...).compile()` returns, or its `as_text()`.

    Raises:
        ValueError: The text is not that of a compiled program.
    """
    found = hlo.computations(program)
    parsed = {name: list(_parse(lines)) for name, lines in found.items()}
    runs = hlo.runs(found)
    return [
        kernel
        for name in _started(parsed)
        for kernel in _of_computation(parsed[name], parsed, runs[name][0])
    ]


def product_flops(program: Any) -> float:
    """Floating-point operations of all products of matrices in one run, on one device."""
    return sum(kernel.flops * kernel.times for kernel in kernels(program))


def _parse(lines: list[str]) -> Iterator[_Line]:
    for line in lines:
        match = _DEFINED.match(line)
        if match:
            yield _Line(*match.groups())


def _started(parsed: dict[str, list[_Line]]) -> list[str]:
    """Computations whose instructions are started one by one: not those of fusions and sums."""
    names, found = [next(reversed(parsed))], []
    while names:
        name = names.pop()
        if name in found or name not in parsed:
            continue
        found.append(name)
        for line in parsed[name]:
            if line.operation in _CONTROL:
                names += [other for _, others in hlo.called(line.rest) for other in others]
    return found


def _of_computation(
    lines: list[_Line], parsed: dict[str, list[_Line]], times: int
) -> Iterator[Kernel]:
    shapes = {line.name: line.shape for line in lines}
    for line in lines:
        if line.operation in _FREE:
            continue
        operands = [name for name in line.operands if name in shapes]
        sizes, written = [_size(shapes[name]) for name in operands], _size(line.shape)
        flops, kind = _flops(line, shapes, parsed), line.operation
        if line.operation == "custom-call":
            kind = _TARGET.findall(line.rest)[0]
        elif line.operation == "fusion":
            inside = parsed[hlo.called(line.rest)[0][1][0]]
            taken = _parts_read(inside)
            sizes = [taken.get(place, size) for place, size in enumerate(sizes)]
            written = _part_written(inside, written)
        yield Kernel(
            name=re.sub(r"[.\d]+$", "", line.name),
            kind="product" if flops else kind,
            flops=flops,
            read_bytes=sum(sizes),
            written_bytes=written,
            times=times,
            source=hlo.source(line.rest),
        )


def _size(shape: str) -> int:
    return sum(hlo.array_bytes(kind, axes) for kind, axes in hlo.arrays(shape))


def _axes(shape: str) -> list[int]:
    return [int(n) for n in hlo.arrays(shape)[0][1].split(",") if n]


def _flops(line: _Line, shapes: dict[str, str], parsed: dict[str, list[_Line]]) -> float:
    """Of a product, or of all products inside a fusion."""
    if line.operation == "fusion":
        inside = parsed.get(hlo.called(line.rest)[0][1][0], [])
        known = {one.name: one.shape for one in inside}
        return sum(_flops(one, known, parsed) for one in inside)
    summed = _SUMMED.search(line.rest)
    if summed is None or not line.operands:
        return 0.0
    left = _axes(shapes[line.operands[0]])
    terms = math.prod(left[int(axis)] for axis in summed[1].split(",") if axis)
    return 2.0 * math.prod(_axes(line.shape)) * terms


def _parts_read(lines: list[_Line]) -> dict[int, int]:
    """Bytes that a fusion reads of those operands (by place) of which it takes slices only."""
    users: dict[str, list[tuple[_Line, int]]] = {}
    for line in lines:
        for place, name in enumerate(line.operands):
            users.setdefault(name, []).append((line, place))

    def part(name: str) -> int | None:
        """Bytes taken of a value, or None where all of it is."""
        total = 0
        for user, place in users.get(name, []):
            if user.operation in ("bitcast", "convert"):
                inner = part(user.name)
                if inner is None:
                    return None
                total += inner
            elif place == 0 and user.operation in ("slice", "dynamic-slice", "gather"):
                total += _size(user.shape)
            elif not (place == 0 and user.operation == "dynamic-update-slice"):
                return None
        return total

    found = {}
    for line in lines:
        if line.operation == "parameter":
            size = part(line.name)
            if size is not None:
                found[int(line.rest.split(")")[0])] = min(size, _size(line.shape))
    return found


def _part_written(lines: list[_Line], size: int) -> int:
    """Bytes that a fusion writes: of its result, or of what it puts into its operand in place."""
    shapes = {line.name: line.shape for line in lines}
    root = lines[-1]
    if root.operation == "dynamic-update-slice":
        return _size(shapes[root.operands[1]])
    return size

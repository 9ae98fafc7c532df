"""Analysis of a compiled program: its collectives, and the memory of its arrays on each device."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# The TPU compiler emits a reduce-scatter as a computation of this name, which contains an all-reduce and a slice.
_SCATTERED_SUM = "all-reduce-scatter"
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(_KINDS)})(-start)?\(")
_SHAPE = re.compile(rf"({'|'.join(_BYTES)})\[([\d,]*)\]")
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?[=:]\{"?n"?[=:]"?(\d+)')
_LIMIT = re.compile(r"s32\[\]\S* constant\((\d+)\)")
_CALLED = re.compile(r"(?:to_apply|calls|called_computations|true_computation|false_computation)=\{?%?([\w.\-]+)")
_GROUPS = re.compile(r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]+)\}|mesh\[(.*?)\][^{]*\{(.*?)\})")
_AXIS = re.compile(r"'(\w+)'=(\d+)")


@dataclass(frozen=True)
class Collective:
    """All collectives of one kind in a step: the number of executions and the bytes that each device sends."""

    kind: str
    count: int
    sent_bytes: float


def collectives(text: str) -> list[Collective]:
    """Find the collectives of an optimized HLO module; those in loops count once per iteration.

    The bytes sent per device assume a ring of n devices: 2 s (n - 1) / n for an all-reduce of s bytes, and s (n - 1) / n for an
    all-gather to, or a reduce-scatter from, s bytes (Patarasuk and Yuan 2009).
    """
    bodies = dict(_computations(text))
    runs = _run_counts(bodies)
    found: dict[str, list[float]] = {}
    for name, lines in bodies.items():
        for line in lines:
            match = _COLLECTIVE.search(line)
            if match and runs.get(name):
                kind = match[2]
                shapes = [math.prod(int(n) for n in dims.split(",") if n) * _BYTES[dtype] for dtype, dims in _SHAPE.findall(match[1])]
                # A start operation returns a pair of operand and result.
                size = max(shapes, default=0) if match[3] and kind != "all-reduce" else sum(shapes)
                devices = _group_size(line)
                if kind == "all-reduce" and name.startswith(_SCATTERED_SUM):
                    kind, size = "reduce-scatter", size // devices
                total = found.setdefault(kind, [0, 0])
                total[0] += runs[name]
                total[1] += runs[name] * _sent(kind, size, devices)
    return [Collective(kind, int(count), sent) for kind, (count, sent) in sorted(found.items())]


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    name, lines = "", list[str]()
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            name, lines = ("ENTRY" if line.startswith("ENTRY") else header[1]), []
        elif line == "}":
            yield name, lines
        else:
            lines.append(line)


def _run_counts(bodies: dict[str, list[str]]) -> dict[str, int]:
    """Return how often each computation runs per execution of the entry computation."""
    runs: dict[str, int] = {}

    def visit(name: str, times: int) -> None:
        if name not in bodies:
            return
        runs[name] = runs.get(name, 0) + times
        for line in bodies[name]:
            loop = _WHILE.search(line)
            if loop:
                visit(loop[2], times * _trip_count(line, bodies.get(loop[1], [])))
            else:
                for called in _CALLED.findall(line):
                    visit(called, times)

    visit("ENTRY", 1)
    return runs


def _trip_count(loop: str, condition: list[str]) -> int:
    """Return the trip count of a loop: as annotated by the compiler, or else the limit of its counter."""
    annotated = _TRIPS.search(loop)
    limits = [int(annotated[1])] if annotated else [int(limit[1]) for line in condition for limit in _LIMIT.finditer(line)]
    return max(limits, default=1)


def _group_size(line: str) -> int:
    """Return the number of devices per replica group, given as an iota [groups, devices], a list of groups, or mesh axes."""
    found = _GROUPS.search(line)
    if not found:
        return 1
    iota, listed, mesh, axes = found.groups()
    if mesh:
        return math.prod(int(size) for name, size in _AXIS.findall(mesh) if f"'{name}'" in axes)
    return int(iota) if iota else len(listed.split(","))


def _sent(kind: str, size: int, devices: int) -> float:
    ring = (devices - 1) / devices
    # The result of a reduce-scatter is one device's shard of the operand.
    return {"all-reduce": 2 * ring * size, "reduce-scatter": ring * size * devices, "collective-permute": size}.get(kind, ring * size)


def bytes_per_device(tree: Any) -> int:
    """Return the bytes per device of a tree of sharded arrays or shapes."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

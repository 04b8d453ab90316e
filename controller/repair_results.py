"""What `forensic fsck --repair` adds to the result: the JSON of docs/reference/fsck-repair.md."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from appliance.check import Check
from appliance.layer import Finding, Layer
from appliance.repair import PathChange, Repair, Result
from controller.wire import Delta

BLOCK = 4096


class BlockRange(msgspec.Struct, frozen=True):
    """Bytes of a disk that a repair changed, and the smallest layer that they lie in as one
    piece."""

    offset: int
    length: int
    layer: str


class DeltaResult(msgspec.Struct, frozen=True):
    """What the repairs changed on a disk, in bytes; `range_count` is that of all ranges, of which
    `ranges` has the first. `metadata_bytes` is None: nobody counts it."""

    disk: str
    overlay_bytes: int
    changed_bytes: int
    changed_blocks: int
    range_count: int
    ranges: list[BlockRange]
    metadata_bytes: int | None = None


class NewFileResult(msgspec.Struct, frozen=True):
    """A file that was written: its size in bytes and its hash."""

    path: str
    format: str
    size: int
    sha256: str


@dataclass(slots=True)
class Repaired:
    """All that came of --repair; `checks` are the second ones, by the layer's address."""

    repairs: list[Repair] = field(default_factory=list)
    checks: dict[str, Check] = field(default_factory=dict)
    paths: list[PathChange] = field(default_factory=list)
    deltas: list[DeltaResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    overlay: NewFileResult | None = None
    output: NewFileResult | None = None

    @property
    def is_whole(self) -> bool:
        """Whether something was repaired, and everything that was to be."""
        results = {each.result for each in self.repairs}
        return results == {Result.CORRECTED}

    def corrected(self) -> set[str]:
        """The layers that are as they should be now."""
        return {each.layer for each in self.repairs if each.result is Result.CORRECTED}


def delta_of(delta: Delta, layers: list[Layer]) -> DeltaResult:
    """The same with the layers that the ranges lie in."""
    disk = f"disk{delta.disk}"
    places = _places(disk, layers)
    return DeltaResult(
        disk=disk,
        overlay_bytes=delta.allocated,
        changed_bytes=delta.changed,
        changed_blocks=-(-delta.changed // BLOCK),
        range_count=delta.count,
        ranges=[
            BlockRange(offset, length, _smallest(offset, length, places))
            for offset, length in delta.ranges
        ],
    )


def _places(disk: str, layers: list[Layer]) -> list[tuple[int, int, str]]:
    """(first byte, first byte behind it, address) of what lies on the disk as one piece; what is
    inside of something comes after it."""
    starts = {disk: 0}
    places = []
    for layer in layers:
        if layer.address == disk:
            places.append((0, layer.size, disk))
        elif layer.offset is not None and len(layer.parents) == 1 and layer.parents[0] in starts:
            start = starts[layer.address] = starts[layer.parents[0]] + layer.offset
            places.append((start, start + layer.size, layer.address))
    return places


def _smallest(offset: int, length: int, places: list[tuple[int, int, str]]) -> str:
    fitting = [each for each in places if each[0] <= offset and offset + length <= each[1]]
    # Of two that are equally large, the one inside of the other comes later.
    return min(reversed(fitting), key=lambda each: each[1] - each[0])[2] if fitting else ""

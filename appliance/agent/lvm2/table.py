"""Linear and striped volumes as tables of device-mapper, as LVM itself would load them.

No process is needed for them, any number of groups can have one name, and what lies on a physical
volume that is missing becomes a run of read errors instead of hiding the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from appliance.agent.dm import SECTOR, Row, mapped, mapped_rows
from appliance.agent.lvm2.group import LogicalVolume, Segment, VolumeGroup


@dataclass(frozen=True, slots=True)
class Place:
    """Where a physical volume is: a device (as a table names it), and its size in sectors."""

    device: str
    sectors: int


@dataclass(frozen=True, slots=True)
class Hole:
    """Where bytes of a logical volume cannot be read, and the physical volume that lacks them.

    `lost` counts them: with stripes they are some of those from `begin` to `end`.
    """

    begin: int
    end: int
    pv: str
    lost: int


ERRORS, ZEROS = "error", "zero"
"""Targets that stand in for what is missing."""


class Tables:
    """Tables of the volumes of one group; `places` has the physical volumes that are here."""

    def __init__(
        self, group: VolumeGroup, places: Mapping[str, Place], filler: str = ERRORS
    ) -> None:
        self._group = group
        self._places = places
        self._filler = filler

    def open(self, volume: LogicalVolume, stack: ExitStack, *, writable: bool = False) -> str:
        """Make a device of a volume that lies on physical volumes, read-only unless it is to be
        `writable`; return its node. Raises MappingError.
        """
        rows = self.rows(volume, stack)
        return stack.enter_context(mapped_rows(rows, read_only=not writable))

    def rows(self, volume: LogicalVolume, stack: ExitStack) -> list[Row]:
        """Its table; `stack` gets the devices that stand in for stripes that are missing."""
        return [row for segment in volume.segments for row in self._rows(segment, stack)]

    def _rows(self, segment: Segment, stack: ExitStack) -> Iterator[Row]:
        extent = self._group.extent_size
        start, length = segment.start * extent, segment.extents * extent
        if len(segment.areas) > 1:
            legs = [self._leg(segment, area, stack) for area in segment.areas]
            yield Row(start, length, "striped", f"{len(legs)} {segment.stripe} {' '.join(legs)}")
            return
        (area,) = segment.areas
        here = _sectors_here(self._group, area, segment.extents, self._places)
        if here:
            yield Row(start, here, "linear", self._place(area))
        if here < length:
            yield Row(start + here, length - here, self._filler, "")

    def _leg(self, segment: Segment, area: tuple[str, int], stack: ExitStack) -> str:
        """A stripe's device and offset; where it is not here, one of nothing but the filler."""
        extents = segment.extents // len(segment.areas)
        length = extents * self._group.extent_size
        if _sectors_here(self._group, area, extents, self._places) == length:
            return self._place(area)
        return f"{stack.enter_context(mapped(length * SECTOR, self._filler, ''))} 0"

    def _place(self, area: tuple[str, int]) -> str:
        name, first = area
        return f"{self._places[name].device} {_offset(self._group, name, first)}"


def holes(group: VolumeGroup, volume: LogicalVolume, places: Mapping[str, Place]) -> list[Hole]:
    """What of the volume is not here. Of stripes the whole segment counts."""
    found: list[Hole] = []
    for segment in volume.segments:
        extents = segment.extents // len(segment.areas)
        begin = segment.start * group.extent_size
        end = begin + segment.extents * group.extent_size
        for area in segment.areas:
            here = _sectors_here(group, area, extents, places)
            lost = extents * group.extent_size - here
            if lost:
                first = begin + (here if len(segment.areas) == 1 else 0)
                found.append(Hole(first * SECTOR, end * SECTOR, area[0], lost * SECTOR))
    return found


def _sectors_here(
    group: VolumeGroup, area: tuple[str, int], extents: int, places: Mapping[str, Place]
) -> int:
    """How many sectors of a run of extents the device has."""
    name, first = area
    place = places.get(name)
    if place is None:
        return 0
    behind = place.sectors - _offset(group, name, first)
    return min(extents * group.extent_size, max(0, behind))


def _offset(group: VolumeGroup, name: str, first: int) -> int:
    return group.pvs[name].start + first * group.extent_size

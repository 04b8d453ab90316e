"""What the logical volumes of a group are to each other, told from the metadata alone.

The words are those of lvs(8) (lv_layout, lv_role); where LVM itself is asked, its answer counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from appliance.agent.lvm2.group import LogicalVolume, Segment, VolumeGroup
from appliance.agent.lvm2.text import Section
from appliance.layer import VolumeFacts

_REDUNDANT = ("raid1", "raid4", "raid5", "raid6", "raid10", "mirror")
_LAYOUTS = {
    "thin": ["thin", "sparse"],
    "thin-pool": ["thin", "pool"],
    "cache-pool": ["cache", "pool"],
    "vdo-pool": ["vdo", "pool"],
}
_POOLS = {"thin-pool", "cache-pool", "vdo-pool"}
_UNOPENED = {"vdo", "vdo-pool"}
_MAX_DEPTH = 16
_MAX_WORDS = 16


@dataclass(frozen=True, slots=True)
class Loss:
    """The physical volumes that a logical volume lacks: for good, or made up for by copies."""

    fatal: frozenset[str]
    spared: frozenset[str]


class Layout:
    """Answers questions about one group, each in time that hostile metadata cannot drive up."""

    def __init__(self, group: VolumeGroup) -> None:
        self._group = group
        self._origins = {
            str(each.details.get("cow_store")): each
            for volume in group.lvs.values()
            for each in volume.segments
            if each.type == "snapshot"
        }
        self._copies: dict[str, list[str]] = {}
        for volume in group.lvs.values():
            for each in volume.segments:
                self._copies.setdefault(str(each.details.get("origin")), []).append(each.type)
        self._losses: dict[frozenset[str], dict[str, Loss]] = {}
        self._used = {
            part
            for volume in group.lvs.values()
            for each in volume.segments
            for part in each.parts
            if part not in group.pvs and not _is_copied(each, part)
        }

    def visible(self) -> list[LogicalVolume]:
        """The volumes that lvs shows without -a, by name as there; see lv_is_visible() in
        lib/metadata/lv.c."""
        found = [each for each in self._group.lvs.values() if self._is_visible(each, 0)]
        return sorted(found, key=lambda each: each.name)

    def _is_visible(self, volume: LogicalVolume, depth: int) -> bool:
        if self.is_a(volume, "snapshot"):
            return False
        if (snapshot := self._origins.get(volume.name)) and depth < _MAX_DEPTH:
            if snapshot.details.get("merging_store") or "MERGING" in volume.flags:
                return False
            origin = self._group.lvs.get(str(snapshot.details.get("origin")))
            if origin is None or "VIRTUAL_ORIGIN" in origin.flags:
                return True
            return self._is_visible(origin, depth + 1)
        return "VISIBLE" in volume.flags

    def is_direct(self, volume: LogicalVolume) -> bool:
        """Lies on physical volumes alone, and nothing else has a say in what it shows."""
        return volume.name not in self._used and all(
            each.type == "striped" and all(name in self._group.pvs for name, _ in each.areas)
            for each in volume.segments
        )

    def is_pool(self, volume: LogicalVolume) -> bool:
        """Holds other volumes' blocks and has no content of its own."""
        return any(self.is_a(volume, kind) for kind in _POOLS)

    def unopened(self) -> dict[str, str]:
        """Volumes of types that this guest cannot open, and the type of each."""
        found: dict[str, str] = {}
        for volume in self._group.lvs.values():
            types = {each.type for each in volume.segments} & _UNOPENED
            if types:
                found[volume.name] = min(types)
        return found

    def is_a(self, volume: LogicalVolume, kind: str) -> bool:
        """Whether it has a segment of that type."""
        return any(each.type == kind for each in volume.segments)

    def facts(self, volume: LogicalVolume) -> VolumeFacts:
        """What the metadata says of it."""
        first = volume.segments[0].details if volume.segments else {}
        snapshot = self._origins.get(volume.name)
        origin = _word(snapshot.details if snapshot else first, "origin")
        pool = _word(first, "thin_pool", "vdo_pool", "cache_pool")
        role = ["private" if self.is_pool(volume) else "public"]
        if snapshot:
            role += ["snapshot", "thicksnapshot"]
        elif self.is_a(volume, "thin") and origin:
            role += ["snapshot", "thinsnapshot"]
        role += self._origin_roles(volume)
        layout = _unique(word for each in volume.segments for word in _layout(each))
        return VolumeFacts(
            name=volume.name,
            uuid=volume.uuid,
            layout=layout[:_MAX_WORDS],
            role=role,
            origin=origin if origin in self._group.lvs else None,
            pool=pool if pool in self._group.lvs else None,
        )

    def _origin_roles(self, volume: LogicalVolume) -> list[str]:
        copies = self._copies.get(volume.name, [])
        thick, thin = copies.count("snapshot"), copies.count("thin")
        roles = ["origin"] if thick or thin else []
        roles += (["thickorigin"] if thick else []) + (["thinorigin"] if thin else [])
        return [*roles, *(["multithickorigin"] if thick > 1 else [])]

    def loss(self, volume: LogicalVolume, absent: frozenset[str]) -> Loss:
        """What of the `absent` physical volumes it would need."""
        return self._loss(volume, absent, self._losses.setdefault(absent, {}), 0)

    def _loss(
        self, volume: LogicalVolume, absent: frozenset[str], known: dict[str, Loss], depth: int
    ) -> Loss:
        if volume.name in known or depth > _MAX_DEPTH:
            return known.get(volume.name, Loss(frozenset(), frozenset()))
        known[volume.name] = Loss(frozenset(), frozenset())  # in case that it lies on itself
        fatal: set[str] = set()
        spared: set[str] = set()
        for segment in volume.segments:
            for part in segment.parts:
                if part in self._group.pvs:
                    lost = frozenset({part}) & absent
                else:
                    below = self._loss(self._group.lvs[part], absent, known, depth + 1)
                    lost = below.fatal
                    spared |= below.spared
                (spared if segment.type.startswith(_REDUNDANT) else fatal).update(lost)
        if snapshot := self._origins.get(volume.name):
            origin = self._group.lvs.get(str(snapshot.details.get("origin")))
            if origin is not None:
                fatal |= self._loss(origin, absent, known, depth + 1).fatal
        known[volume.name] = Loss(frozenset(fatal), frozenset(spared - fatal))
        return known[volume.name]


def _word(details: Section, *names: str) -> str:
    found = (details.get(name) for name in names)
    return next((each for each in found if isinstance(each, str)), "")


def _is_copied(segment: Segment, part: str) -> bool:
    """The origin of a snapshot is what it is without it, unless the snapshot is merged into it."""
    details = segment.details
    return (
        segment.type == "snapshot"
        and part == details.get("origin")
        and "merging_store" not in details
    )


def _layout(segment: Segment) -> list[str]:
    kind = segment.type
    if kind == "striped":
        return ["linear" if len(segment.areas) == 1 else "striped"]
    if kind.startswith("raid"):
        return _unique(["raid", kind.partition("_")[0], kind])
    return _LAYOUTS.get(kind, [kind or "unknown"])


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))

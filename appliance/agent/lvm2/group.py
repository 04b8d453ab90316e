"""A volume group as its metadata text describes it, checked.

Keys and flags: lib/format_text/export.c and flags.c of LVM2. All numbers are in LVM's units, which
are extents, and sectors of 512 bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from appliance.agent.lvm2.text import Scalar, Section, SyntaxProblem, Value, parse

SECTOR = 512
MAX_SEGMENTS = 16384
"""Segments of all volumes of a group that are accepted; a real group has hundreds."""

SAFE_NAME = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,126}")
_UUID = re.compile(r"[A-Za-z0-9!#]{6}(-[A-Za-z0-9!#]{4}){5}-[A-Za-z0-9!#]{6}")
_NO_REFERENCE = {"type", "tags", "discards", "cache_mode", "cache_policy", "mode", "internal_hash"}
"""Keys of a segment whose text is not the name of what it lies on."""

_MAX = 2**54
"""In sectors: below 2^63 bytes."""


class MetadataError(Exception):
    """The metadata text is none that LVM would have written."""


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """`start` is the first extent's sector, `size` what LVM took the device to have, in sectors."""

    name: str
    uuid: str
    start: int
    extents: int
    size: int
    flags: list[str]


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of a logical volume's extents; `areas` are (name of what it lies on, first extent).

    `stripe` is in sectors, 0 without stripes; `parts` names every volume that it needs.
    """

    start: int
    extents: int
    type: str
    areas: list[tuple[str, int]]
    stripe: int
    parts: list[str]
    details: Section


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A logical volume, also the hidden ones that others are made of."""

    name: str
    uuid: str
    flags: list[str]
    segments: list[Segment]

    @property
    def extents(self) -> int:
        """Its length."""
        return sum(each.extents for each in self.segments)


@dataclass(frozen=True, slots=True)
class VolumeGroup:
    """A group; `section` is the text that it was read from, parsed."""

    name: str
    uuid: str
    seqno: int
    extent_size: int
    flags: list[str]
    system_id: str
    lock_type: str
    pvs: dict[str, PhysicalVolume]
    lvs: dict[str, LogicalVolume]
    section: Section

    @property
    def extent_bytes(self) -> int:
        """The size of an extent in bytes."""
        return self.extent_size * SECTOR

    @property
    def extents(self) -> int:
        """Of all its physical volumes."""
        return sum(pv.extents for pv in self.pvs.values())

    @property
    def free(self) -> int:
        """Extents that no logical volume lies on."""
        used = sum(
            each.extents // (len(each.areas) if each.type == "striped" else 1)
            for volume in self.lvs.values()
            for each in volume.segments
            for name, _ in each.areas
            if name in self.pvs
        )
        return max(0, self.extents - used)


def read_group(text: bytes) -> VolumeGroup:
    """The group of a metadata text. Raises MetadataError."""
    try:
        top = parse(text)
    except SyntaxProblem as error:
        raise MetadataError(str(error)) from None
    sections = [(name, each) for name, each in top.items() if isinstance(each, dict)]
    if len(sections) != 1:
        raise MetadataError(f"{len(sections)} volume groups in one text")
    name, section = sections[0]
    if not SAFE_NAME.fullmatch(name):
        raise MetadataError("the volume group has a name that LVM does not allow")
    pvs = {key: _physical_volume(key, each) for key, each in _sections(section, "physical_volumes")}
    names = {*pvs, *dict(_sections(section, "logical_volumes"))}
    lvs = {
        key: _logical_volume(key, each, names)
        for key, each in _sections(section, "logical_volumes")
    }
    group = VolumeGroup(
        name=name,
        uuid=_uuid(section),
        seqno=_number(section, "seqno", 2**32),
        extent_size=_number(section, "extent_size", 2**32),
        flags=[*_words(section, "status"), *_words(section, "flags")],
        system_id=_word(section, "system_id"),
        lock_type=_word(section, "lock_type"),
        pvs=pvs,
        lvs=lvs,
        section=section,
    )
    _check(group)
    return group


def _check(group: VolumeGroup) -> None:
    if group.extent_size == 0:
        raise MetadataError("extents have no size")
    lengths = [group.extents, *(volume.extents for volume in group.lvs.values())]
    if any(length * group.extent_size >= _MAX for length in lengths):
        raise MetadataError("the volume group is larger than any device can be")
    if sum(len(volume.segments) for volume in group.lvs.values()) > MAX_SEGMENTS:
        raise MetadataError("the volume group has too many segments")
    uuids = [volume.uuid for volume in group.lvs.values()]
    if len(set(uuids)) < len(uuids):
        raise MetadataError("two logical volumes have one UUID")


def _physical_volume(name: str, section: Section) -> PhysicalVolume:
    if not SAFE_NAME.fullmatch(name):
        raise MetadataError("a physical volume has a name that LVM does not give")
    return PhysicalVolume(
        name=name,
        uuid=_uuid(section),
        start=_number(section, "pe_start", _MAX),
        extents=_number(section, "pe_count", 2**32),
        size=_number(section, "dev_size", 2**63, 0),
        flags=[*_words(section, "status"), *_words(section, "flags")],
    )


def _logical_volume(name: str, section: Section, names: set[str]) -> LogicalVolume:
    if not SAFE_NAME.fullmatch(name):
        raise MetadataError("a logical volume has a name that LVM does not allow")
    segments = sorted(
        (
            _segment(each, names)
            for key, each in section.items()
            if isinstance(each, dict) and re.fullmatch(r"segment\d+", key)
        ),
        key=lambda each: each.start,
    )
    end = 0
    for segment in segments:
        if segment.start != end:
            raise MetadataError(f"the segments of {name} overlap or leave a hole")
        end += segment.extents
    if not segments:
        raise MetadataError(f"{name} has no segments")
    return LogicalVolume(name, _uuid(section), _words(section, "status"), segments)


def _segment(section: Section, names: set[str]) -> Segment:
    kind = _word(section, "type").partition("+")[0]
    extents = _number(section, "extent_count", 2**32)
    if extents == 0:
        raise MetadataError("a segment has no length")
    values = section.get("stripes", section.get("mirrors", []))
    pairs = values if isinstance(values, list) else []
    areas = [
        (name, first)
        for name, first in zip(pairs[::2], pairs[1::2], strict=False)
        if isinstance(name, str) and isinstance(first, int) and 0 <= first < 2**32
    ]
    if kind == "striped" and (not areas or extents % len(areas) or len(areas) * 2 != len(pairs)):
        raise MetadataError("the stripes of a segment make no sense")
    if any(name not in names for name, _ in areas):
        raise MetadataError("a segment lies on something that is not in the group")
    return Segment(
        start=_number(section, "start_extent", 2**32),
        extents=extents,
        type=kind,
        areas=areas,
        stripe=_number(section, "stripe_size", 2**32, 0) if len(areas) > 1 else 0,
        parts=sorted({each for each in _strings(section) if each in names}),
        details=section,
    )


def _strings(section: Section) -> list[str]:
    values = [value for key, value in section.items() if key not in _NO_REFERENCE]
    return [each for value in values for each in _all(value) if isinstance(each, str)]


def _all(value: Value) -> list[Scalar]:
    if isinstance(value, dict):
        return []
    return value if isinstance(value, list) else [value]


def _sections(section: Section, name: str) -> list[tuple[str, Section]]:
    inner = section.get(name, {})
    if not isinstance(inner, dict):
        raise MetadataError(f"{name} is not a section")
    return [(key, each) for key, each in inner.items() if isinstance(each, dict)]


def _number(section: Section, name: str, limit: int, default: int | None = None) -> int:
    value = section.get(name, default)
    if not isinstance(value, int) or not 0 <= value < limit:
        raise MetadataError(f"{name} is missing or makes no sense")
    return value


def _word(section: Section, name: str) -> str:
    value = section.get(name, "")
    return value[:200] if isinstance(value, str) else ""


def _words(section: Section, name: str) -> list[str]:
    value = section.get(name, [])
    return (
        [each[:100] for each in value if isinstance(each, str)] if isinstance(value, list) else []
    )


def _uuid(section: Section) -> str:
    value = _word(section, "id")
    if not _UUID.fullmatch(value):
        raise MetadataError("a UUID is missing or makes no sense")
    return value

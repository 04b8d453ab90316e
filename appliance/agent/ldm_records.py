"""The records of a Windows dynamic disk's database: volumes, components, partitions, disks.

Sources: the Linux kernel's block/partitions/ldm.h and ldm.c, and libldm (src/ldm.c). A record is a
head of 8 bytes (its flags at 2, its type and revision at 3) and fields of which many have their
own length in front. All numbers are big endian.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_RECORDS = 16384
_HEAD = 8
_ID1, _ID2, _SIZE2, _HINT = 0x08, 0x20, 0x80, 0x02
_STRIPE, _INDEX = 0x10, 0x08


class LdmError(Exception):
    """The database contradicts itself, or lies outside of the disk."""


@dataclass(frozen=True, slots=True)
class LdmVolume:
    """A volume; `size` in sectors, `type` the partition type that it would have in an MBR."""

    id: int
    name: str
    guid: str
    size: int
    type: int
    hint: str


@dataclass(frozen=True, slots=True)
class Component:
    """A copy of a volume: `type` 1 striped, 2 one behind the other, 3 RAID 5; chunk in sectors."""

    id: int
    volume: int
    type: int
    state: str
    parts: int
    chunk: int


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of sectors of a disk, counted from where its data begins, as a part of a component."""

    component: int
    disk: int
    index: int
    start: int
    volume_offset: int
    size: int


@dataclass(frozen=True, slots=True)
class LdmDisk:
    """A disk of the group."""

    id: int
    name: str
    guid: str


@dataclass(slots=True)
class Records:
    """What a database holds."""

    volumes: list[LdmVolume] = field(default_factory=list)
    components: list[Component] = field(default_factory=list)
    extents: list[Extent] = field(default_factory=list)
    disks: list[LdmDisk] = field(default_factory=list)
    group_name: str = ""

    def add(self, record: bytes) -> None:
        """Parse one record. Raises LdmError."""
        if len(record) < _HEAD:
            raise LdmError("a record is cut off")
        flags, kind = record[2], record[3]
        reader = _Reader(record, _HEAD)
        parsers: dict[int, Callable[[_Reader, int], None]] = {
            0x51: self._volume, 0x32: self._component, 0x33: self._extent, 0x34: self._disk3,
            0x44: self._disk4, 0x35: self._group, 0x45: self._group,
        }  # fmt: skip
        if kind in parsers:
            parsers[kind](reader, flags)
        elif kind & 0x0F:
            raise LdmError(f"a record has the unknown type 0x{kind:02x}")

    def _volume(self, reader: _Reader, flags: int) -> None:
        number, name = reader.number(), reader.text()
        reader.text()  # "gen" or "raid5", which the components say as well
        reader.text()
        reader.skip(14 + 1 + 1 + 1 + 3 + 1)  # state, type, unknown, number, zeros, flags
        reader.number()
        reader.skip(8 + 8)
        size = reader.number()
        reader.skip(4)
        kind = reader.raw(1)[0]
        guid = str(uuid.UUID(bytes=reader.raw(16)))
        for flag in (_ID1, _ID2):
            if flags & flag:
                reader.text()
        if flags & _SIZE2:
            reader.number()
        hint = reader.text() if flags & _HINT else ""
        self.volumes.append(LdmVolume(number, name, guid, size, kind, hint))

    def _component(self, reader: _Reader, flags: int) -> None:
        number = reader.number()
        reader.text()
        state = reader.text()
        kind = reader.raw(1)[0]
        reader.skip(4)
        parts = reader.number()
        reader.skip(8 + 8)
        volume = reader.number()
        reader.skip(1)
        chunk = reader.number() if flags & _STRIPE else 0
        self.components.append(Component(number, volume, kind, state, parts, chunk))

    def _extent(self, reader: _Reader, flags: int) -> None:
        reader.number()
        reader.text()
        reader.skip(4 + 8)
        start, offset = (int.from_bytes(reader.raw(8)) for _ in range(2))
        size, component, disk = reader.number(), reader.number(), reader.number()
        index = reader.number() if flags & _INDEX else 0
        self.extents.append(Extent(component, disk, index, start, offset, size))

    def _disk3(self, reader: _Reader, _flags: int) -> None:
        number, name, guid = reader.number(), reader.text(), reader.text()
        self.disks.append(LdmDisk(number, name, guid.lower()))

    def _disk4(self, reader: _Reader, _flags: int) -> None:
        number, name, guid = reader.number(), reader.text(), reader.raw(16)
        self.disks.append(LdmDisk(number, name, str(uuid.UUID(bytes=guid))))

    def _group(self, reader: _Reader, _flags: int) -> None:
        reader.number()
        self.group_name = reader.text()


class _Reader:
    """Reads fields one behind the other. Raises LdmError at the end of the record."""

    def __init__(self, record: bytes, offset: int) -> None:
        self._record = record
        self._offset = offset

    def raw(self, length: int) -> bytes:
        end = self._offset + length
        if end > len(self._record):
            raise LdmError("a record is cut off")
        data = self._record[self._offset : end]
        self._offset = end
        return data

    def skip(self, length: int) -> None:
        self.raw(length)

    def number(self) -> int:
        length = self.raw(1)[0]
        if length > 8:
            raise LdmError(f"a number has {length} bytes")
        return int.from_bytes(self.raw(length))

    def text(self) -> str:
        return self.raw(self.raw(1)[0]).decode("utf-8", "replace")

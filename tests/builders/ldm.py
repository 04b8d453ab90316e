"""Windows dynamic disks, after the Linux kernel's block/partitions/ldm.h and libldm's ldm.c.

No tool under Linux makes them. What is made here is read by ldmtool, which the tests compare with.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from tests.builders.disk import SECTOR, Partition, make_disk

GROUP = "d6000000-0000-4000-8000-000000000000"
GROUP_NAME = "OFFICE-Dg0"
DISK = "d15c0000-0000-4000-8000-00000000000%d"
VOLUME = "70100000-0000-4000-8000-00000000000%d"
SECTORS = 24 * 2048
DATABASE = 2048
CHUNK = 128
METADATA_TYPE = "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3"
DATA_TYPE = "AF9B60A0-1431-4F62-BC68-3311714A69AD"

SPANNED, STRIPED, RAID5 = 2, 1, 3


@dataclass(frozen=True)
class Extent:
    """Sectors of a disk (counted from 1) from `start` in its data area."""

    disk: int
    start: int
    size: int


@dataclass(frozen=True)
class Plan:
    """A volume: its kind of component, and the extents of each copy."""

    name: str
    kind: int
    copies: list[list[Extent]]
    content: Path

    @property
    def size(self) -> int:
        extents = self.copies[0]
        total = sum(extent.size for extent in extents)
        return total - extents[0].size if self.kind == RAID5 else total


@dataclass
class _Database:
    records: list[bytes] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)

    def add(self, kind: int, flags: int, body: bytes) -> None:
        number = len(self.records) + 1
        head = struct.pack(">4sIIHH", b"VBLK", number, number, 0, 1)
        record = head + struct.pack(">HBBI", 0, flags, kind, len(body)) + body
        assert len(record) <= 128
        self.records.append(record.ljust(128, b"\0"))
        self.counts[kind & 15] = self.counts.get(kind & 15, 0) + 1


def make_dynamic_disks(folder: Path, plans: list[Plan], *, sequence: int = 7) -> list[Path]:
    """Three disks of 24 MiB with these volumes, two with an MBR and the third with a GPT."""
    database = _describe(plans)
    disks = []
    for number in (1, 2, 3):
        gpt = number == 3
        start = 4096 if gpt else 63
        size = SECTORS - start - (2048 if gpt else DATABASE)
        rows = [Partition(start, size, "42")]
        if gpt:
            rows = [Partition(DATABASE, DATABASE, METADATA_TYPE), Partition(start, size, DATA_TYPE)]
        path = folder / f"dynamic{number}.raw"
        make_disk(path, SECTORS * SECTOR, "gpt" if gpt else "dos", rows)
        place = DATABASE if gpt else SECTORS - DATABASE
        head = _private_header(DISK % number, start, size, place)
        with path.open("r+b") as file:
            for at, block in _blocks(head, database, place, sequence):
                file.seek(at * SECTOR)
                file.write(block)
            file.seek((place + DATABASE - 1 if gpt else 6) * SECTOR)
            file.write(head)
        disks.append(path)
    for plan in plans:
        _fill(plan, disks)
    return disks


def _private_header(guid: str, start: int, size: int, place: int) -> bytes:
    block = struct.pack(">8sIHH", b"PRIVHEAD", 0, 2, 11).ljust(48, b"\0")
    for text in (guid, "105700000-host"[:13], GROUP):
        block += text.encode().ljust(64, b"\0")
    block = (block + GROUP_NAME.encode()).ljust(283, b"\0")
    block += struct.pack(">QQQQQQII", start, size, place, DATABASE, 2, 2046, 1, 1)
    return block.ljust(SECTOR, b"\0")


def _blocks(head: bytes, database: _Database, place: int, sequence: int) -> list[tuple[int, bytes]]:
    contents = struct.pack(">8sI4xI16x", b"TOCBLOCK", 1, 1)
    contents += struct.pack(">8sHQQQ", b"config", 0, 17, 1481, 0)
    contents += struct.pack(">8sHQQQ", b"log", 0, 1498, 224, 0)
    counts = [database.counts.get(kind, 0) for kind in (1, 2, 3, 4)]
    first = struct.pack(">4sIIIHHH", b"VMDB", len(database.records) + 4, 128, 512, 1, 4, 10)
    first += GROUP_NAME.encode().ljust(31, b"\0") + GROUP.encode().ljust(64, b"\0")
    first += struct.pack(">QQ4I12x4I12xQ", sequence, sequence, *counts, 0, 0, 0, 0, 0)
    records = first.ljust(512, b"\0") + b"".join(database.records)
    return [
        *((place + at, contents.ljust(SECTOR, b"\0")) for at in (1, 2, 2045, 2046)),
        (place + 17, records),
        *((place + at, head) for at in (1856, 2047)),
    ]


def _describe(plans: list[Plan]) -> _Database:
    database = _Database()
    database.add(0x35, 0, _number(1) + _text(GROUP_NAME) + _text(GROUP) + bytes(12))
    for disk in (1, 2, 3):
        body = _number(10 + disk) + _text(f"Disk{disk}") + _text(DISK % disk) + _text("")
        database.add(0x34, 0, body + bytes(12))
    for index, plan in enumerate(plans, start=1):
        _describe_volume(database, index, plan)
    return database


def _describe_volume(database: _Database, index: int, plan: Plan) -> None:
    volume = 100 * index
    raid5 = plan.kind == RAID5
    body = _number(volume) + _text(plan.name) + _text("raid5" if raid5 else "gen") + _text("")
    body += b"ACTIVE".ljust(14, b"\0") + bytes([4 if raid5 else 3, 0, index, 0, 0, 0, 0])
    body += _number(len(plan.copies)) + bytes(16) + _number(plan.size) + bytes(4) + b"\7"
    database.add(0x51, 0, body + uuid.UUID(VOLUME % index).bytes)
    for copy, extents in enumerate(plan.copies, start=1):
        component = volume + 10 * copy
        striped = plan.kind != SPANNED
        body = _number(component) + _text(f"{plan.name}-{copy:02}") + _text("ACTIVE")
        body += bytes([plan.kind, 0, 0, 0, 0]) + _number(len(extents)) + bytes(16)
        body += _number(volume) + b"\0"
        body += _number(CHUNK) + _number(len(extents)) if striped else b""
        database.add(0x32, 0x10 if striped else 0, body)
        offset = 0
        for number, extent in enumerate(extents):
            body = _number(component + number + 1) + _text(f"Disk{extent.disk}-{component}")
            body += bytes(12) + struct.pack(">QQ", extent.start, 0 if striped else offset)
            body += _number(extent.size) + _number(component) + _number(10 + extent.disk)
            database.add(0x33, 0x08 if striped else 0, body + (_number(number) if striped else b""))
            offset += extent.size


def _fill(plan: Plan, disks: list[Path]) -> None:
    """Write the content where the volume has it."""
    content = plan.content.read_bytes()
    assert len(content) <= plan.size * SECTOR
    content = content.ljust(plan.size * SECTOR, b"\0")
    for extents in plan.copies:
        for extent, data in zip(extents, _divided(plan, content, extents), strict=True):
            base = 4096 if extent.disk == 3 else 63
            with disks[extent.disk - 1].open("r+b") as file:
                file.seek((base + extent.start) * SECTOR)
                file.write(data)


def _divided(plan: Plan, content: bytes, extents: list[Extent]) -> list[bytes]:
    if plan.kind == SPANNED:
        ends = [sum(extent.size for extent in extents[:n]) * SECTOR for n in range(len(extents))]
        return [content[at : at + e.size * SECTOR] for at, e in zip(ends, extents, strict=True)]
    unit = CHUNK * SECTOR
    chunks = [content[at : at + unit] for at in range(0, len(content), unit)]
    width = len(extents)
    if plan.kind == STRIPED:
        return [b"".join(chunks[number::width]) for number in range(width)]
    parts: list[list[bytes]] = [[] for _ in extents]
    for row in range(0, len(chunks), width - 1):
        data = chunks[row : row + width - 1]
        parity = width - 1 - row // (width - 1) % width
        for number, chunk in enumerate(data, start=1):
            parts[(parity + number) % width].append(chunk)
        words = [int.from_bytes(chunk, "little") for chunk in data]
        total = 0
        for word in words:
            total ^= word
        parts[parity].append(total.to_bytes(unit, "little"))
    return [b"".join(part) for part in parts]


def _number(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 7) // 8 or 1, "big")
    return bytes([len(data)]) + data


def _text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()

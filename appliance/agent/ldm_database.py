"""Where a Windows dynamic disk keeps its database, and how it is read.

On an MBR disk the private header is in sector 6, on a GPT disk in the last sector of the metadata
partition. It says where the database is: 1 MiB, normally at the end of the disk, with a table of
contents (TOCBLOCK) that leads to its head (VMDB) and the records behind that (VBLK).
Sources: the Linux kernel's block/partitions/ldm.h and ldm.c, and libldm (src/ldm.c).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from appliance.agent.blkid import PartitionTable
from appliance.agent.ldm_records import MAX_RECORDS, LdmError, Records
from appliance.agent.volume import Volume

MBR_TYPE = "0x42"
METADATA_TYPE = "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"
DATA_TYPE = "af9b60a0-1431-4f62-bc68-3311714a69ad"

_MBR_SECTOR = 6
_HEAD = struct.Struct(">8s 4x HH 32x 64s 64x 64s 32s 11x QQQQ")
_CONTENTS = struct.Struct(">8s 28x 8s 2x Q 16x 8s 2x Q")
_DATABASE = struct.Struct(">4s 4x II 2x HH 31s 64s QQ IIII")
_RECORD = struct.Struct(">4s 4x IHH")
_MAX_DATABASE = 8 << 20
_CONTENTS_SECTORS = (2, 1)


@dataclass(frozen=True, slots=True)
class PrivateHeader:
    """What one disk says of itself. Places and sizes in bytes."""

    version: str
    disk_guid: str
    group_guid: str
    group_name: str
    data_start: int
    data_size: int
    database_start: int
    database_size: int


@dataclass(frozen=True, slots=True)
class Database:
    """One disk's copy of the group's database; the copy with the highest `sequence` counts."""

    sequence: int
    is_pending: bool
    records: Records


def is_dynamic(table: PartitionTable) -> bool:
    """Whether a disk with this table should have a database."""
    return any(entry.type.lower() in {MBR_TYPE, METADATA_TYPE} for entry in table.entries)


def read_header(disk: Volume, table: PartitionTable) -> PrivateHeader:
    """The private header of a dynamic disk. Raises LdmError and OSError."""
    sector = disk.device.sector_size
    places = [entry.start + entry.size - sector for entry in table.entries
              if entry.type.lower() == METADATA_TYPE]  # fmt: skip
    block = disk.read((places or [_MBR_SECTOR * sector])[0], 512)
    if len(block) < _HEAD.size or block[:8] != b"PRIVHEAD":
        raise LdmError("there is no private header where it should be")
    _, major, minor, disk_guid, group_guid, name, *numbers = _HEAD.unpack_from(block)
    if any(number * sector > disk.size for number in numbers):
        raise LdmError("the private header points outside of the disk")
    return PrivateHeader(
        f"{major}.{minor}",
        _text(disk_guid).lower(),
        _text(group_guid).lower(),
        _text(name),
        *(number * sector for number in numbers),
    )


def read_database(disk: Volume, header: PrivateHeader) -> Database:
    """That disk's copy of the database. Raises LdmError and OSError."""
    sector = disk.device.sector_size
    size = min(header.database_size, _MAX_DATABASE)
    untrusted = disk.read(header.database_start, size)
    start = _start(untrusted, sector)
    block = untrusted[start : start + _DATABASE.size]
    if len(block) < _DATABASE.size or block[:4] != b"VMDB":
        raise LdmError("its database has no head")
    _, record_size, first, _, _, _, _, committed, pending, *counts = _DATABASE.unpack(block)
    if not 32 <= record_size <= 4096:
        raise LdmError(f"its database has records of {record_size} bytes")
    records = Records()
    for record in _records(untrusted[start + first :], record_size):
        records.add(record)
    found = [len(records.volumes), len(records.components)]
    found += [len(records.extents), len(records.disks)]
    if found != counts:
        raise LdmError("its database has not as many records as it says")
    return Database(committed, pending != committed, records)


def _start(untrusted: bytes, sector: int) -> int:
    """Where the table of contents says that the database begins, in bytes."""
    for place in _CONTENTS_SECTORS:
        block = untrusted[place * sector : place * sector + _CONTENTS.size]
        if len(block) == _CONTENTS.size and block[:8] == b"TOCBLOCK":
            _, name, start, other, other_start = _CONTENTS.unpack(block)
            for each, where in ((name, start), (other, other_start)):
                if _text(each) == "config" and where * sector < len(untrusted):
                    return int(where) * sector
    raise LdmError("its database has no table of contents")


def _records(untrusted: bytes, size: int) -> list[bytes]:
    """The records, those that were divided put together again. Raises LdmError."""
    whole: list[bytes] = []
    divided: dict[int, dict[int, bytes]] = {}
    totals: dict[int, int] = {}
    for offset in range(0, min(len(untrusted), MAX_RECORDS * size) - size + 1, size):
        magic, number, entry, total = _RECORD.unpack_from(untrusted, offset)
        if magic != b"VBLK":
            break
        data = untrusted[offset + _RECORD.size : offset + size]
        if total > 1:
            divided.setdefault(number, {})[entry] = data
            totals[number] = total
        else:
            whole.append(data)
    for number, parts in divided.items():
        if sorted(parts) != list(range(totals[number])):
            raise LdmError("a divided record of its database is not complete")
        whole.append(b"".join(parts[entry] for entry in sorted(parts)))
    return whole


def _text(untrusted: bytes) -> str:
    return untrusted.split(b"\0", 1)[0].decode("utf-8", "replace").strip()

"""GUID partition tables for sectors of any size, and damage to one copy of them.

Written from UEFI 2.10, chapter 5.3; sfdisk writes them for sectors of 512 bytes only.
"""

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.builders.sparse import make_sparse

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
EFI = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
DISK_UUID = "d15c0000-0000-4000-8000-000000000000"
PART_UUID = "9a470000-0000-4000-8000-%012d"

HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
HEADER_CRC, ENTRIES_CRC = 16, 88
MY_LBA, ALTERNATE, ENTRIES_LBA, COUNT, ENTRY_SIZE = 24, 32, 72, 80, 84

Copy = Literal["primary", "backup"]


@dataclass(frozen=True)
class Row:
    """One partition; sectors are those of the disk, both ends included."""

    number: int
    first: int
    last: int
    type: str = LINUX
    name: str = ""
    attributes: int = 0

    def packed(self) -> bytes:
        """The entry's 128 bytes. GUIDs are stored with their first three fields little-endian."""
        identity = uuid.UUID(PART_UUID % self.number).bytes_le
        ends = struct.pack("<QQQ", self.first, self.last, self.attributes)
        name = self.name.encode("utf-16-le").ljust(72, b"\0")
        return uuid.UUID(self.type).bytes_le + identity + ends + name


def make_gpt(
    path: Path,
    size: int,
    rows: Sequence[Row],
    *,
    sector: int = 512,
    count: int = 128,
    entry_size: int = 128,
) -> Path:
    """Make a disk of `size` bytes with a protective MBR and both copies of a GPT."""
    make_sparse(path, size)
    entries = bytearray(count * entry_size)
    for row in rows:
        start = (row.number - 1) * entry_size
        entries[start : start + 128] = row.packed()
    last = size // sector - 1
    sectors = -(-len(entries) // sector)
    with path.open("r+b") as file:
        file.write(protective_mbr(last))
        for lba, other, table in ((1, last, 2), (last, 1, last - sectors)):
            usable = (2 + sectors, last - sectors - 1)
            fields = (b"EFI PART", 0x10000, 92, 0, 0, lba, other, *usable)
            identity = uuid.UUID(DISK_UUID).bytes_le
            file.seek(lba * sector)
            file.write(HEADER.pack(*fields, identity, table, count, entry_size, 0))
            file.seek(table * sector)
            file.write(entries)
    for copy in ("primary", "backup"):
        seal(path, copy, sector)
    return path


def protective_mbr(sectors: int) -> bytes:
    """One row of type 0xEE over the whole disk (5.2.3)."""
    row = b"\0\0\2\0\xee\xff\xff\xff" + struct.pack("<II", 1, min(sectors, 0xFFFFFFFF))
    return bytes(446) + row + bytes(48) + b"\x55\xaa"


def add_mbr_row(path: Path, number: int, kind: int, first: int, sectors: int) -> None:
    """Write row 1–4 of the MBR, as hybrid ones have them."""
    row = bytes([0, 0, 2, 0, kind, 255, 255, 255]) + struct.pack("<II", first, sectors)
    poke(path, 446 + 16 * (number - 1), row)
    poke(path, 510, b"\x55\xaa")


def header_at(path: Path, copy: Copy, sector: int) -> int:
    """Where the copy's header is: by the table's own rule, not by what the other copy says."""
    return sector if copy == "primary" else path.stat().st_size - sector


def seal(path: Path, copy: Copy, sector: int = 512) -> None:
    """Make both checksums of a copy right again."""
    header = header_at(path, copy, sector)
    with path.open("rb") as file:
        file.seek(header)
        raw = bytearray(file.read(sector))
        fields = HEADER.unpack_from(raw)
        file.seek(fields[10] * sector)
        entries = file.read(fields[11] * fields[12])
    struct.pack_into("<I", raw, ENTRIES_CRC, zlib.crc32(entries))
    struct.pack_into("<I", raw, HEADER_CRC, 0)
    struct.pack_into("<I", raw, HEADER_CRC, zlib.crc32(raw[: fields[2]]))
    poke(path, header, bytes(raw))


def set_field(
    path: Path, copy: Copy, offset: int, value: bytes, *, sector: int = 512, sealed: bool = True
) -> None:
    """Change a field of a header, by default with its checksum."""
    poke(path, header_at(path, copy, sector) + offset, value)
    if sealed:
        seal(path, copy, sector)


def set_row(path: Path, copy: Copy, row: Row, *, sector: int = 512, sealed: bool = True) -> None:
    """Change one entry in one copy, by default with the checksums."""
    header = header_at(path, copy, sector)
    with path.open("rb") as file:
        file.seek(header)
        fields = HEADER.unpack(file.read(HEADER.size))
    poke(path, fields[10] * sector + (row.number - 1) * fields[12], row.packed())
    if sealed:
        seal(path, copy, sector)


def poke(path: Path, offset: int, data: bytes) -> None:
    """Overwrite bytes of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)

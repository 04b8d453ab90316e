"""VHDX images byte by byte, differencing ones included: qemu-img makes none of those.

Layout: [MS-VHDX]. A log at 1 MiB, metadata at 2 MiB, the block table at 3 MiB, then the blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from images.crc32c import crc32c

SECTOR = 512
MIB = 1 << 20
LOG, METADATA, TABLE, BLOCKS = MIB, 2 * MIB, 3 * MIB, 4 * MIB
HEADERS = (64 << 10, 128 << 10)
REGIONS = (192 << 10, 256 << 10)
ITEMS = METADATA + (64 << 10)
ABSENT = b"\xee" * SECTOR
"""What stands in a block of a differencing disk where the parent's sector must be read instead."""

TABLE_REGION = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA_REGION = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
PAGE_83 = UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
LOGICAL = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL = UUID("cda348c7-445d-4471-9cc9-e9885251c556")
LOCATOR = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
VHDX_PARENT = UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")
_FULLY, _PARTIALLY, _BITMAP = 6, 7, 6
_SOME = UUID("11111111-2222-4333-8444-555555555555")


@dataclass(frozen=True)
class Vhdx:
    """What goes into an image; sizes in bytes. `sectors` are those that it holds.

    `parent` is what the parent locator says, with the keys in the format's words; with it the
    image is a differencing one. The other fields are there to be changed into something wrong.
    """

    size: int = 10 * MIB
    sectors: Mapping[int, bytes] = field(default_factory=dict)
    parent: Mapping[str, str] | None = None
    block_size: int = MIB
    data_write_uuid: UUID = _SOME
    items: Mapping[UUID, bytes] = field(default_factory=dict)
    flags: int | None = None
    regions: tuple[tuple[UUID, int, int, int], ...] = (
        (TABLE_REGION, TABLE, MIB, 1),
        (METADATA_REGION, METADATA, MIB, 1),
    )

    def build(self) -> bytes:
        """The whole image."""
        table, blocks = self._table()
        image = bytearray(BLOCKS)
        _put(image, 0, b"vhdxfile" + "tests".encode("utf-16-le"))
        for sequence, offset in enumerate(HEADERS):
            _put(image, offset, self._header(sequence))
        for offset in REGIONS:
            _put(image, offset, region_table(self.regions))
        _put(image, METADATA, self._metadata())
        _put(image, TABLE, struct.pack(f"<{len(table)}Q", *table))
        return bytes(image) + blocks

    def _header(self, sequence: int) -> bytes:
        write = UUID(int=self.data_write_uuid.int ^ 1).bytes_le
        identities = (write, self.data_write_uuid.bytes_le, bytes(16))
        head = struct.pack("<4sIQ16s16s16sHHIQ", b"head", 0, sequence, *identities, 0, 1, MIB, LOG)
        return with_checksum(head.ljust(4096, b"\0"))

    def _metadata(self) -> bytes:
        has_parent = self.parent is not None
        flags = (2 if has_parent else 0) if self.flags is None else self.flags
        items = {
            PARAMETERS: struct.pack("<II", self.block_size, flags),
            SIZE: struct.pack("<Q", self.size),
            PAGE_83: UUID(int=7).bytes_le,
            LOGICAL: struct.pack("<I", SECTOR),
            PHYSICAL: struct.pack("<I", 4096),
        }
        if self.parent is not None:
            items[LOCATOR] = locator(self.parent)
        items.update(self.items)
        table = struct.pack("<8sHH20x", b"metadata", 0, len(items))
        area = b""
        for identity, value in items.items():
            place = (64 << 10) + len(area)
            table += struct.pack("<16sIIII", identity.bytes_le, place, len(value), 4, 0)
            area += value
        return table.ljust(64 << 10, b"\0") + area

    def _table(self) -> tuple[list[int], bytes]:
        """The entries, and the blocks with the sector bitmaps before those that they describe."""
        ratio = (1 << 23) * SECTOR // self.block_size
        per_block = self.block_size // SECTOR
        chunks = -(-self.size // self.block_size // ratio) or 1
        table = [0] * (chunks * (ratio + 1))
        blocks = bytearray()
        for chunk in sorted({sector >> 23 for sector in self.sectors} if self.parent else ()):
            table[chunk * (ratio + 1) + ratio] = BLOCKS + len(blocks) | _BITMAP
            bitmap = bytearray(MIB)
            for sector in self.sectors:
                if sector >> 23 == chunk:
                    bitmap[(sector & 0x7FFFFF) // 8] |= 1 << sector % 8
            blocks += bitmap
        state, absent = (_PARTIALLY, ABSENT) if self.parent else (_FULLY, bytes(SECTOR))
        for block in sorted({sector // per_block for sector in self.sectors}):
            table[block + block // ratio] = BLOCKS + len(blocks) | state
            for sector in range(block * per_block, (block + 1) * per_block):
                blocks += self.sectors.get(sector, absent)
        needed = -(-self.size // self.block_size)
        return table if self.parent else table[: needed + (needed - 1) // ratio], bytes(blocks)


def with_checksum(data: bytes) -> bytes:
    """The same header or region table with a right checksum."""
    return data[:4] + struct.pack("<I", crc32c(data[:4] + bytes(4) + data[8:])) + data[8:]


def region_table(regions: tuple[tuple[UUID, int, int, int], ...]) -> bytes:
    """Identity, offset and length in bytes, and flags of each region."""
    table = struct.pack("<4sIII", b"regi", 0, len(regions), 0)
    for identity, *numbers in regions:
        table += struct.pack("<16sQII", identity.bytes_le, *numbers)
    return with_checksum(table.ljust(64 << 10, b"\0"))


def locator(values: Mapping[str, str], kind: UUID = VHDX_PARENT) -> bytes:
    """A parent locator with these keys and values."""
    texts = [(k.encode("utf-16-le"), v.encode("utf-16-le")) for k, v in values.items()]
    place = 20 + 12 * len(texts)
    entries, area = b"", b""
    for key, value in texts:
        at = place + len(area)
        entries += struct.pack("<IIHH", at, at + len(key), len(key), len(value))
        area += key + value
    return struct.pack("<16sHH", kind.bytes_le, 0, len(texts)) + entries + area


def _put(image: bytearray, offset: int, data: bytes) -> None:
    image[offset : offset + len(data)] = data

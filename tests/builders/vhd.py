"""VHD images byte by byte, differencing ones included: qemu-img makes none of those.

Layout: "Virtual Hard Disk Image Format Specification" 1.0, Microsoft.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

SECTOR = 512
ABSENT = b"\xee" * SECTOR
"""What stands in a block of a differencing disk where the parent's sector must be read instead."""

_UNUSED = 0xFFFFFFFF
_FOOTER = ">8sIIQI4sHH4sQQHBBII16sB"
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_SOME = UUID("11111111-2222-4333-8444-555555555555")


@dataclass(frozen=True)
class Identity:
    """What a footer says about the disk; the time stamp is in seconds since 2000."""

    uuid: UUID = _SOME
    timestamp: int = 700_000_000
    creator: bytes = b"win "
    geometry: tuple[int, int, int] = (4, 4, 17)


@dataclass(frozen=True)
class Parent:
    """What a differencing disk says about its parent; paths as Windows writes them."""

    uuid: UUID
    timestamp: int
    name: str
    relative: str
    absolute: str


DEFAULT = Identity()


def footer(size: int, kind: int, identity: Identity = DEFAULT) -> bytes:
    """512 bytes; `size` of the disk is in bytes."""
    data = struct.pack(
        _FOOTER,
        b"conectix",
        2,
        0x10000,
        0xFFFFFFFFFFFFFFFF if kind == _FIXED else SECTOR,
        identity.timestamp,
        identity.creator,
        6,
        1,
        b"Wi2k",
        size,
        size,
        *identity.geometry,
        kind,
        0,
        identity.uuid.bytes,
        0,
    )
    return with_checksum(data.ljust(SECTOR, b"\0"), 64)


def with_checksum(data: bytes, offset: int) -> bytes:
    """The same footer or header with a right checksum at `offset`."""
    plain = data[:offset] + bytes(4) + data[offset + 4 :]
    return data[:offset] + struct.pack(">I", ~sum(plain) & 0xFFFFFFFF) + data[offset + 4 :]


def fixed(content: bytes, identity: Identity = DEFAULT) -> bytes:
    """A fixed image of a disk with this content, whole sectors."""
    return content + footer(len(content), _FIXED, identity)


def sparse(
    size: int,
    sectors: Mapping[int, bytes],
    *,
    parent: Parent | None = None,
    identity: Identity = DEFAULT,
    block_size: int = 2 << 20,
) -> bytes:
    """A dynamic or, with a parent, differencing image that holds just these sectors.

    Blocks that hold one are written whole, with a bitmap in which the sectors present are set,
    the first one in the highest bit. What is not present is zero in a dynamic image, where
    nothing else is right, and `ABSENT` in a differencing one.
    """
    per_block = block_size // SECTOR
    entries = -(-size // block_size)
    locators = _locators(parent)
    table_bytes = -(-entries * 4 // SECTOR) * SECTOR
    locators_at = SECTOR + 1024 + table_bytes
    blocks_at = locators_at + len(locators) * SECTOR
    table = [_UNUSED] * entries
    blocks = bytearray()
    for block in sorted({sector // per_block for sector in sectors}):
        table[block] = (blocks_at + len(blocks)) // SECTOR
        inside = {s % per_block: d for s, d in sectors.items() if s // per_block == block}
        blocks += _block(per_block, inside, ABSENT if parent else bytes(SECTOR))
    foot = footer(size, _DIFFERENCING if parent else _DYNAMIC, identity)
    return b"".join(
        [
            foot,
            _header(entries, block_size, parent, locators, locators_at),
            struct.pack(f">{entries}I", *table).ljust(table_bytes, b"\xff"),
            *(text.ljust(SECTOR, b"\0") for _, text in locators),
            blocks,
            foot,
        ]
    )


def _locators(parent: Parent | None) -> list[tuple[bytes, bytes]]:
    """Platform code and text, each short enough for a sector."""
    if parent is None:
        return []
    texts = {b"W2ku": parent.absolute, b"W2ru": parent.relative}
    return [(code, text.encode("utf-16-le")) for code, text in texts.items()]


def _block(per_block: int, sectors: Mapping[int, bytes], absent: bytes) -> bytes:
    bitmap = bytearray(-(-per_block // 8 // SECTOR) * SECTOR)
    for sector in sectors:
        bitmap[sector // 8] |= 0x80 >> sector % 8
    return bytes(bitmap) + b"".join(sectors.get(sector, absent) for sector in range(per_block))


def _header(
    entries: int,
    block_size: int,
    parent: Parent | None,
    locators: list[tuple[bytes, bytes]],
    locators_at: int,
) -> bytes:
    data = struct.pack(
        ">8sQQIIII16sII512s",
        b"cxsparse",
        0xFFFFFFFFFFFFFFFF,
        SECTOR + 1024,
        0x10000,
        entries,
        block_size,
        0,
        parent.uuid.bytes if parent else bytes(16),
        parent.timestamp if parent else 0,
        0,
        parent.name.encode("utf-16-be") if parent else b"",
    )
    for index, (code, text) in enumerate(locators):
        data += struct.pack(">4sIIIQ", code, 1, len(text), 0, locators_at + index * SECTOR)
    return with_checksum(data.ljust(1024, b"\0"), 36)

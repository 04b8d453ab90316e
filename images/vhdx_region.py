"""The region table of a VHDX image ([MS-VHDX] 2.2.3; QEMU vhdx_open_region_tables())."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from images.block_table import Layout
from images.crc32c import crc32c
from images.errors import MalformedImage, Unsupported
from images.evidence import Source, read_exactly, truncated

MIB = 1 << 20
_TABLES = (192 << 10, 256 << 10)
_TABLE_BYTES = 64 << 10
_MAX_ENTRIES = 2047
_HEADER = struct.Struct("<4sIII")
_ENTRY = struct.Struct("<16sQII")
_REQUIRED = 1
_BLOCK_TABLE = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
_METADATA = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_NAMES = {_BLOCK_TABLE: "the block table", _METADATA: "the metadata region"}


@dataclass(frozen=True, slots=True)
class Region:
    """A checked part of the file, in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Regions:
    """The two that every image has."""

    table: Region
    metadata: Region


def parse_regions(source: Source, layout: Layout) -> Regions:
    """Read and check the region table; all regions are added to `layout`.

    Raises MalformedImage, or Unsupported for an unknown region that must be understood.
    """
    found: dict[UUID, Region] = {}
    for identity, offset, length, flags in _entries(source, _valid_table(source)):
        what = _NAMES.get(identity, f"region {identity}")
        check_region(source, offset, length, what)
        if not length:
            raise _bad(source, f"{what} is empty")
        other = layout.add(offset, length, what)
        if other is not None:
            raise _bad(source, f"{what} and {other} lie in the same place")
        if identity in found:
            raise _bad(source, f"{what} is there twice")
        if identity not in _NAMES and flags & _REQUIRED:
            raise Unsupported(
                f"needs a part of VHDX that is not known ({what})",
                path=source.path,
                hint="convert it with the program that wrote it, then name that",
            )
        found[identity] = Region(offset, length)
    for identity, what in _NAMES.items():
        if identity not in found:
            raise _bad(source, f"{what} is missing")
    return Regions(found[_BLOCK_TABLE], found[_METADATA])


def check_region(source: Source, offset: int, length: int, what: str) -> None:
    """Bounds in bytes; both must be multiples of a MiB behind the headers, or MalformedImage."""
    if offset < MIB or offset % MIB or length % MIB:
        raise _bad(source, f"{what} cannot be {length} bytes at {offset}")
    if offset + length > source.size:
        raise truncated(source, offset + length, what)


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(
        f"damaged VHDX region table: {message}",
        path=source.path,
        hint="compare the file with the original",
    )


def _valid_table(source: Source) -> bytes:
    """The first copy, which is the only one that QEMU reads; a valid second one must agree."""
    first, second = (
        read_exactly(source, offset, _TABLE_BYTES, "the region table") for offset in _TABLES
    )
    if not _is_valid(first):
        raise _bad(source, "its signature or its checksum is wrong")
    if second != first and _is_valid(second):
        raise _bad(source, "its two copies contradict each other")
    return first


def _is_valid(data: bytes) -> bool:
    magic, checksum, _, _ = _HEADER.unpack_from(data)
    return magic == b"regi" and bool(crc32c(data[:4] + bytes(4) + data[8:]) == checksum)


def _entries(source: Source, table: bytes) -> list[tuple[UUID, int, int, int]]:
    _, _, count, _ = _HEADER.unpack_from(table)
    if count > _MAX_ENTRIES:
        raise _bad(source, f"{count} regions are not possible")
    area = table[_HEADER.size : _HEADER.size + count * _ENTRY.size]
    return [
        (UUID(bytes_le=identity), offset, length, flags)
        for identity, offset, length, flags in _ENTRY.iter_unpack(area)
    ]

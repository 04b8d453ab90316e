"""The metadata region of a VHDX image ([MS-VHDX] 2.6; QEMU vhdx_parse_metadata())."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from images.errors import MalformedImage, Unsupported
from images.evidence import Source, read_exactly
from images.vhdx_locator import ParentLocator, parse_locator
from images.vhdx_region import MIB, Region

_TABLE_BYTES = 64 << 10
_HEADER = struct.Struct("<8sHH20x")
_ENTRY = struct.Struct("<16sIIII")
_MAX_ENTRIES = 2047
_REQUIRED = 4
_FIXED, _HAS_PARENT = 1, 2
_MAX_SIZE = 64 << 40
_SECTORS_PER_BITMAP = 1 << 23

_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_PAGE_83 = UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
_LOGICAL = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
_PHYSICAL = UUID("cda348c7-445d-4471-9cc9-e9885251c556")
_LOCATOR = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
# Name and length in bytes; QEMU reads as much without looking at the length in the file.
_ITEMS = {
    _PARAMETERS: ("the file parameters", 8),
    _SIZE: ("the size of the disk", 8),
    _PAGE_83: ("the identity of the disk", 16),
    _LOGICAL: ("the logical sector size", 4),
    _PHYSICAL: ("the physical sector size", 4),
}


@dataclass(frozen=True, slots=True)
class Metadata:
    """Checked values; sizes in bytes."""

    virtual_size: int
    block_size: int
    fixed: bool
    logical_sector: int
    physical_sector: int
    disk_uuid: UUID
    locator: ParentLocator | None

    @property
    def subformat(self) -> str:
        if self.locator is not None:
            return "differencing"
        return "fixed" if self.fixed else "dynamic"

    @property
    def blocks(self) -> int:
        """How many blocks the disk has."""
        return -(-self.virtual_size // self.block_size)

    @property
    def chunk_ratio(self) -> int:
        """After so many entries for blocks, one for a sector bitmap follows."""
        return _SECTORS_PER_BITMAP * self.logical_sector // self.block_size

    @property
    def table_entries(self) -> int:
        """Of the block table; that of a differencing disk ends with a sector bitmap."""
        if self.locator is not None:
            return -(-self.blocks // self.chunk_ratio) * (self.chunk_ratio + 1)
        return self.blocks + (self.blocks - 1) // self.chunk_ratio


def parse_metadata(source: Source, region: Region) -> Metadata:
    """Read and check the items. Raises MalformedImage, or Unsupported for unknown ones."""
    items = _find_items(source, region)
    found: dict[UUID, bytes] = {}
    for identity, (what, length) in _ITEMS.items():
        if identity not in items:
            raise _bad(source, f"{what} is missing")
        if items[identity].length != length:
            raise _bad(source, f"{what} cannot take {items[identity].length} bytes")
        found[identity] = read_exactly(source, items[identity].offset, length, what)
    block_size, flags = struct.unpack("<II", found[_PARAMETERS])
    # QEMU refuses the one without the other as well.
    if bool(flags & _HAS_PARENT) != (_LOCATOR in items):
        raise _bad(source, "it is unclear whether it has a parent")
    metadata = Metadata(
        virtual_size=int.from_bytes(found[_SIZE], "little"),
        block_size=block_size,
        fixed=bool(flags & _FIXED),
        logical_sector=int.from_bytes(found[_LOGICAL], "little"),
        physical_sector=int.from_bytes(found[_PHYSICAL], "little"),
        disk_uuid=UUID(bytes_le=found[_PAGE_83]),
        locator=parse_locator(source, items[_LOCATOR]) if _LOCATOR in items else None,
    )
    _check_values(source, metadata)
    return metadata


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(
        f"damaged VHDX metadata: {message}",
        path=source.path,
        hint="compare the file with the original",
    )


def _find_items(source: Source, region: Region) -> dict[UUID, Region]:
    table = read_exactly(source, region.offset, _TABLE_BYTES, "the metadata table")
    magic, _, count = _HEADER.unpack_from(table)
    if magic != b"metadata" or count > _MAX_ENTRIES:
        raise _bad(source, "the metadata table is missing or too long")
    found: dict[UUID, Region] = {}
    area = table[_HEADER.size : _HEADER.size + count * _ENTRY.size]
    for identity, offset, length, flags, _ in _ENTRY.iter_unpack(area):
        item = UUID(bytes_le=identity)
        if item not in _ITEMS and item != _LOCATOR:
            if flags & _REQUIRED:
                raise Unsupported(
                    f"needs a part of VHDX that is not known (metadata {item})",
                    path=source.path,
                    hint="convert it with the program that wrote it, then name that",
                )
            continue
        if item in found:
            raise _bad(source, f"item {item} is there twice")
        if offset < _TABLE_BYTES or offset + length > region.length:
            raise _bad(source, f"item {item} cannot be {length} bytes at {offset}")
        found[item] = Region(region.offset + offset, length)
    return found


def _check_values(source: Source, metadata: Metadata) -> None:
    block, size = metadata.block_size, metadata.virtual_size
    if not MIB <= block <= 256 * MIB or block & (block - 1):
        raise _bad(source, f"a block of {block} bytes is not possible")
    for sector in (metadata.logical_sector, metadata.physical_sector):
        if sector not in (512, 4096):
            raise _bad(source, f"a sector of {sector} bytes is not possible")
    if not 0 < size <= _MAX_SIZE or size % metadata.logical_sector:
        raise _bad(source, f"a disk of {size} bytes is not possible")
    if metadata.logical_sector != 512:
        raise Unsupported(
            f"has logical sectors of {metadata.logical_sector} bytes, which QEMU 7.2 cannot read",
            path=source.path,
            hint="convert it to a disk with sectors of 512 bytes, for example with Convert-VHD",
        )

"""The headers of a VHDX image ([MS-VHDX]; QEMU block/vhdx.c and block/vhdx-log.c).

The file is described by two headers, a table of regions, a metadata region and a block table.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from images.block_table import Layout
from images.chain import Chain, Link
from images.crc32c import crc32c
from images.detect import Format
from images.errors import MalformedImage, Unsupported
from images.evidence import EvidenceFile, Source, read_exactly
from images.graph import Node
from images.parent_hint import ParentHint, utf16
from images.quoting import shown
from images.vhdx_blocks import count_allocated
from images.vhdx_metadata import parse_metadata
from images.vhdx_region import MIB, check_region, parse_regions

MAGIC = b"vhdxfile"
_CREATOR_BYTES = 512
_HEADERS = (64 << 10, 128 << 10)
_HEADER_BYTES = 4096
_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
_CHECKSUM = slice(4, 8)


@dataclass(frozen=True, slots=True)
class VhdxHeader:
    """Checked values; offsets and sizes in bytes.

    `disk_uuid` is what the disk says of itself (SCSI page 83). `data_write_uuid` changes when its
    contents do, and is what a child names as its parent. `table_entries` counts also the entries
    for sector bitmaps. The format has no time stamps.
    """

    virtual_size: int
    subformat: str
    block_size: int
    logical_sector: int
    physical_sector: int
    untrusted_creator: str
    sequence: int
    disk_uuid: UUID
    file_write_uuid: UUID
    data_write_uuid: UUID
    table_offset: int
    table_entries: int
    allocated_bytes: int
    untrusted_parent: tuple[ParentHint, ...]
    parent_linkage: UUID | None
    parent_linkage2: UUID | None

    @property
    def is_differencing(self) -> bool:
        """It needs a parent, whose `data_write_uuid` is `parent_linkage`; QEMU cannot read it."""
        return self.subformat == "differencing"


@dataclass(frozen=True, slots=True)
class _Untrusted:
    """One of the two headers as it is in the file, with a checksum that was right."""

    magic: bytes
    checksum: int
    sequence: int
    file_write_uuid: bytes
    data_write_uuid: bytes
    log_uuid: bytes
    log_version: int
    version: int
    log_length: int
    log_offset: int


def parse(source: Source) -> VhdxHeader:
    """Read and check all headers and the block table.

    Raises MalformedImage, or Unsupported for a disk with a log to be replayed, sectors of 4096
    bytes, too large a table, or parts that are not known.
    """
    if source.read(0, len(MAGIC)) != MAGIC:
        raise _bad(source, "the magic number is missing")
    creator = read_exactly(source, len(MAGIC), _CREATOR_BYTES, "the VHDX header")
    header = _current_header(source)
    _check_log(source, header)
    layout = Layout()
    layout.add(0, MIB, "the headers")
    layout.add(header.log_offset, header.log_length, "the log")
    regions = parse_regions(source, layout)
    metadata = parse_metadata(source, regions.metadata)
    blocks = count_allocated(source, regions.table, metadata, layout)
    locator = metadata.locator
    return VhdxHeader(
        virtual_size=metadata.virtual_size,
        subformat=metadata.subformat,
        block_size=metadata.block_size,
        logical_sector=metadata.logical_sector,
        physical_sector=metadata.physical_sector,
        untrusted_creator=utf16(creator, "little").rstrip(),
        sequence=header.sequence,
        disk_uuid=metadata.disk_uuid,
        file_write_uuid=UUID(bytes_le=header.file_write_uuid),
        data_write_uuid=UUID(bytes_le=header.data_write_uuid),
        table_offset=regions.table.offset,
        table_entries=metadata.table_entries,
        allocated_bytes=blocks * metadata.block_size,
        untrusted_parent=locator.untrusted_paths if locator else (),
        parent_linkage=locator.linkage if locator else None,
        parent_linkage2=locator.linkage2 if locator else None,
    )


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(
        f"damaged VHDX header: {message}",
        path=source.path,
        hint="compare the file with the original",
    )


def _current_header(source: Source) -> _Untrusted:
    """Of the headers with a right checksum the one with the higher sequence number."""
    sectors = [read_exactly(source, offset, _HEADER_BYTES, "the header") for offset in _HEADERS]
    headers = [header for header in map(_valid_header, sectors) if header is not None]
    if not headers:
        raise _bad(source, "neither of its two headers is valid")
    # Disk2vhd writes the same header twice.
    if len(headers) == 2 and headers[0].sequence == headers[1].sequence and len(set(headers)) > 1:
        raise _bad(source, "its two headers differ, and neither is the newer one")
    return max(headers, key=lambda header: header.sequence)


def _valid_header(data: bytes) -> _Untrusted | None:
    header = _Untrusted(*_HEADER.unpack_from(data))
    if header.magic != b"head" or header.version != 1:
        return None
    zeroed = data[: _CHECKSUM.start] + bytes(4) + data[_CHECKSUM.stop :]
    return header if crc32c(zeroed) == header.checksum else None


def _check_log(source: Source, header: _Untrusted) -> None:
    if header.log_version:
        raise Unsupported(
            f"has a log of version {header.log_version}; only 0 is known",
            path=source.path,
            hint="attach and detach a copy of it where it was written, then name that copy",
        )
    if any(header.log_uuid):
        # QEMU refuses too, once it finds an entry; [MS-VHDX] calls a log without any damaged.
        raise Unsupported(
            "was not closed cleanly: its log has to be replayed, which would write to the evidence",
            path=source.path,
            hint="make a copy, run `qemu-img check -r all` on the copy, and name the copy",
        )
    check_region(source, header.log_offset, header.log_length, "the log")


def open_link(file: EvidenceFile, chain: Chain) -> Link:
    """Read the headers. Raises ImageErrors, also for a disk that needs a parent."""
    header = parse(file)
    if header.is_differencing:
        names = ", ".join(
            f'"{shown(hint.untrusted_path[:200])}"' for hint in header.untrusted_parent[:3]
        )
        raise Unsupported(
            f"is a differencing disk: it needs its parent ({names or 'unnamed'}), and such chains "
            "are not supported",
            path=file.path,
            hint="merge the chain in a copy, for example with Merge-VHD",
        )
    node = Node("vhdx", file=chain.add(file))
    return Link(file.path, Format.VHDX, header.virtual_size, (file,), header, node)

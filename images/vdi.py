"""The header of a VDI image of VirtualBox (VirtualBox VDICore.h; QEMU block/vdi.c)."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from uuid import UUID

from images import block_table
from images.block_table import Layout
from images.chain import Chain, Link
from images.detect import Format
from images.errors import MalformedImage, Unsupported
from images.evidence import EvidenceFile, Source, read_exactly, truncated
from images.graph import Node
from images.raw import SECTOR

MAGIC = 0xBEDA107F
_HEADER = struct.Struct("<64sIIIII256sIIIIIIIQIIII16s16s16s16s56x")
_VERSION = 0x00010001
_DYNAMIC, _STATIC, _UNDO, _DIFFERENCING = 1, 2, 3, 4
_SUBFORMATS = {_DYNAMIC: "dynamic", _STATIC: "static"}
# QEMU knows only this size.
_BLOCK = 1 << 20
# Above are the marks for "never written" and "discarded"; both are read as zeroes.
_FIRST_UNUSED = 0xFFFFFFFE


@dataclass(frozen=True, slots=True)
class VdiHeader:
    """Checked values; offsets and sizes in bytes. `virtual_size` is rounded up to a sector.

    `allocated_bytes` is counted from the block map; `allocated_in_header` is what the header
    claims. `modified_uuid` changes with every session that wrote.
    """

    virtual_size: int
    subformat: str
    block_size: int
    blocks: int
    map_offset: int
    data_offset: int
    allocated_bytes: int
    allocated_in_header: int
    uuid: UUID
    modified_uuid: UUID
    untrusted_creator: bytes
    untrusted_description: bytes


@dataclass(frozen=True, slots=True)
class _Untrusted:
    """The fields as they are in the file; UUIDs are stored in the order of Windows."""

    creator: bytes
    magic: int
    version: int
    type: int
    description: bytes
    map_offset: int
    data_offset: int
    sector_size: int
    disk_size: int
    block_size: int
    block_extra: int
    blocks: int
    allocated: int
    uuid: UUID
    modified: UUID
    link: UUID
    parent: UUID


def parse(source: Source) -> VdiHeader:
    """Read and check the header and the block map. Raises MalformedImage or Unsupported."""
    raw = _read_header(source)
    _check_kind(source, raw)
    virtual_size = _check_geometry(source, raw)
    layout = _check_places(source, raw)
    return VdiHeader(
        virtual_size=virtual_size,
        subformat=_SUBFORMATS[raw.type],
        block_size=raw.block_size,
        blocks=raw.blocks,
        map_offset=raw.map_offset,
        data_offset=raw.data_offset,
        allocated_bytes=_count_blocks(source, raw, layout, virtual_size) * raw.block_size,
        allocated_in_header=raw.allocated * raw.block_size,
        uuid=raw.uuid,
        modified_uuid=raw.modified,
        untrusted_creator=raw.creator.partition(b"\0")[0].rstrip(),
        untrusted_description=raw.description.partition(b"\0")[0],
    )


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(
        f"damaged VDI header: {message}",
        path=source.path,
        hint="compare the file with the original",
    )


def _read_header(source: Source) -> _Untrusted:
    data = read_exactly(source, 0, _HEADER.size, "the VDI header")
    creator, magic, version, _, kind, _, description, *rest = _HEADER.unpack(data)
    map_offset, data_offset, _, _, _, sector_size, _, disk_size, *rest = rest
    block_size, block_extra, blocks, allocated, *identities = rest
    raw = _Untrusted(
        creator,
        magic,
        version,
        kind,
        description,
        map_offset,
        data_offset,
        sector_size,
        disk_size,
        block_size,
        block_extra,
        blocks,
        allocated,
        *(UUID(bytes_le=identity) for identity in identities),
    )
    if raw.magic != MAGIC:
        raise _bad(source, "the magic number is missing")
    if raw.version != _VERSION:
        raise Unsupported(
            f"is VDI version {raw.version >> 16}.{raw.version & 0xFFFF}; only 1.1 is known",
            path=source.path,
            hint="convert it with VBoxManage clonemedium, then name that",
        )
    return raw


def _check_kind(source: Source, raw: _Untrusted) -> None:
    # vdi_open() does not look at the type, only at these two identities.
    if raw.type in (_UNDO, _DIFFERENCING) or raw.parent.int or raw.link.int:
        raise Unsupported(
            "is a differencing or undo disk: it holds only what differs from the disk with the "
            f"UUID {raw.parent if raw.parent.int else raw.link}",
            path=source.path,
            hint="merge both where they can be trusted, with VBoxManage clonemedium, and name "
            "the result",
        )
    if raw.type not in _SUBFORMATS:
        raise _bad(source, f"image type {raw.type} is not possible")
    if raw.block_size != _BLOCK or raw.block_extra:
        raise Unsupported(
            f"has blocks of {raw.block_size} bytes with {raw.block_extra} bytes more in front; "
            f"only {_BLOCK} bytes with nothing in front are known",
            path=source.path,
            hint="convert it with VBoxManage clonemedium, then name that",
        )


def _check_geometry(source: Source, raw: _Untrusted) -> int:
    if raw.sector_size != SECTOR:
        raise _bad(source, f"a sector of {raw.sector_size} bytes is not possible")
    size = -(-raw.disk_size // SECTOR) * SECTOR
    # A block map that fits into its own limit keeps this far below any other limit.
    if not 0 < size <= raw.blocks * raw.block_size:
        raise _bad(source, f"a disk of {size} bytes does not go with {raw.blocks} blocks")
    if raw.allocated > raw.blocks:
        raise _bad(source, f"{raw.allocated} of its {raw.blocks} blocks are said to be in use")
    return size


def _check_places(source: Source, raw: _Untrusted) -> Layout:
    if raw.map_offset % SECTOR or raw.data_offset % SECTOR:
        raise _bad(source, "its block map or its data does not start at a sector")
    # QEMU reads the map in whole sectors.
    length = -(-raw.blocks * 4 // SECTOR) * SECTOR
    block_table.check_table(source, raw.map_offset, length, "the block map")
    layout = Layout()
    layout.add(0, _HEADER.size, "the header")
    if layout.add(raw.map_offset, length, "the block map") is not None:
        raise _bad(source, "the block map lies over the header")
    return layout


def _count_blocks(source: Source, raw: _Untrusted, layout: Layout, virtual_size: int) -> int:
    """How many blocks are in the file. The disk's last one may be cut where the disk ends."""
    blocks = 0
    last = -(-virtual_size // raw.block_size) - 1
    for first, table in block_table.chunks(
        source, raw.map_offset, raw.blocks, "<I", "the block map"
    ):
        used = Counter(block for block in table if block < _FIRST_UNUSED)
        blocks += used.total()
        final = table[last - first] if first <= last < first + len(table) else None
        for block, uses in used.items():
            offset = raw.data_offset + block * raw.block_size
            length = raw.block_size
            if block == final and uses == 1:
                length = virtual_size - last * raw.block_size
            if offset + length > source.size:
                raise truncated(source, offset + length, "a block of the VDI image")
            other = layout.at(offset, length)
            if other is not None:
                raise _bad(source, f"block {block} of its data lies over {other}")
    return blocks


def open_link(file: EvidenceFile, chain: Chain) -> Link:
    """Read the header; a VDI that is accepted stands on nothing. Raises ImageErrors."""
    header = parse(file)
    node = Node("vdi", file=chain.add(file))
    return Link(file.path, Format.VDI, header.virtual_size, (file,), header, node)

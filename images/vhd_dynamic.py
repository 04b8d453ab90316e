"""The header and the block table of a dynamic or differencing VHD.

Facts: "Virtual Hard Disk Image Format Specification" 1.0, Microsoft; QEMU block/vpc.c.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from uuid import UUID

from images import block_table
from images.block_table import Layout
from images.errors import MalformedImage, Unsupported
from images.evidence import Source, read_exactly, truncated
from images.parent_hint import ParentHint, utf16
from images.raw import SECTOR

MAGIC = b"cxsparse"
_HEADER = struct.Struct(">8sQQIIII16sII512s")
_LENGTH = 1024
_CHECKSUM_OFFSET = 36
_LOCATOR = struct.Struct(">4sIIIQ")
_LOCATORS = 8
# The longest path of Windows, in UTF-16.
_MAX_LOCATOR = 64 << 10
_UNUSED = 0xFFFFFFFF
_PREFERENCE = ("W2ru", "W2ku", "MacX", "Wi2r", "Wi2k")


@dataclass(frozen=True, slots=True)
class DynamicDisk:
    """Checked values; offsets and sizes in bytes.

    Each block in the file is `bitmap_size` bytes that say which sectors are in it, then
    `block_size` bytes of data. `parent_timestamp` is in seconds since 2000, UTC. The parent's
    fields mean something only for a differencing disk.
    """

    block_size: int
    bitmap_size: int
    table_offset: int
    table_entries: int
    allocated_bytes: int
    parent_uuid: UUID
    parent_timestamp: int
    untrusted_parent: tuple[ParentHint, ...]


@dataclass(frozen=True, slots=True)
class _Untrusted:
    table_offset: int
    entries: int
    block_size: int
    parent_uuid: UUID
    parent_timestamp: int
    parent_name: bytes
    locators: tuple[tuple[bytes, int, int], ...]

    @property
    def bitmap_size(self) -> int:
        """One bit for each sector, rounded up to a sector."""
        return -(-self.block_size // (8 * SECTOR * SECTOR)) * SECTOR


def parse_dynamic(
    source: Source, *, offset: int, footer_offset: int, virtual_size: int, differencing: bool
) -> DynamicDisk:
    """Read and check the header at `offset` and the block table. All numbers are in bytes.

    Raises MalformedImage, or Unsupported for an unknown version or too large a table.
    """
    raw = _read_header(source, offset)
    _check_geometry(source, raw, virtual_size)
    layout = Layout()
    _place(source, layout, 0, SECTOR, "the copy of the footer")
    _place(source, layout, footer_offset, SECTOR, "the footer")
    _place(source, layout, offset, _LENGTH, "the dynamic disk header")
    block_table.check_table(source, raw.table_offset, raw.entries * 4, "the block table")
    _place(source, layout, raw.table_offset, raw.entries * 4, "the block table")
    parent = _parents(source, layout, raw) if differencing else ()
    if differencing and not raw.parent_uuid.int:
        raise _bad(source, "it is a differencing disk, but does not say which its parent is")
    return DynamicDisk(
        block_size=raw.block_size,
        bitmap_size=raw.bitmap_size,
        table_offset=raw.table_offset,
        table_entries=raw.entries,
        allocated_bytes=_count_blocks(source, layout, raw) * raw.block_size,
        parent_uuid=raw.parent_uuid,
        parent_timestamp=raw.parent_timestamp,
        untrusted_parent=parent,
    )


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(
        f"damaged VHD image: {message}",
        path=source.path,
        hint="compare the file with the original",
    )


def _read_header(source: Source, offset: int) -> _Untrusted:
    data = read_exactly(source, offset, _LENGTH, "the dynamic disk header")
    magic, _, table_offset, version, entries, block_size, checksum, *parent = _HEADER.unpack_from(
        data
    )
    if magic != MAGIC:
        raise _bad(source, "the dynamic disk header is missing")
    rest = sum(data) - sum(data[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + 4])
    if ~rest & 0xFFFFFFFF != checksum:
        raise _bad(source, "the checksum of the dynamic disk header is wrong")
    if version >> 16 != 1:
        raise Unsupported(
            f"has a dynamic disk header of version {version >> 16}; only 1 is known",
            path=source.path,
            hint="convert it with the program that wrote it, then name that",
        )
    identity, timestamp, _, name = parent
    locators = data[_HEADER.size : _HEADER.size + _LOCATORS * _LOCATOR.size]
    return _Untrusted(
        table_offset=table_offset,
        entries=entries,
        block_size=block_size,
        parent_uuid=UUID(bytes=identity),
        parent_timestamp=timestamp,
        parent_name=name,
        locators=tuple(
            (code, place, length) for code, _, length, _, place in _LOCATOR.iter_unpack(locators)
        ),
    )


def _check_geometry(source: Source, raw: _Untrusted, virtual_size: int) -> None:
    if raw.block_size < SECTOR or raw.block_size & (raw.block_size - 1):
        raise _bad(source, f"a block of {raw.block_size} bytes is not possible")
    if raw.entries * raw.block_size < virtual_size:
        raise _bad(source, f"its block table of {raw.entries} entries is too small for the disk")


def _place(source: Source, layout: Layout, offset: int, length: int, what: str) -> None:
    other = layout.add(offset, length, what)
    if other is not None:
        raise _bad(source, f"{what} and {other} lie in the same place")


def _parents(source: Source, layout: Layout, raw: _Untrusted) -> tuple[ParentHint, ...]:
    """The name first, then the locators from relative to absolute, current to obsolete ones."""
    found: dict[str, str] = {}
    for code, offset, length in raw.locators:
        kind = code.decode("ascii", "replace")
        if kind not in _PREFERENCE or not length:
            continue
        if kind in found:
            raise _bad(source, f"it has two parent locators of the kind {kind}")
        if length > _MAX_LOCATOR:
            raise _bad(source, f"a parent locator of {length} bytes is not possible")
        what = f"the parent locator {kind}"
        data = read_exactly(source, offset, length, what)
        _place(source, layout, offset, length, what)
        is_url = kind == "MacX"
        found[kind] = data.decode("utf-8", "replace") if is_url else utf16(data, "little")
    name = utf16(raw.parent_name, "big")
    hints = [ParentHint("name", name)] if name else []
    hints += [ParentHint(kind, found[kind]) for kind in _PREFERENCE if kind in found]
    return tuple(hints)


def _count_blocks(source: Source, layout: Layout, raw: _Untrusted) -> int:
    """How many blocks are in the file; QEMU too looks at all entries, needed or not."""
    length = raw.bitmap_size + raw.block_size
    blocks = 0
    for _, table in block_table.chunks(
        source, raw.table_offset, raw.entries, ">I", "the block table"
    ):
        used = Counter(table)
        used.pop(_UNUSED, None)
        blocks += used.total()
        for sector in used:
            if sector * SECTOR + length > source.size:
                raise truncated(source, sector * SECTOR + length, "a block of the VHD image")
            other = layout.at(sector * SECTOR, length)
            if other is not None:
                raise _bad(source, f"a block (sector {sector}) lies over {other}")
    return blocks

"""The footer of a VHD image ("Virtual Hard Disk Image Format Specification" 1.0; QEMU block/vpc.c).

A fixed disk is raw data with a footer behind it; the others also have a copy of it at the start.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from images.chain import Chain, Link
from images.detect import Format
from images.errors import MalformedImage, Unsupported
from images.evidence import EvidenceFile, Source, read_exactly, truncated
from images.graph import Node
from images.parent_hint import ParentHint
from images.quoting import shown
from images.raw import SECTOR
from images.vhd_dynamic import DynamicDisk, parse_dynamic

MAGIC = b"conectix"
_FOOTER = struct.Struct(">8sIIQI4sHH4sQQHBBII16sB")
_CHECKSUM_OFFSET = 64
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_SUBFORMATS = {_FIXED: "fixed", _DYNAMIC: "dynamic", _DIFFERENCING: "differencing"}

# vpc_open() in QEMU 7.2: these creators mean the size; of the others only the geometry counts.
_CREATORS_BY_SIZE = frozenset({b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS"})
_MAX_GEOMETRY = 65535 * 16 * 255 * SECTOR
_MAX_SIZE = 0xFF000000 * SECTOR
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class VhdHeader:
    """Checked values; offsets and sizes in bytes.

    `virtual_size` is the disk: of a fixed and of a differencing one what the footer says, of a
    dynamic one what QEMU 7.2 shows, which can be `size_by_geometry`. `timestamp` counts seconds
    since 2000, UTC. `old_footer`: 511 bytes, as Virtual PC wrote it before 2004.
    """

    virtual_size: int
    subformat: str
    size_in_footer: int
    size_by_geometry: int
    original_size: int
    timestamp: int
    untrusted_creator: bytes
    creator_version: tuple[int, int]
    untrusted_creator_system: bytes
    uuid: UUID
    saved_state: bool
    old_footer: bool
    allocated_bytes: int
    dynamic: DynamicDisk | None

    @property
    def is_differencing(self) -> bool:
        """It needs a parent; QEMU's driver does not know that and would show zeroes instead."""
        return self.subformat == "differencing"

    @property
    def block_size(self) -> int | None:
        """In bytes; None for a fixed disk."""
        return self.dynamic.block_size if self.dynamic else None

    @property
    def created(self) -> datetime:
        """The time stamp as a date; the clock of the creating system may have been wrong."""
        return _EPOCH + timedelta(seconds=self.timestamp)

    @property
    def untrusted_parent(self) -> tuple[ParentHint, ...]:
        """Hints in the order of preference; empty unless differencing."""
        return self.dynamic.untrusted_parent if self.dynamic and self.is_differencing else ()

    @property
    def parent_uuid(self) -> UUID | None:
        """The `uuid` that the right parent has; None unless differencing."""
        return self.dynamic.parent_uuid if self.dynamic and self.is_differencing else None

    @property
    def parent_timestamp(self) -> int | None:
        """When the parent was last changed, in seconds since 2000, UTC."""
        return self.dynamic.parent_timestamp if self.dynamic and self.is_differencing else None


@dataclass(frozen=True, slots=True)
class _Footer:
    """The fields as they are in the file, where they lie, and a checksum that was right."""

    offset: int
    length: int
    data_offset: int
    timestamp: int
    creator: bytes
    creator_version: tuple[int, int]
    creator_system: bytes
    original_size: int
    current_size: int
    geometry_size: int
    type: int
    uuid: UUID
    saved_state: bool

    @property
    def identity(self) -> tuple[object, ...]:
        """What both copies must agree about."""
        return (
            self.data_offset,
            self.creator,
            self.current_size,
            self.geometry_size,
            self.type,
            self.uuid,
        )


def parse(source: Source) -> VhdHeader:
    """Read and check the footer, and the tables of a disk that has some.

    Raises MalformedImage, or Unsupported for an unknown version or too large a table.
    """
    footer = _footer_at_end(source)
    if footer.type == _FIXED:
        _check_fixed(source, footer)
        return _header(footer, footer.current_size, footer.current_size, None)
    size = _disk_size(source, footer)
    disk = parse_dynamic(
        source,
        offset=footer.data_offset,
        footer_offset=footer.offset,
        virtual_size=size,
        differencing=footer.type == _DIFFERENCING,
    )
    return _header(footer, size, disk.allocated_bytes, disk)


def _header(footer: _Footer, size: int, allocated: int, disk: DynamicDisk | None) -> VhdHeader:
    return VhdHeader(
        virtual_size=size,
        subformat=_SUBFORMATS[footer.type],
        size_in_footer=footer.current_size,
        size_by_geometry=footer.geometry_size,
        original_size=footer.original_size,
        timestamp=footer.timestamp,
        untrusted_creator=footer.creator,
        creator_version=footer.creator_version,
        untrusted_creator_system=footer.creator_system,
        uuid=footer.uuid,
        saved_state=footer.saved_state,
        old_footer=footer.length < SECTOR,
        allocated_bytes=allocated,
        dynamic=disk,
    )


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(
        f"damaged VHD image: {message}",
        path=source.path,
        hint="compare the file with the original",
    )


def _unknown(source: Source, message: str) -> Unsupported:
    return Unsupported(
        message, path=source.path, hint="convert it with the program that wrote it, then name that"
    )


def _footer_at_end(source: Source) -> _Footer:
    """The footer behind the data, which must agree with the copy at the start if there is one."""
    has_copy = source.read(0, len(MAGIC)) == MAGIC
    tail = read_exactly(source, max(0, source.size - SECTOR), SECTOR, "the VHD footer")
    if tail.startswith(MAGIC):
        footer = _parse_footer(source, tail, source.size - SECTOR)
    elif tail[1:].startswith(MAGIC) and source.size % SECTOR == SECTOR - 1:
        # QEMU rounds the file up to a sector, so it accepts these 511 bytes too.
        footer = _parse_footer(source, tail[1:], source.size - SECTOR + 1)
    elif has_copy:
        raise truncated(source, source.size + SECTOR, "the VHD image (its footer is missing)")
    else:
        raise _bad(source, "the footer is missing")
    if not has_copy and footer.type != _FIXED:
        raise _bad(source, "the copy of the footer at the start is missing")
    if has_copy:
        copy = _parse_footer(source, read_exactly(source, 0, SECTOR, "the VHD header"), 0)
        # QEMU believes the copy and takes any image that has one for a dynamic disk.
        if footer.type == _FIXED or copy.identity != footer.identity:
            raise _bad(source, "the footer and its copy at the start contradict each other")
    return footer


def _parse_footer(source: Source, data: bytes, offset: int) -> _Footer:
    fields = _FOOTER.unpack_from(data)
    _, _, version, data_offset, timestamp, creator, major, minor, system = fields[:9]
    original_size, current_size, cylinders, heads, sectors, kind, checksum = fields[9:16]
    rest = sum(data) - sum(data[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + 4])
    where = "copy of the footer at the start" if offset == 0 else "footer"
    if ~rest & 0xFFFFFFFF != checksum:
        raise _bad(source, f"the checksum of the {where} is wrong")
    if version >> 16 != 1:
        raise _unknown(source, f"is VHD version {version >> 16}; only 1 is known")
    if kind not in _SUBFORMATS:
        raise _unknown(source, f"is a VHD of type {kind}; 2, 3 and 4 are known")
    if current_size == 0 or current_size % SECTOR:
        raise _bad(source, f"a size of {current_size} bytes is not possible")
    return _Footer(
        offset=offset,
        length=len(data),
        data_offset=data_offset,
        timestamp=timestamp,
        creator=creator,
        creator_version=(major, minor),
        creator_system=system,
        original_size=original_size,
        current_size=current_size,
        geometry_size=cylinders * heads * sectors * SECTOR,
        type=kind,
        uuid=UUID(bytes=fields[16]),
        saved_state=bool(fields[17]),
    )


def _check_fixed(source: Source, footer: _Footer) -> None:
    if footer.current_size > footer.offset:
        raise truncated(source, footer.current_size + footer.length, "the data of the fixed VHD")


def _disk_size(source: Source, footer: _Footer) -> int:
    size = footer.current_size
    by_geometry = footer.creator not in _CREATORS_BY_SIZE and footer.geometry_size != _MAX_GEOMETRY
    if footer.type == _DYNAMIC and by_geometry:
        size = footer.geometry_size
    if not 0 < size <= _MAX_SIZE:
        raise _bad(source, f"a disk of {size} bytes is not possible")
    return size


def open_link(file: EvidenceFile, chain: Chain) -> Link:
    """Read the footer. Raises ImageErrors, also for a disk that needs a parent."""
    header = parse(file)
    if header.is_differencing:
        raise _needs_parent(file, header.untrusted_parent)
    number = chain.add(file)
    if header.dynamic is None:
        # Nothing but the disk and the footer: no driver has to understand it.
        node = Node("raw", file=number, size=header.virtual_size)
    else:
        node = Node("vpc", file=number)
    notes = []
    if header.virtual_size < header.size_in_footer:
        notes.append(
            f"the disk is shown by its geometry, without the last "
            f"{header.size_in_footer - header.virtual_size} bytes that its footer speaks of"
        )
    if header.saved_state:
        notes.append("it belongs to a virtual machine that was suspended")
    return Link(file.path, Format.VHD, header.virtual_size, (file,), header, node, tuple(notes))


def _needs_parent(source: Source, hints: tuple[ParentHint, ...]) -> Unsupported:
    names = ", ".join(f'"{shown(hint.untrusted_path[:200])}"' for hint in hints[:3])
    return Unsupported(
        f"is a differencing disk: it needs its parent ({names or 'unnamed'}), and such chains are "
        "not supported",
        path=source.path,
        hint="merge the chain in a copy, for example with VBoxManage clonemedium or Merge-VHD",
    )

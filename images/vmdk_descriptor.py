"""The text descriptor of a VMDK ("Virtual Disk Format 5.0", VMware; QEMU block/vmdk.c)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from images.errors import MalformedImage, PolicyViolation, Unsupported
from images.evidence import Source
from images.quoting import shown
from images.raw import MAX_VIRTUAL_SIZE, SECTOR

MAX_BYTES = 1 << 20
MAX_EXTENTS = 4096
# QEMU's vmdk_parent_open() searches this range of a file with an embedded descriptor,
# wherever the header says that the descriptor lies.
QEMU_RANGE = (0x200, 20 * SECTOR)


class Access(StrEnum):
    READ_WRITE = "RW"
    READ_ONLY = "RDONLY"
    NONE = "NOACCESS"


class ExtentType(StrEnum):
    FLAT = "FLAT"
    SPARSE = "SPARSE"
    ZERO = "ZERO"


@dataclass(frozen=True, slots=True)
class ExtentLine:
    """One extent; sizes in sectors. The name is as it stands in the image, unchecked."""

    access: Access
    sectors: int
    type: ExtentType
    untrusted_name: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """`create_type` is one of the types known here; extents in the order of the disk."""

    create_type: str
    extents: tuple[ExtentLine, ...]

    @property
    def sectors(self) -> int:
        return sum(extent.sectors for extent in self.extents)


EMBEDDED_TYPES = frozenset({"monolithicSparse", "streamOptimized"})
SEPARATE_TYPES = {
    "monolithicFlat": ExtentType.FLAT,
    "twoGbMaxExtentFlat": ExtentType.FLAT,
    "twoGbMaxExtentSparse": ExtentType.SPARSE,
}

_PARENT_CID = re.compile(rb"parentCID([^\n]*)")
_NO_PARENT = re.compile(rb"[ \t]*=[ \t]*\"?(?:0x)?f{8}\"?[ \t\r]*\Z", re.IGNORECASE)
_CREATE_TYPE = re.compile(rb"^[ \t]*createType[ \t]*=[ \t]*\"([^\"\n]*)\"[ \t\r]*$", re.MULTILINE)
_EXTENT_START = re.compile(rb"[ \t]*(?:RW|RDONLY|NOACCESS)[ \t]")
_EXTENT = re.compile(
    rb"[ \t]*(RW|RDONLY|NOACCESS)[ \t]+([0-9]{1,19})[ \t]+([A-Za-z0-9]{1,16})"
    rb"(?:[ \t]+\"([^\"\r\n]*)\"(?:[ \t]+([0-9]{1,19}))?)?[ \t\r]*"
)


def refuse_parent(source: Source, untrusted_bytes: bytes) -> None:
    """Raise PolicyViolation if any byte of the range could name a parent.

    QEMU finds `parentFileNameHint` with strstr(): in comments and other keys' values too.
    """
    found = b"parentFileNameHint" in untrusted_bytes
    for match in _PARENT_CID.finditer(untrusted_bytes):
        value = match[1].split(b"\0", 1)[0]
        found = found or _NO_PARENT.match(value) is None
    if found:
        raise PolicyViolation(
            "depends on another image (VMDK parent)",
            path=source.path,
            hint="name a self-contained image, for example a consolidated snapshot",
        )


def parse(source: Source, untrusted_bytes: bytes) -> Descriptor:
    """Check a whole descriptor. Raises MalformedImage, PolicyViolation or Unsupported."""
    if len(untrusted_bytes) > MAX_BYTES:
        raise MalformedImage("its descriptor is larger than 1 MiB", path=source.path)
    refuse_parent(source, untrusted_bytes)
    text = untrusted_bytes.split(b"\0", 1)[0]
    create_type = _create_type(source, text)
    lines = [line for line in text.split(b"\n") if _EXTENT_START.match(line)]
    if not 0 < len(lines) <= MAX_EXTENTS:
        raise MalformedImage(
            f"its descriptor lists {len(lines)} extents; 1 to {MAX_EXTENTS} are possible",
            path=source.path,
        )
    descriptor = Descriptor(create_type, tuple(_extent(source, line) for line in lines))
    if descriptor.sectors > MAX_VIRTUAL_SIZE // SECTOR:
        raise MalformedImage("its extents add up to an impossible size", path=source.path)
    return descriptor


def _create_type(source: Source, text: bytes) -> str:
    found = set(_CREATE_TYPE.findall(text))
    if len(found) != 1:
        raise MalformedImage(
            "its descriptor has no createType" if not found else "it has several createTypes",
            path=source.path,
        )
    untrusted_type = shown(found.pop()[:64])
    if untrusted_type not in EMBEDDED_TYPES and untrusted_type not in SEPARATE_TYPES:
        raise Unsupported(
            f'is a VMDK of type "{untrusted_type}", which is not supported',
            path=source.path,
            hint="convert it to a raw image with VMware's own tools",
        )
    return untrusted_type


def _extent(source: Source, line: bytes) -> ExtentLine:
    match = _EXTENT.fullmatch(line)
    if match is None:
        raise MalformedImage(
            f'its descriptor has a damaged extent line: "{shown(line[:200])}"', path=source.path
        )
    access, sectors, kind, name, offset = match.groups()
    if kind.decode() not in set(ExtentType):
        raise Unsupported(f"has an extent of type {shown(kind)}", path=source.path)
    extent = ExtentLine(
        Access(access.decode()),
        int(sectors),
        ExtentType(kind.decode()),
        name or b"",
        int(offset or b"0"),
    )
    _check_extent(source, extent, line, has_offset=offset is not None)
    return extent


def _check_extent(source: Source, extent: ExtentLine, line: bytes, *, has_offset: bool) -> None:
    if extent.access is Access.NONE:
        raise Unsupported(
            "has an extent marked NOACCESS, whose content the image withholds", path=source.path
        )
    limit = MAX_VIRTUAL_SIZE // SECTOR
    in_range = 0 < extent.sectors <= limit and extent.offset <= limit - extent.sectors
    name_fits = bool(extent.untrusted_name) or extent.type is ExtentType.ZERO
    offset_fits = {
        ExtentType.FLAT: has_offset,
        ExtentType.SPARSE: not has_offset,
        ExtentType.ZERO: True,
    }[extent.type]
    if not (in_range and name_fits and offset_fits):
        raise MalformedImage(
            f'its descriptor has an impossible extent line: "{shown(line[:200])}"',
            path=source.path,
        )

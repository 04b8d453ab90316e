"""The text descriptor of a VMDK ("Virtual Disk Format 5.0", VMware; QEMU block/vmdk.c)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from images.errors import MalformedImage, PolicyViolation, Unsupported
from images.evidence import Source
from images.graph import NO_PARENT
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
    VMFS = "VMFS"
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
    """`create_type` is one of the types known here; extents in the order of the disk.

    The content IDs are numbers of 32 bits; `untrusted_parent` is the parent's name, if any.
    """

    create_type: str
    extents: tuple[ExtentLine, ...]
    content_id: int | None
    parent_id: int
    untrusted_parent: bytes | None

    @property
    def sectors(self) -> int:
        return sum(extent.sectors for extent in self.extents)


EMBEDDED_TYPES = frozenset({"monolithicSparse", "streamOptimized"})
SEPARATE_TYPES = {
    "monolithicFlat": ExtentType.FLAT,
    "twoGbMaxExtentFlat": ExtentType.FLAT,
    "twoGbMaxExtentSparse": ExtentType.SPARSE,
    "vmfs": ExtentType.VMFS,
}
"""With what their extents are; a vmfs one is flat and begins at its file's start."""

_CONTENT_ID = re.compile(rb"^[ \t]*CID[ \t]*=[ \t]*([0-9a-fA-F]{1,8})[ \t\r]*$", re.MULTILINE)
_PARENT_ID = re.compile(
    rb"^[ \t]*parentCID[ \t]*=[ \t]*\"?(?:0x)?([0-9a-fA-F]{1,8})\"?[ \t\r]*$", re.MULTILINE
)
_PARENT_NAME = re.compile(
    rb"^[ \t]*parentFileNameHint[ \t]*=[ \t]*\"([^\"\r\n]+)\"[ \t\r]*$", re.MULTILINE
)
_CREATE_TYPE = re.compile(rb"^[ \t]*createType[ \t]*=[ \t]*\"([^\"\n]*)\"[ \t\r]*$", re.MULTILINE)
_EXTENT_START = re.compile(rb"[ \t]*(?:RW|RDONLY|NOACCESS)[ \t]")
_EXTENT = re.compile(
    rb"[ \t]*(RW|RDONLY|NOACCESS)[ \t]+([0-9]{1,19})[ \t]+([A-Za-z0-9]{1,16})"
    rb"(?:[ \t]+\"([^\"\r\n]*)\"(?:[ \t]+([0-9]{1,19}))?)?[ \t\r]*"
)


def refuse_hidden_parent(
    source: Source, untrusted_bytes: bytes, untrusted_text: bytes = b""
) -> None:
    """Raise PolicyViolation where anything but a line of the descriptor could name a parent.

    QEMU finds the words with strstr(): in comments, in other keys' values and behind the text's
    end too. `untrusted_text` is the part whose well-formed lines are read as what they are.
    """
    for word, line in ((b"parentFileNameHint", _PARENT_NAME), (b"parentCID", _PARENT_ID)):
        if untrusted_bytes.count(word) != len(line.findall(untrusted_text)):
            raise PolicyViolation(
                f"has {word.decode()} where it is not a line of its descriptor; other programs "
                "could take it for one",
                path=source.path,
                hint="this may be an attack: find out where the image came from",
            )


def parse(source: Source, untrusted_bytes: bytes) -> Descriptor:
    """Check a whole descriptor. Raises MalformedImage, PolicyViolation or Unsupported."""
    if len(untrusted_bytes) > MAX_BYTES:
        raise MalformedImage("its descriptor is larger than 1 MiB", path=source.path)
    text = untrusted_bytes.split(b"\0", 1)[0]
    refuse_hidden_parent(source, untrusted_bytes, text)
    create_type = _create_type(source, text)
    lines = [line for line in text.split(b"\n") if _EXTENT_START.match(line)]
    if not 0 < len(lines) <= MAX_EXTENTS:
        raise MalformedImage(
            f"its descriptor lists {len(lines)} extents; 1 to {MAX_EXTENTS} are possible",
            path=source.path,
        )
    descriptor = Descriptor(
        create_type, tuple(_extent(source, line) for line in lines), *_ancestry(source, text)
    )
    if descriptor.sectors > MAX_VIRTUAL_SIZE // SECTOR:
        raise MalformedImage("its extents add up to an impossible size", path=source.path)
    return descriptor


def _ancestry(source: Source, text: bytes) -> tuple[int | None, int, bytes | None]:
    """Content ID, parent's content ID, and the parent's name."""
    own = [int(each, 16) for each in _CONTENT_ID.findall(text)]
    above = [int(each, 16) for each in _PARENT_ID.findall(text)]
    names = _PARENT_NAME.findall(text)
    if max(len(own), len(above), len(names)) > 1:
        raise MalformedImage(
            "its descriptor gives a content ID or a parent twice", path=source.path
        )
    parent_id = above[0] if above else NO_PARENT
    if (parent_id == NO_PARENT) == bool(names):
        raise MalformedImage(
            "its descriptor names a parent without its content ID, or the other way round",
            path=source.path,
            hint="correct the descriptor in a copy of the image",
        )
    return own[0] if own else None, parent_id, names[0] if names else None


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
        ExtentType.VMFS: not extent.offset,
        ExtentType.SPARSE: not has_offset,
        ExtentType.ZERO: True,
    }[extent.type]
    if not (in_range and name_fits and offset_fits):
        raise MalformedImage(
            f'its descriptor has an impossible extent line: "{shown(line[:200])}"',
            path=source.path,
        )

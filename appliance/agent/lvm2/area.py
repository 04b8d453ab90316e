"""What LVM2 keeps at the beginning of a physical volume: the label, and areas with metadata.

Layouts: lib/format_text/layout.h and lib/label/label.c of LVM2. The label is in one of the first
four sectors of 512 bytes; a metadata area is a header of one sector and a ring buffer of text.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

SECTOR = 512
MAX_TEXT = 8 << 20
"""Longest metadata text that is read; LVM's default area has 1 MiB."""

USUAL_OFFSET = 4096
"""Where LVM puts the first metadata area."""

_MAX_AREAS = 8
_LABEL = struct.Struct("<8sQII8s")
_MAGIC = b"\x20LVM2\x20x[5A%r0N*>"
_AREA = struct.Struct("<I16sIQQ")
_LOCATION = struct.Struct("<QQII")
_IGNORED = 1
_LETTERS = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#"
_CUTS = ((0, 6), (6, 10), (10, 14), (14, 18), (18, 22), (22, 26), (26, 32))

Read = Callable[[int, int], bytes]
"""Volume.read: up to so many bytes at an offset. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Area:
    """Where a metadata area is on its physical volume, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Label:
    """A label: `uuid` of the physical volume, its size in bytes as LVM knew it, its areas."""

    sector: int
    uuid: str
    size: int
    is_good: bool
    areas: list[Area] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Copy:
    """A metadata text from one area. `problem` says what is wrong with it, "" for nothing."""

    area: Area
    text: bytes
    problem: str = ""


def checksum(data: bytes) -> int:
    """LVM's CRC-32: the usual polynomial, an own start value, no final inversion."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def read_label(read: Read) -> Label | None:
    """The label, None where there is none. Raises OSError."""
    start = read(0, 4 * SECTOR)
    for sector in range(4):
        data = start[sector * SECTOR : (sector + 1) * SECTOR]
        if len(data) == SECTOR and data.startswith(b"LABELONE") and data[24:32] == b"LVM2 001":
            return _label(sector, data)
    return None


def _label(sector: int, data: bytes) -> Label:
    _, number, crc, offset, _ = _LABEL.unpack_from(data)
    is_good = number == sector and crc == checksum(data[20:])
    header = data[offset:] if _LABEL.size <= offset < SECTOR - 40 else data[_LABEL.size :]
    raw, size = struct.unpack_from("<32sQ", header)
    _, after = _area_list(header, 40)
    areas, _ = _area_list(header, after)
    return Label(sector, with_dashes(raw), size, is_good, areas)


def _area_list(header: bytes, at: int) -> tuple[list[Area], int]:
    """Pairs of numbers until an offset of 0, and what follows them."""
    areas: list[Area] = []
    while at + 16 <= len(header):
        offset, size = struct.unpack_from("<QQ", header, at)
        at += 16
        if offset == 0:
            break
        if len(areas) < _MAX_AREAS and offset < 2**62 and size < 2**62:
            areas.append(Area(offset, size))
    return areas, at


def with_dashes(raw: bytes) -> str:
    """A UUID as LVM shows it, from its 32 letters."""
    letters = "".join(chr(byte) if byte in _LETTERS else "?" for byte in raw)
    return "-".join(letters[begin:end] for begin, end in _CUTS)


def read_copy(read: Read, area: Area) -> Copy | None:
    """The text of one area, None where the area is not used. Raises OSError."""
    header = read(area.offset, SECTOR)
    if len(header) < SECTOR:
        return Copy(area, b"", "the metadata area lies behind the end of the device")
    crc, magic, version, start, size = _AREA.unpack_from(header)
    if magic != _MAGIC:
        return Copy(area, b"", "the header of the metadata area is not there")
    offset, length, text_crc, flags = _LOCATION.unpack_from(header, _AREA.size)
    if crc != checksum(header[4:]) or version != 1 or start != area.offset:
        problem = "the header of the metadata area does not fit its checksum"
    else:
        problem = ""
    if offset == 0 or length == 0 or flags & _IGNORED:
        return Copy(area, b"", problem) if problem else None
    if length > min(MAX_TEXT, size) or not SECTOR <= offset < size or size > 2**62:
        return Copy(area, b"", problem or "the metadata is too long, or not in its area")
    first = min(length, size - offset)
    text = read(area.offset + offset, first) + read(area.offset + SECTOR, length - first)
    if checksum(text) != text_crc:
        problem = problem or "the metadata does not fit its checksum"
    return Copy(area, text, problem)


def has_area(read: Read) -> bool:
    """Whether there is a used metadata area in its usual place. Raises OSError."""
    header = read(USUAL_OFFSET, SECTOR)
    if len(header) < SECTOR or header[4:20] != _MAGIC:
        return False
    copy = read_copy(read, Area(USUAL_OFFSET, _AREA.unpack_from(header)[4]))
    return copy is not None and not copy.problem


def packed_area(area: Area, text: bytes) -> bytes:
    """The header of an area with `text` as its metadata, and the text."""
    location = _LOCATION.pack(SECTOR, len(text), checksum(text), 0)
    checked = (_MAGIC + struct.pack("<IQQ", 1, area.offset, area.size) + location).ljust(
        SECTOR - 4, b"\0"
    )
    return struct.pack("<I", checksum(checked)) + checked + text


def packed_label(sector: int, uuid: str, size: int, data_offset: int, areas: list[Area]) -> bytes:
    """A label sector; `size` and `data_offset` in bytes."""
    header = uuid.replace("-", "").encode() + struct.pack("<Q", size)
    header += struct.pack("<QQQQ", data_offset, 0, 0, 0)
    header += b"".join(struct.pack("<QQ", each.offset, each.size) for each in areas) + bytes(16)
    header += struct.pack("<IIQQ", 2, 1, 0, 0)
    checked = (struct.pack("<I8s", _LABEL.size, b"LVM2 001") + header).ljust(SECTOR - 20, b"\0")
    return struct.pack("<8sQI", b"LABELONE", sector, checksum(checked)) + checked

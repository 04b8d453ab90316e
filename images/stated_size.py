"""How large a disk is according to the header of its image, read without checking anything else.

For lists of images: a few KiB are read, whatever the file holds. What opens an image checks it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from images.block_table import Layout
from images.detect import HEAD, Format, is_text_descriptor
from images.errors import ImageError
from images.evidence import Source
from images.raw import MAX_VIRTUAL_SIZE, SECTOR
from images.vhdx_metadata import parse_metadata
from images.vhdx_region import parse_regions
from images.vmdk import parse_text

_FOOTER = 512
_EWF_FIRST_SECTION = 13
_EWF_SECTION = struct.Struct("<16sQQ")
_EWF_SECTION_SIZE = 76
_EWF_SECTIONS = 8
"""Sections looked through for the geometry; it is among the first three or four."""


def stated_size(form: Format, source: Source) -> int | None:
    """In bytes; None where it is not said, makes no sense, or cannot be read."""
    read = _READERS.get(form)
    try:
        size = read(source) if read else None
    except (ImageError, struct.error):
        return None
    return size if size is not None and 0 < size <= MAX_VIRTUAL_SIZE else None


def _field(form: str, offset: int, unit: int = 1) -> Callable[[Source], int]:
    def read(source: Source) -> int:
        packed = struct.Struct(form)
        (value,) = packed.unpack(source.read(offset, packed.size))
        return int(value) * unit

    return read


def _vhd(source: Source) -> int:
    tail = source.read(max(0, source.size - _FOOTER), _FOOTER)
    return int.from_bytes(tail[tail.find(b"conectix") :][48:56], "big")


def _vhdx(source: Source) -> int:
    return parse_metadata(source, parse_regions(source, Layout()).metadata).virtual_size


def _vmdk(source: Source) -> int:
    head = source.read(0, HEAD)
    if is_text_descriptor(head):
        return parse_text(source).sectors * SECTOR
    if head.startswith(b"KDMV"):
        return int(struct.unpack_from("<Q", head, 12)[0]) * SECTOR
    if head.startswith(b"COWD"):
        return int(struct.unpack_from("<I", head, 12)[0]) * SECTOR
    return int(struct.unpack_from("<Q", head, 16)[0]) * SECTOR


def _ewf(source: Source) -> int | None:
    offset = _EWF_FIRST_SECTION
    for _ in range(_EWF_SECTIONS):
        kind, following, _ = _EWF_SECTION.unpack(source.read(offset, _EWF_SECTION.size))
        if kind.rstrip(b"\0") in {b"volume", b"disk"}:
            data = source.read(offset + _EWF_SECTION_SIZE, 24)
            chunks, per_chunk, sector, sectors = struct.unpack("<4xIIIQ", data)
            return int((sectors or chunks * per_chunk) * sector)
        if not offset < following < source.size:
            return None
        offset = following
    return None


_READERS: Mapping[Format, Callable[[Source], int | None]] = {
    Format.QCOW1: _field(">Q", 24),
    Format.QCOW2: _field(">Q", 24),
    Format.QED: _field("<Q", 48),
    Format.VDI: _field("<Q", 0x170),
    Format.VHD: _vhd,
    Format.VHDX: _vhdx,
    Format.VMDK: _vmdk,
    Format.EWF: _ewf,
}

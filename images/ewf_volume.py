"""The geometry of an EWF image: the sections `volume` (or `disk`) and `data`.

Layouts: libewf's ewf_volume.h and ewf_volume_smart.h (offsets within the section's data).
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

from images.evidence import Source
from images.ewf_sections import Section, bad, checked
from images.raw import MAX_VIRTUAL_SIZE

# type, 3 unknown, chunks, sectors per chunk, bytes per sector, sectors, 12 CHS, flags, 15 unknown,
# compression, 3 unknown, error granularity, 4 unknown, GUID.
_E01 = struct.Struct("<B3xIIIQ12xB15xB3xI4x16s")
_E01_SIZE = 1052
# 4 reserved, chunks, sectors per chunk, bytes per sector, sectors.
_S01 = struct.Struct("<4xIIII")
_S01_SIZE = 94

MAX_CHUNK = 64 << 20
"""Bytes: 32768 sectors, EnCase's most, of 2048 bytes."""

_SECTOR_SIZES = (512, 1024, 2048, 4096, 8192)
_MEDIA = {0x00: "removable", 0x01: "fixed", 0x03: "optical", 0x0E: "files", 0x10: "memory"}
_COMPRESSION = {0: "none", 1: "fast", 2: "best"}


@dataclass(frozen=True, slots=True)
class Volume:
    """Checked geometry; `chunk_size` and `sector_size` in bytes, `sectors` of the whole disk."""

    sectors: int
    sector_size: int
    chunk_size: int
    media_type: str
    physical: bool | None
    compression: str
    set_identifier: uuid.UUID | None

    @property
    def virtual_size(self) -> int:
        """In bytes."""
        return self.sectors * self.sector_size

    @property
    def chunks(self) -> int:
        """How many chunks the whole disk needs."""
        return -(-self.virtual_size // self.chunk_size)


def parse(source: Source, section: Section) -> Volume:
    """Read and check the geometry of the disk. Raises MalformedImage."""
    volume, chunks = _read(source, section)
    _check(source, volume, chunks)
    return volume


def _read(source: Source, section: Section) -> tuple[Volume, int]:
    """The fields as they are written, and the number of chunks."""
    if section.size >= _E01_SIZE:
        data = checked(source, section, _E01_SIZE)
        kind, chunks, per_chunk, size, sectors, flags, level, _, guid = _E01.unpack_from(data)
        volume = Volume(
            sectors=sectors or chunks * per_chunk,
            sector_size=size,
            chunk_size=size * per_chunk,
            media_type=_MEDIA.get(kind, f"unknown ({kind:#x})"),
            physical=bool(flags & 2),
            compression=_COMPRESSION.get(level, f"unknown ({level:#x})"),
            set_identifier=uuid.UUID(bytes_le=guid) if any(guid) else None,
        )
    else:
        data = checked(source, section, _S01_SIZE)
        chunks, per_chunk, size, sectors = _S01.unpack_from(data)
        volume = Volume(
            sectors=sectors or chunks * per_chunk,
            sector_size=size,
            chunk_size=size * per_chunk,
            media_type="unknown",
            physical=None,
            compression="unknown",
            set_identifier=None,
        )
    return volume, chunks


def _check(source: Source, volume: Volume, chunks: int) -> None:
    if volume.sector_size not in _SECTOR_SIZES:
        raise bad(source, f"a sector of {volume.sector_size} bytes is not possible")
    if not 0 < volume.chunk_size <= MAX_CHUNK:
        raise bad(source, f"a chunk of {volume.chunk_size} bytes is not possible")
    if not 0 < volume.virtual_size <= MAX_VIRTUAL_SIZE:
        raise bad(source, f"a disk of {volume.virtual_size} bytes is not possible")
    # Zero where the writer did not know yet, as when it acquires a stream.
    if chunks and chunks != volume.chunks:
        raise bad(source, f"{volume.sectors} sectors do not make {chunks} chunks")


def same_set(source: Source, section: Section, volume: Volume) -> bool:
    """Whether a section `data` can be of the image with this volume. Raises MalformedImage.

    The rest may differ: some writers do not know the disk's size when they begin a segment.
    """
    other, _ = _read(source, section)
    return (other.set_identifier, other.sector_size, other.chunk_size) == (
        volume.set_identifier,
        volume.sector_size,
        volume.chunk_size,
    )

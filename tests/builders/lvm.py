"""LVM2 volume groups written straight into files: no device-mapper, no LVM commands.

Each physical volume has, from its start: an empty sector, the label sector, at 4 KiB the metadata
area (a header of one sector, then the ring buffer for the text), at 1 MiB the extents.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.builders.lvm_text import (
    DATA_OFFSET,
    MIB,
    SECTOR,
    PhysicalVolume,
    Segment,
    Volume,
    group_text,
    made_uuid,
    pv_uuid,
)
from tests.builders.sparse import copy_sparse, make_sparse

__all__ = ["PhysicalVolume", "Segment", "Volume", "make_group"]

AREA_OFFSET = 4096
AREA_SIZE = DATA_OFFSET - AREA_OFFSET
EXTENSION_VERSION = 2
EXTENSION_USED = 1
AREA_MAGIC = b" LVM2 x[5A%r0N*>"


def make_group(
    name: str,
    pvs: Sequence[PhysicalVolume],
    volumes: Sequence[Volume],
    extent_size: int = 4 * MIB,
    uuid: str | None = None,
) -> str:
    """Write the physical volumes' files with the group and its data; return the metadata text."""
    placed = place_volumes(pvs, volumes, extent_size)
    text = group_text(name, uuid or made_uuid(name), extent_size, pvs, placed)
    for index, pv in enumerate(pvs):
        write_metadata(pv, pv_uuid(name, index, pv), text.encode() + b"\0")
    for volume in placed:
        if volume.image is not None:
            write_data(volume, volume.image, pvs, extent_size)
    return text


def place_volumes(
    pvs: Sequence[PhysicalVolume], volumes: Sequence[Volume], extent_size: int
) -> list[Volume]:
    """Give every volume its segments: its own, or the first free extents."""
    ends = [0] * len(pvs)
    limits = [pv.extents(extent_size) for pv in pvs]
    placed = []
    for volume in volumes:
        segments = volume.segments
        if not segments and not volume.raw_segments:
            segments = allocate(volume, -(-volume.size // extent_size), ends, limits)
        for segment in segments:
            for index, extent in segment.stripes:
                end = extent + segment.extents // len(segment.stripes)
                ends[index] = max(ends[index], end)
                if end > limits[index]:
                    raise ValueError(f"{volume.name} goes beyond physical volume {index}")
        placed.append(replace(volume, segments=segments))
    return placed


def allocate(
    volume: Volume, extents: int, ends: Sequence[int], limits: Sequence[int]
) -> tuple[Segment, ...]:
    """Segments on the first free extents: linear over several volumes, or one striped segment."""
    if volume.stripes > 1:
        share = -(-extents // volume.stripes)
        fitting = [index for index, end in enumerate(ends) if limits[index] - end >= share]
        if len(fitting) < volume.stripes:
            raise ValueError(f"no room for {volume.name}")
        places = tuple((index, ends[index]) for index in fitting[: volume.stripes])
        return (Segment(share * volume.stripes, places),)
    segments = []
    for index, end in enumerate(ends):
        take = min(extents, limits[index] - end)
        if take > 0:
            segments.append(Segment(take, ((index, end),)))
            extents -= take
    if extents:
        raise ValueError(f"no room for {volume.name}")
    return tuple(segments)


def write_metadata(pv: PhysicalVolume, uuid: str, text: bytes) -> None:
    """Write the label sector, the metadata area's header and the text."""
    make_sparse(pv.path, pv.size)
    with pv.path.open("r+b") as file:
        file.seek(SECTOR)
        file.write(label_sector(pv, uuid))
        file.seek(AREA_OFFSET)
        file.write(area_header(text))
        file.write(text)


def label_sector(pv: PhysicalVolume, uuid: str) -> bytes:
    """The label with the physical volume's header behind it, in the disk's second sector."""
    header = b"".join(
        [
            uuid.replace("-", "").encode(),
            struct.pack("<Q", pv.size),
            struct.pack("<QQQQ", DATA_OFFSET, 0, 0, 0),
            struct.pack("<QQQQ", AREA_OFFSET, AREA_SIZE, 0, 0),
            struct.pack("<IIQQ", EXTENSION_VERSION, EXTENSION_USED, 0, 0),
        ]
    )
    checked = struct.pack("<I", 32) + b"LVM2 001" + header
    checked = checked.ljust(SECTOR - 20, b"\0")
    return b"LABELONE" + struct.pack("<QI", 1, checksum(checked)) + checked


def area_header(text: bytes) -> bytes:
    """The metadata area's header: where in the ring buffer the text is."""
    location = struct.pack("<QQII", SECTOR, len(text), checksum(text), 0)
    checked = AREA_MAGIC + struct.pack("<IQQ", 1, AREA_OFFSET, AREA_SIZE) + location
    checked = checked.ljust(SECTOR - 4, b"\0")
    return struct.pack("<I", checksum(checked)) + checked


def checksum(data: bytes) -> int:
    """LVM's CRC-32: the usual polynomial with an own start value and no final inversion."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def write_data(
    volume: Volume, image: Path, pvs: Sequence[PhysicalVolume], extent_size: int
) -> None:
    """Spread the volume's image over its extents."""
    size = sum(segment.extents for segment in volume.segments) * extent_size
    if image.stat().st_size > size:
        raise ValueError(f"{image} does not fit into {volume.name}, {size} bytes")
    start = 0
    for segment in volume.segments:
        write_segment(image, start, segment, pvs, extent_size)
        start += segment.extents * extent_size


def write_segment(
    image: Path, start: int, segment: Segment, pvs: Sequence[PhysicalVolume], extent_size: int
) -> None:
    """Copy one segment's part of an image, chunk by chunk if it is striped."""
    count = len(segment.stripes)
    length = segment.extents * extent_size
    step = length if count == 1 else segment.stripe_size
    for number, (index, extent) in enumerate(segment.stripes):
        at = DATA_OFFSET + extent * extent_size
        with image.open("rb") as source, pvs[index].path.open("r+b") as target:
            for chunk in range(number * step, length, count * step):
                position = at + chunk // count // step * step if count > 1 else at
                copy_sparse(source.fileno(), start + chunk, step, target.fileno(), position)

"""The header of a sparse VMDK extent ("Virtual Disk Format 5.0", VMware; QEMU block/vmdk.c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from images.errors import MalformedImage, Unsupported
from images.evidence import Source, read_exactly, truncated
from images.raw import MAX_VIRTUAL_SIZE, SECTOR

MAGIC = b"KDMV"
GD_AT_END = (1 << 64) - 1
_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_MARKER = struct.Struct("<QII")
_FOOTER_MARKER = 3

_NEWLINE_TEST, _REDUNDANT, _ZERO_GRAINS = 1, 2, 4
_COMPRESSED, _MARKERS = 1 << 16, 1 << 17
_KNOWN_FLAGS = _NEWLINE_TEST | _REDUNDANT | _ZERO_GRAINS | _COMPRESSED | _MARKERS

_ENTRIES = 512
_TABLE_BYTES = _ENTRIES * 4
_MAX_DIRECTORY_ENTRIES = 32 << 20
_MAX_GRAIN = 4096
# Both budgets for the search for a cut end: half a MiB each.
_DIRECTORY_BYTES = 512 << 10
_TABLES = 256


@dataclass(frozen=True, slots=True)
class SparseHeader:
    """Checked values; everything in sectors of 512 bytes."""

    version: int
    flags: int
    capacity: int
    grain: int
    descriptor_offset: int
    descriptor_sectors: int
    redundant_directory: int
    directory: int
    overhead: int
    compressed: bool
    directory_at_end: bool

    @property
    def directory_entries(self) -> int:
        return -(-self.capacity // (_ENTRIES * self.grain))


def parse(source: Source) -> SparseHeader:
    """Read and check the header, the footer if there is one, and how far the file must reach."""
    header = _parse_sector(source, read_exactly(source, 0, SECTOR, "the VMDK header"))
    if header.directory_at_end:
        header = _from_footer(source, header)
    _check_place(source, header)
    _check_end_of_data(source, header)
    return header


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(
        f"damaged VMDK header: {message}",
        path=source.path,
        hint="compare the file with the original",
    )


def _parse_sector(source: Source, sector: bytes) -> SparseHeader:
    fields = _HEADER.unpack_from(sector)
    magic, version, flags, capacity, grain, desc_offset, desc_size = fields[:7]
    entries, redundant, directory, overhead, _, newlines, algorithm = fields[7:]
    if magic != MAGIC:
        raise _bad(source, "the magic number is missing")
    if not 1 <= version <= 3:
        raise Unsupported(f"is VMDK version {version}; 1 to 3 are known", path=source.path)
    if flags & _NEWLINE_TEST and newlines != b"\n \r\n":
        raise _bad(source, "line ends were changed, as by a transfer in text mode")
    if flags & ~_KNOWN_FLAGS or algorithm > 1:
        raise Unsupported(
            f"needs VMDK features that are not known (flags {flags:#x}, compression {algorithm})",
            path=source.path,
        )
    if bool(flags & _COMPRESSED) != bool(algorithm):
        raise _bad(source, "the compression flag and the algorithm disagree")
    _check_geometry(source, capacity, grain, entries)
    return SparseHeader(
        version=version,
        flags=flags,
        capacity=capacity,
        grain=grain,
        descriptor_offset=desc_offset,
        descriptor_sectors=desc_size,
        redundant_directory=redundant if flags & _REDUNDANT else 0,
        directory=directory,
        overhead=overhead,
        compressed=bool(algorithm),
        directory_at_end=directory == GD_AT_END,
    )


def _check_geometry(source: Source, capacity: int, grain: int, entries: int) -> None:
    if not 0 < capacity <= MAX_VIRTUAL_SIZE // SECTOR:
        raise _bad(source, f"a capacity of {capacity} sectors is not possible")
    if not 8 <= grain <= _MAX_GRAIN or grain & (grain - 1):
        raise _bad(source, f"a grain of {grain} sectors is not possible")
    if entries != _ENTRIES:
        raise _bad(source, f"grain tables of {entries} entries are not possible")
    if -(-capacity // (_ENTRIES * grain)) > _MAX_DIRECTORY_ENTRIES:
        raise _bad(source, f"a capacity of {capacity} sectors needs too large a directory")


def _from_footer(source: Source, header: SparseHeader) -> SparseHeader:
    """Stream-optimised: the last three sectors are a marker, the real header, and the end."""
    what = "the end of the stream-optimised image"
    if source.size % SECTOR or source.size < 4 * SECTOR:
        raise truncated(source, max(4, -(-source.size // SECTOR)) * SECTOR, what)
    tail = read_exactly(source, source.size - 3 * SECTOR, 3 * SECTOR, what)
    _, size, kind = _MARKER.unpack_from(tail)
    if size or kind != _FOOTER_MARKER or tail[SECTOR : SECTOR + 4] != MAGIC:
        raise truncated(source, source.size + SECTOR, f"{what} (its footer is missing)")
    if any(_MARKER.unpack_from(tail, 2 * SECTOR)):
        raise _bad(source, "the end-of-stream marker is missing")
    footer = _parse_sector(source, tail[SECTOR : 2 * SECTOR])
    if footer.directory_at_end or _agreed(footer) != _agreed(header):
        raise _bad(source, "the header at the start and the footer contradict each other")
    return footer


def _agreed(header: SparseHeader) -> tuple[object, ...]:
    return (
        header.version,
        header.flags,
        header.capacity,
        header.grain,
        header.descriptor_offset,
        header.descriptor_sectors,
        header.compressed,
    )


def _check_place(source: Source, header: SparseHeader) -> None:
    length = header.directory_entries * 4
    directories = [header.directory]
    if header.redundant_directory:
        directories.append(header.redundant_directory)
    for start in directories:
        if not start:
            raise _bad(source, "the grain directory lies inside the header")
        if start * SECTOR + length > source.size:
            raise truncated(source, start * SECTOR + length, "the grain directory")
    if not header.compressed and header.overhead * SECTOR > source.size:
        raise truncated(source, header.overhead * SECTOR, "the metadata of the VMDK extent")


def _check_end_of_data(source: Source, header: SparseHeader) -> None:
    """Look at the grain tables that lie furthest back, within a fixed budget of reads."""
    length = min(header.directory_entries * 4, _DIRECTORY_BYTES)
    data = source.read(header.directory * SECTOR, length)
    tables = sorted({table for (table,) in struct.iter_unpack("<I", data) if table > 1})
    if tables and tables[-1] * SECTOR + _TABLE_BYTES > source.size:
        raise truncated(source, tables[-1] * SECTOR + _TABLE_BYTES, "a grain table")
    for table in tables[-_TABLES:]:
        entries = source.read(table * SECTOR, _TABLE_BYTES)
        last = max((grain for (grain,) in struct.iter_unpack("<I", entries)), default=0)
        # 0 means not allocated and 1 may mean zeroes; neither takes room in the file.
        if last > 1 and last * SECTOR >= source.size:
            raise truncated(source, last * SECTOR + 1, "the data of the VMDK extent")

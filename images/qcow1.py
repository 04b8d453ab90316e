"""The header and the tables of a qcow image of version 1 (QEMU block/qcow.c)."""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from images import block_table
from images.chain import Chain, Link
from images.detect import Format
from images.errors import MalformedImage, Unsupported
from images.evidence import EvidenceFile, Source, read_exactly, truncated
from images.graph import Node
from images.raw import MAX_VIRTUAL_SIZE, SECTOR

MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQBBHIQ")
_NO_ENCRYPTION, _AES = 0, 1
_MAX_BACKING = 1023
_COMPRESSED = 1 << 63
# A disk of 2 TiB with the usual small clusters.
_MAX_L1 = 8 << 20
# QEMU reads second-level tables when it needs them; more than this is not looked at beforehand.
_L2_BUDGET = 16 << 20


@dataclass(frozen=True, slots=True)
class Qcow1Header:
    """Checked values; offsets and sizes in bytes.

    `virtual_size` is `size_in_header` rounded down to a sector, as QEMU does. `encrypted`: with
    AES, by qcow itself, which QEMU's system emulators refuse. `mtime` is in seconds since 1970,
    as stored (QEMU writes 0). `allocated_bytes` is None where counting would mean to read very
    many tables; a compressed cluster counts as what it takes in the file.
    """

    virtual_size: int
    size_in_header: int
    cluster_size: int
    l1_entries: int
    l1_offset: int
    l2_entries: int
    encrypted: bool
    mtime: int
    untrusted_backing: bytes | None
    allocated_bytes: int | None


@dataclass(frozen=True, slots=True)
class _Untrusted:
    """The fields as they are in the file."""

    magic: bytes
    version: int
    backing_offset: int
    backing_size: int
    mtime: int
    size: int
    cluster_bits: int
    l2_bits: int
    padding: int
    crypt_method: int
    l1_offset: int

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def l2_size(self) -> int:
        """Of a second-level table, in bytes."""
        return 8 << self.l2_bits

    @property
    def l1_entries(self) -> int:
        return -(-self.size // (1 << (self.cluster_bits + self.l2_bits)))


def parse(source: Source) -> Qcow1Header:
    """Read and check the header and the tables. Raises MalformedImage or Unsupported."""
    raw = _Untrusted(*_HEADER.unpack(read_exactly(source, 0, _HEADER.size, "the qcow header")))
    _check_geometry(source, raw)
    backing = _backing(source, raw)
    _check_l1(source, raw)
    return Qcow1Header(
        virtual_size=raw.size // SECTOR * SECTOR,
        size_in_header=raw.size,
        cluster_size=raw.cluster_size,
        l1_entries=raw.l1_entries,
        l1_offset=raw.l1_offset,
        l2_entries=1 << raw.l2_bits,
        encrypted=raw.crypt_method == _AES,
        mtime=raw.mtime,
        untrusted_backing=backing,
        allocated_bytes=_check_clusters(source, raw),
    )


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(
        f"damaged qcow image: {message}",
        path=source.path,
        hint="compare the file with the original; qemu-img check may tell more about a copy",
    )


def _check_geometry(source: Source, raw: _Untrusted) -> None:
    if raw.magic != MAGIC or raw.version != 1:
        raise _bad(source, "the magic number is missing, or the version is not 1")
    if not 9 <= raw.cluster_bits <= 16:
        raise _bad(source, f"a cluster of 2^{raw.cluster_bits} bytes is not possible")
    if not 6 <= raw.l2_bits <= 13:
        raise _bad(source, f"an L2 table of 2^{raw.l2_bits} entries is not possible")
    if not SECTOR <= raw.size <= MAX_VIRTUAL_SIZE:
        raise _bad(source, f"a virtual size of {raw.size} bytes is not possible")
    if raw.crypt_method not in (_NO_ENCRYPTION, _AES):
        raise _bad(source, f"encryption method {raw.crypt_method} is not possible")


def _backing(source: Source, raw: _Untrusted) -> bytes | None:
    if not raw.backing_offset:
        return None
    start, length = raw.backing_offset, raw.backing_size
    if not 0 < length <= _MAX_BACKING:
        raise _bad(source, f"a backing file name of {length} bytes is not possible")
    if start < _HEADER.size:
        raise _bad(source, "the name of its backing file lies inside the header")
    return read_exactly(source, start, length, "the name of the backing file")


def _check_l1(source: Source, raw: _Untrusted) -> None:
    length = raw.l1_entries * 8
    block_table.check_table(source, raw.l1_offset, length, "the L1 table", limit=_MAX_L1)
    if raw.l1_offset < _HEADER.size:
        raise _bad(source, "the L1 table lies inside the header")


def _check_clusters(source: Source, raw: _Untrusted) -> int | None:
    """Bytes of data in the file, or None when not all second-level tables were read.

    Those that lie furthest back are read first: they tell when a copy is cut.
    """
    tables = sorted(_second_level(source, raw))
    for before, after in itertools.pairwise(tables):
        if before + raw.l2_size > after:
            raise _bad(source, f"two of its L2 tables lie in the same place (offset {after})")
    within = _L2_BUDGET // raw.l2_size
    allocated = sum(
        length
        for table in itertools.islice(reversed(tables), within)
        for length in _lengths(source, raw, table, tables)
    )
    return allocated if len(tables) <= within else None


def _second_level(source: Source, raw: _Untrusted) -> Iterator[int]:
    for _, l1 in block_table.chunks(source, raw.l1_offset, raw.l1_entries, ">Q", "the L1 table"):
        for offset in l1:
            if offset and _over_start(raw, offset, raw.l2_size):
                raise _bad(source, f"the L2 table at offset {offset} lies over the header or L1")
            if offset:
                yield offset


def _over_start(raw: _Untrusted, offset: int, length: int) -> bool:
    """Whether the range overlaps the header or the L1 table."""
    l1_end = raw.l1_offset + raw.l1_entries * 8
    return offset < _HEADER.size or (raw.l1_offset < offset + length and offset < l1_end)


def _lengths(source: Source, raw: _Untrusted, table: int, tables: list[int]) -> Iterator[int]:
    """What each cluster of one second-level table takes in the file, in bytes."""
    for _, l2 in block_table.chunks(source, table, 1 << raw.l2_bits, ">Q", "an L2 table"):
        for entry in l2:
            if not entry:
                continue
            offset, length = _place(source, raw, entry)
            if offset + length > source.size:
                raise truncated(source, offset + length, "the data of the qcow image")
            before = bisect_right(tables, offset + max(length, 1) - 1)
            in_table = before and tables[before - 1] + raw.l2_size > offset
            if in_table or _over_start(raw, offset, length):
                raise _bad(source, f"the cluster at offset {offset} lies over the metadata")
            yield length


def _place(source: Source, raw: _Untrusted, entry: int) -> tuple[int, int]:
    """Offset and length in the file; the length of a compressed cluster is above its offset."""
    if entry & _COMPRESSED:
        bits = 63 - raw.cluster_bits
        return entry & ((1 << bits) - 1), entry >> bits & (raw.cluster_size - 1)
    if entry % SECTOR:
        raise _bad(source, f"the cluster at offset {entry} does not start at a sector")
    return entry, raw.cluster_size


def open_link(file: EvidenceFile, chain: Chain) -> Link:
    """Read the header and open the backing file. Raises ImageErrors."""
    header = parse(file)
    if header.encrypted:
        raise Unsupported(
            "is encrypted by the old qcow format itself",
            path=file.path,
            hint="decrypt a copy with qemu-img convert first",
        )
    number = chain.add(file)
    backing, notes = None, tuple[str, ...]()
    if header.size_in_header != header.virtual_size:
        hidden = header.size_in_header - header.virtual_size
        notes += (f"the disk is shown without its last {hidden} bytes, which are no whole sector",)
    if header.untrusted_backing is not None:
        backing, found = chain.open_next(file, header.untrusted_backing, "backing file", None)
        notes += found
    node = Node("qcow", file=number, backing=backing.node if backing else None)
    return Link(file.path, Format.QCOW1, header.virtual_size, (file,), header, node, notes, backing)

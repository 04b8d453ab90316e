"""The header and the tables of a QED image (QEMU docs/interop/qed_spec.txt, block/qed.c)."""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass

from images import block_table
from images.chain import Chain, Link
from images.detect import Format
from images.errors import MalformedImage, Unsupported
from images.evidence import EvidenceFile, Source, read_exactly, truncated
from images.graph import Node
from images.raw import SECTOR

MAGIC = b"QED\0"
_HEADER = struct.Struct("<4sIIIQQQQQII")
_BACKING_FILE, _NEED_CHECK, _BACKING_IS_RAW = 1, 2, 4
_KNOWN = _BACKING_FILE | _NEED_CHECK | _BACKING_IS_RAW
_MAX_BACKING = 1023
# QEMU keeps up to 50 tables in memory. The format allows 1 GiB for each of them.
_MAX_TABLE = 8 << 20
# QEMU reads second-level tables when it needs them; more than this is not looked at beforehand.
_L2_BUDGET = 16 << 20
# 0: not allocated, 1: zeroes.
_FIRST_OFFSET = 2


@dataclass(frozen=True, slots=True)
class QedHeader:
    """Checked values; offsets and sizes in bytes.

    `needs_check`: it was not closed cleanly; QEMU opens it read-only all the same, unrepaired.
    `backing_is_raw`: the backing file must be taken for raw, and its format not be probed.
    `allocated_bytes` is None where counting would mean to read very many tables.
    """

    virtual_size: int
    cluster_size: int
    table_size: int
    l1_offset: int
    needs_check: bool
    untrusted_backing: bytes | None
    backing_is_raw: bool
    compatible_features: int
    autoclear_features: int
    allocated_bytes: int | None


@dataclass(frozen=True, slots=True)
class _Untrusted:
    """The fields as they are in the file; table and header size count clusters."""

    magic: bytes
    cluster_size: int
    table_clusters: int
    header_clusters: int
    features: int
    compatible: int
    autoclear: int
    l1_offset: int
    size: int
    backing_offset: int
    backing_size: int

    @property
    def table_size(self) -> int:
        return self.table_clusters * self.cluster_size

    @property
    def header_size(self) -> int:
        return self.header_clusters * self.cluster_size


def parse(source: Source) -> QedHeader:
    """Read and check the header and the tables. Raises MalformedImage or Unsupported."""
    raw = _Untrusted(*_HEADER.unpack(read_exactly(source, 0, _HEADER.size, "the QED header")))
    if raw.magic != MAGIC:
        raise _bad(source, "the magic number is missing")
    _check_features(source, raw)
    _check_geometry(source, raw)
    _check_table(source, raw, raw.l1_offset, "the L1 table")
    return QedHeader(
        virtual_size=raw.size,
        cluster_size=raw.cluster_size,
        table_size=raw.table_size,
        l1_offset=raw.l1_offset,
        needs_check=bool(raw.features & _NEED_CHECK),
        untrusted_backing=_backing(source, raw),
        backing_is_raw=bool(raw.features & _BACKING_IS_RAW),
        compatible_features=raw.compatible,
        autoclear_features=raw.autoclear,
        allocated_bytes=_check_clusters(source, raw),
    )


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(
        f"damaged QED image: {message}",
        path=source.path,
        hint="compare the file with the original; qemu-img check may tell more about a copy",
    )


def _check_features(source: Source, raw: _Untrusted) -> None:
    unknown = raw.features & ~_KNOWN
    if unknown:
        raise Unsupported(
            f"needs QED features that are not known (bits {unknown:#x})",
            path=source.path,
            hint="convert it with the program that wrote it, then name that",
        )


def _check_geometry(source: Source, raw: _Untrusted) -> None:
    cluster, table = raw.cluster_size, raw.table_clusters
    if not 4 << 10 <= cluster <= 64 << 20 or cluster & (cluster - 1):
        raise _bad(source, f"a cluster of {cluster} bytes is not possible")
    if not 1 <= table <= 16 or table & (table - 1):
        raise _bad(source, f"tables of {table} clusters are not possible")
    if table == 1 or raw.table_size > _MAX_TABLE:
        # QEMU 7.2 calls any table of a single cluster invalid (qed_check_table_offset()).
        raise Unsupported(
            f"has tables of {table} clusters of {cluster} bytes; at least two clusters and "
            f"at most {_MAX_TABLE >> 20} MiB are accepted",
            path=source.path,
            hint="convert it with qemu-img to the usual cluster and table size",
        )
    entries = raw.table_size // 8
    if not 0 < raw.size <= entries * entries * cluster or raw.size % SECTOR:
        raise _bad(source, f"a virtual size of {raw.size} bytes is not possible")
    if not 0 < raw.header_size <= source.size:
        raise _bad(source, f"a header of {raw.header_clusters} clusters is not possible")


def _backing(source: Source, raw: _Untrusted) -> bytes | None:
    if not raw.features & _BACKING_FILE:
        return None
    start, length = raw.backing_offset, raw.backing_size
    if not 0 < length <= _MAX_BACKING:
        raise _bad(source, f"a backing file name of {length} bytes is not possible")
    if start < _HEADER.size or start + length > raw.header_size:
        raise _bad(source, "the name of its backing file does not lie in the header")
    return read_exactly(source, start, length, "the name of the backing file")


def _check_table(source: Source, raw: _Untrusted, offset: int, what: str) -> None:
    if offset % raw.cluster_size:
        raise _bad(source, f"{what} does not start at a cluster (offset {offset})")
    if offset < raw.header_size:
        raise _bad(source, f"{what} lies inside the header")


def _check_clusters(source: Source, raw: _Untrusted) -> int | None:
    """Bytes of data in the file, or None when not all second-level tables were read.

    Those that lie furthest back are read first: they tell when a copy is cut.
    """
    tables = [raw.l1_offset, *_second_level(source, raw)]
    tables.sort()
    for before, after in itertools.pairwise(tables):
        if before + raw.table_size > after:
            raise _bad(source, f"two of its tables lie in the same place (offset {after})")
    read = [table for table in reversed(tables) if table != raw.l1_offset]
    within = _L2_BUDGET // raw.table_size
    clusters = sum(_count(source, raw, table, tables) for table in read[:within])
    return clusters * raw.cluster_size if len(read) <= within else None


def _second_level(source: Source, raw: _Untrusted) -> list[int]:
    found: list[int] = []
    entries = raw.table_size // 8
    for _, l1 in block_table.chunks(source, raw.l1_offset, entries, "<Q", "the L1 table"):
        for offset in l1:
            if offset:
                _check_table(source, raw, offset, "an L2 table")
                found.append(offset)
    return found


def _count(source: Source, raw: _Untrusted, table: int, tables: list[int]) -> int:
    clusters = 0
    entries = raw.table_size // 8
    for _, l2 in block_table.chunks(source, table, entries, "<Q", "an L2 table"):
        used = Counter(offset for offset in l2 if offset >= _FIRST_OFFSET)
        clusters += used.total()
        for offset in used:
            if offset % raw.cluster_size or offset < raw.header_size:
                raise _bad(source, f"a cluster at offset {offset} is not possible")
            if offset + raw.cluster_size > source.size:
                raise truncated(source, offset + raw.cluster_size, "the data of the QED image")
            before = bisect_right(tables, offset)
            if before and tables[before - 1] + raw.table_size > offset:
                raise _bad(source, f"the cluster at offset {offset} lies over a table")
    return clusters


def open_link(file: EvidenceFile, chain: Chain) -> Link:
    """Read the header and open the backing file. Raises ImageErrors."""
    header = parse(file)
    number = chain.add(file)
    backing, notes = None, tuple[str, ...]()
    if header.needs_check:
        notes += ("the image was not closed cleanly (marked as needing a check)",)
    if header.untrusted_backing is not None:
        form = Format.RAW if header.backing_is_raw else None
        backing, found = chain.open_next(file, header.untrusted_backing, "backing file", form)
        notes += found
    node = Node("qed", file=number, backing=backing.node if backing else None)
    return Link(file.path, Format.QED, header.virtual_size, (file,), header, node, notes, backing)

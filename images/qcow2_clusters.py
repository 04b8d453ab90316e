"""Which clusters a qcow2 holds itself, for an overlay of ours that an exporter has written to.

The exporter has met hostile containers, and a hostile guest chose what to write: so every offset
is checked, and only what such a file can hold (whole clusters, one after the other) is accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from images.block_table import chunks
from images.errors import MalformedImage
from images.evidence import Source
from images.qcow2_header import Qcow2Header

_OFFSET = 0x00FFFFFFFFFFFE00
_COMPRESSED = 1 << 62
_ZERO = 1
_COPIED = 1 << 63


@dataclass(frozen=True, slots=True)
class Cluster:
    """`length` bytes at `start` of the disk; in the file they are at `place`, None for zeros."""

    start: int
    length: int
    place: int | None


def clusters(source: Source, header: Qcow2Header) -> Iterator[Cluster]:
    """All clusters of the file's own, in the order of the disk. Raises MalformedImage."""
    size = header.cluster_size
    per_l2 = size // 8
    tables = _entries(source, header.l1_offset, header.l1_entries, "the L1 table")
    for index, entry in tables:
        place = _place(source, entry & ~_COPIED, size, "an L2 table")
        if place is None:
            continue
        for number, inner in _entries(source, place, per_l2, "an L2 table"):
            start = (index * per_l2 + number) * size
            if start >= header.virtual_size:
                if inner:
                    raise _bad(source, "it holds clusters behind the end of its disk")
                continue
            if inner & _COMPRESSED:
                raise _bad(source, "it holds compressed clusters")
            data = _place(source, inner & ~(_COPIED | _ZERO), size, "a cluster")
            if inner & _ZERO or data is not None:
                length = min(size, header.virtual_size - start)
                yield Cluster(start, length, None if inner & _ZERO else data)


def _entries(source: Source, offset: int, count: int, what: str) -> Iterator[tuple[int, int]]:
    for first, values in chunks(source, offset, count, ">Q", what):
        yield from ((first + index, value) for index, value in enumerate(values) if value)


def _place(source: Source, entry: int, size: int, what: str) -> int | None:
    if entry & ~_OFFSET or entry % size or entry + size > -(-source.size // size) * size:
        raise _bad(source, f"{what} lies outside of the file or has unknown bits ({entry:#x})")
    return entry or None


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(f"the overlay is damaged: {message}", path=source.path)

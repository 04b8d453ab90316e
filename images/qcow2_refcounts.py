"""How far a qcow2 file must reach, by its own reference counts.

Layout: docs/interop/qcow2.txt, "Host cluster management".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from images.errors import MalformedImage
from images.evidence import Source, truncated

_CHUNK = 1 << 20
_BLOCKS = 8


def highest_allocated_cluster(
    source: Source,
    *,
    table_offset: int,
    table_length: int,
    cluster_size: int,
    refcount_order: int,
) -> int | None:
    """Index of the last cluster with a reference; None when no table entry tells.

    Offsets and lengths are in bytes. Reads the table (at most 8 MiB) from its end, and at most
    eight refcount blocks. Raises MalformedImage for a block outside the file.
    """
    per_block = cluster_size * 8 >> refcount_order
    blocks = _blocks_from_the_end(source, table_offset, table_length)
    for index, offset in itertools.islice(blocks, _BLOCKS):
        if offset % cluster_size:
            raise MalformedImage(
                f"damaged qcow2 image: a refcount block does not start at a cluster ({offset})",
                path=source.path,
            )
        if offset + cluster_size > source.size:
            raise truncated(source, offset + cluster_size, "a refcount block")
        entry = _last_used(source.read(offset, cluster_size), refcount_order)
        if entry is not None:
            return index * per_block + entry
    return None


def _blocks_from_the_end(source: Source, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """(table index, block offset) of each entry in use; the low 9 bits are reserved."""
    end = length
    while end > 0:
        start = max(0, end - _CHUNK)
        chunk = source.read(offset + start, end - start)
        used = len(chunk.rstrip(b"\0"))
        while used:
            entry = (used - 1) // 8
            value = int.from_bytes(chunk[entry * 8 : entry * 8 + 8], "big") & ~0x1FF
            if value:
                yield start // 8 + entry, value
            used = len(chunk[: entry * 8].rstrip(b"\0"))
        end = start


def _last_used(block: bytes, refcount_order: int) -> int | None:
    used = len(block.rstrip(b"\0"))
    if not used:
        return None
    if refcount_order >= 3:
        return (used - 1) >> (refcount_order - 3)
    # Several counts share a byte, the first one in its lowest bits.
    return ((used - 1) << (3 - refcount_order)) + (
        (block[used - 1].bit_length() - 1) >> refcount_order
    )

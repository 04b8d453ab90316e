"""The block table of a VHDX image ([MS-VHDX] 2.5; QEMU vhdx_check_bat_entries())."""

from __future__ import annotations

from array import array
from collections import Counter

from images import block_table
from images.block_table import Layout
from images.errors import MalformedImage
from images.evidence import Source, truncated
from images.vhdx_metadata import Metadata
from images.vhdx_region import MIB, Region

_STATE = 7
_PRESENT, _PARTIALLY_PRESENT = 6, 7
# Not present, undefined, zero, unmapped, and unmapped as version 0.95 had it.
_ABSENT = frozenset({0, 1, 2, 3, 5})
_OFFSET = -MIB


def count_allocated(source: Source, region: Region, metadata: Metadata, layout: Layout) -> int:
    """How many blocks are in the file, after all entries were checked.

    Raises MalformedImage, or Unsupported for a table that is too large.
    """
    entries = metadata.table_entries
    if entries * 8 > region.length:
        raise _bad(source, f"the disk needs {entries} entries, there is no room for so many")
    # QEMU reads the whole region, not only what it needs.
    block_table.check_table(source, region.offset, region.length, "the block table")
    last = metadata.blocks - 1
    last_entry = last + last // metadata.chunk_ratio
    blocks = 0
    for first, table in block_table.chunks(source, region.offset, entries, "<Q", "the block table"):
        last_here = first <= last_entry < first + len(table)
        final = table[last_entry - first] if last_here else None
        _take_bitmaps(source, metadata, layout, first, table)
        used = Counter(table)
        for entry, uses in used.items():
            if not _is_present(source, metadata, entry):
                continue
            blocks += uses
            length = metadata.block_size
            # QEMU and others end the file where the disk ends, within the last block.
            if entry == final and uses == 1:
                length = metadata.virtual_size - last * metadata.block_size
            _check_place(source, layout, entry & _OFFSET, length, "a block")
    return blocks


def _bad(source: Source, message: str) -> MalformedImage:
    return MalformedImage(
        f"damaged VHDX block table: {message}",
        path=source.path,
        hint="compare the file with the original",
    )


def _take_bitmaps(
    source: Source, metadata: Metadata, layout: Layout, first: int, table: array[int]
) -> None:
    """Take the entries for sector bitmaps out of `table`; only a differencing disk uses them."""
    step = metadata.chunk_ratio + 1
    bitmaps = slice(step - 1 - first % step, None, step)
    if metadata.locator is not None:
        for entry in set(table[bitmaps]):
            if entry & _STATE == _PRESENT:
                _check_place(source, layout, entry & _OFFSET, MIB, "a sector bitmap")
            elif entry & _STATE:
                raise _bad(source, f"a sector bitmap of state {entry & _STATE} is not possible")
    del table[bitmaps]


def _is_present(source: Source, metadata: Metadata, entry: int) -> bool:
    state = entry & _STATE
    if state in _ABSENT:
        return False
    if state == _PRESENT or (state == _PARTIALLY_PRESENT and metadata.locator is not None):
        return True
    raise _bad(source, f"a block of state {state} is not possible")


def _check_place(source: Source, layout: Layout, offset: int, length: int, what: str) -> None:
    if offset + length > source.size:
        raise truncated(source, offset + length, f"{what} of the VHDX image")
    other = layout.at(offset, length)
    if other is not None:
        raise _bad(source, f"{what} (offset {offset}) lies over {other}")

"""Disklabels of Sun (SPARC) and of SGI, written from the structures in Linux's block/partitions.

Both are one block at the start of the disk, with numbers in big-endian order and a checksum.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.builders.gpt_table import poke
from tests.builders.sparse import make_sparse

SUN_ROOT, SUN_SWAP, SUN_USR, SUN_WHOLE, SUN_LINUX = 2, 3, 4, 5, 0x83
SGI_HEADER, SGI_RAW, SGI_VOLUME, SGI_EFS, SGI_XFS = 0, 3, 6, 7, 10


@dataclass(frozen=True)
class Slice:
    """One row: sectors of 512 bytes, and the tag (Sun) or type (SGI)."""

    start: int
    size: int
    type: int


def make_sun(
    path: Path, size: int, slices: Mapping[int, Slice], *, heads: int = 4, per_track: int = 16
) -> Path:
    """Make a disk; slices are by number from 1 to 8 and begin at whole cylinders."""
    make_sparse(path, size)
    cylinder = heads * per_track
    rows = [slices.get(number, Slice(0, 0, 0)) for number in range(1, 9)]
    if any(row.start % cylinder for row in rows):
        raise ValueError(f"a Sun slice begins at a multiple of {cylinder} sectors")
    label = bytearray(512)
    label[:4] = b"test"
    struct.pack_into(">I8sH", label, 128, 1, b"volume", 8)
    for index, row in enumerate(rows):
        struct.pack_into(">HH", label, 142 + 4 * index, row.type, 0)
        struct.pack_into(">II", label, 444 + 8 * index, row.start // cylinder, row.size)
    struct.pack_into(">I", label, 188, 0x600DDEEE)
    cylinders = size // 512 // cylinder
    words = (5400, cylinders, 0, 0, 0, 1, cylinders, 0, heads, per_track, 0, 0)
    struct.pack_into(">12H", label, 420, *words)
    struct.pack_into(">H", label, 508, 0xDABE)
    checksum = 0
    for (word,) in struct.iter_unpack(">H", label):
        checksum ^= word
    struct.pack_into(">H", label, 510, checksum)
    poke(path, 0, bytes(label))
    return path


def make_sgi(path: Path, size: int, slices: Mapping[int, Slice]) -> Path:
    """Make a disk; slices are by number from 1 to 16 (IRIX calls them s0 to s15)."""
    make_sparse(path, size)
    label = bytearray(512)
    struct.pack_into(">IHH16s", label, 0, 0x0BE5A941, 0, 1, b"/unix")
    # The device's parameters: sectors in a track at 26 of them, bytes in a sector at 28.
    struct.pack_into(">HH", label, 24 + 26, 32, 512)
    for number, row in slices.items():
        struct.pack_into(">III", label, 312 + 12 * (number - 1), row.size, row.start, row.type)
    total = sum(word for (word,) in struct.iter_unpack(">I", label))
    struct.pack_into(">I", label, 504, -total & 0xFFFFFFFF)
    poke(path, 0, bytes(label))
    return path

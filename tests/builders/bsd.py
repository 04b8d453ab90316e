"""BSD disklabels, written from <sys/disklabel.h> of NetBSD and FreeBSD: see disklabel(5)."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.builders.gpt_table import poke

MAGIC = 0x82564557
LABEL = struct.Struct("<IHH16s16sIIIIII20s20s28sIHHII")
"""Up to the partitions: magic, type, subtype, names, geometry, …, magic, checksum, number of
partitions, sizes of boot block and superblock."""

SLICE = struct.Struct("<IIIBBH")
UNUSED, SWAP, UFS, MSDOS, EXT2 = 0, 1, 7, 8, 17


@dataclass(frozen=True)
class Slice:
    """One row: sectors of 512 bytes, as the label counts them (from the disk's start or from the
    container's: the systems differ), and the fstype."""

    start: int
    size: int
    type: int = UFS


def put_disklabel(
    path: Path, slices: Mapping[str, Slice], *, at: int = 0, sectors: int = 0, sector: int = 512
) -> None:
    """Write a label into the second sector of what begins at byte `at` of the disk.

    `slices` are by their letter; letters that are left out are unused.
    """
    count = max(8, *(ord(letter) - ord("a") + 1 for letter in slices))
    label = pack(slices, count, sectors, sector, 0)
    checksum = 0
    for (word,) in struct.iter_unpack("<H", label):
        checksum ^= word
    poke(path, at + sector, pack(slices, count, sectors, sector, checksum))


def pack(
    slices: Mapping[str, Slice], count: int, sectors: int, sector: int, checksum: int
) -> bytes:
    """The label with this checksum: all of its words of 16 bits give 0 together (exclusive or)."""
    geometry = (sector, 32, 64, max(1, sectors // 2048), 2048, sectors)
    head = (MAGIC, 4, 0, b"test", b"fictitious", *geometry, b"", b"", b"")
    label = LABEL.pack(*head, MAGIC, checksum, count, 8192, 8192)
    for index in range(count):
        row = slices.get(chr(ord("a") + index), Slice(0, 0, UNUSED))
        label += SLICE.pack(row.size, row.start, 0, row.type, 0, 0)
    return label

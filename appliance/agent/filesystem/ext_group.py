"""The group descriptors of ext2, ext3 and ext4, for their free counts.

Source: Linux Documentation/filesystems/ext4/group_descr.rst, fs/ext4/super.c (descriptor_loc)
and fs/ext4/balloc.c (ext4_bg_has_super).
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.agent.filesystem.reading import (
    MAX_READ,
    MIB,
    BadSuperblock,
    Block,
    Volume,
    power_of_two,
)

MAX_TABLE = 64 * MIB
"""Bytes of group descriptors that are added up: those of a file system of 128 TiB."""

SPARSE_SUPER2 = 1 << 9
META_BG = 1 << 4
IS_64BIT = 1 << 7
SPARSE_SUPER = 1 << 0
FREE_LOW = 0x0C
FREE_HIGH = 0x2C


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where group descriptors are; positions in blocks, sizes in bytes."""

    block_size: int
    first_block: int
    blocks_per_group: int
    groups: int
    descriptor_size: int
    first_meta: int | None
    sparse: bool
    backups: tuple[int, int] | None

    @classmethod
    def of(cls, block: Block, block_size: int, block_count: int) -> Geometry:
        """From a superblock; BadSuperblock where ext4 would not mount it either."""
        compatible, incompatible = block.u32(0x5C), block.u32(0x60)
        descriptor_size = 32
        if incompatible & IS_64BIT:
            descriptor_size = power_of_two(block.u16(0xFE), 64, 1024, "the group descriptor size")
        first_block, blocks_per_group = block.u32(0x14), block.u32(0x20)
        if first_block > 1 or blocks_per_group == 0 or block_count <= first_block:
            raise BadSuperblock("its block groups have no possible size")
        return cls(
            block_size=block_size,
            first_block=first_block,
            blocks_per_group=blocks_per_group,
            groups=-(-(block_count - first_block) // blocks_per_group),
            descriptor_size=descriptor_size,
            first_meta=block.u32(0x104) if incompatible & META_BG else None,
            sparse=bool(block.u32(0x64) & SPARSE_SUPER),
            backups=(block.u32(0x24C), block.u32(0x250)) if compatible & SPARSE_SUPER2 else None,
        )


def free_blocks_of_groups(volume: Volume, geometry: Geometry) -> int:
    """The sum of the free counts of all groups, in clusters (= blocks without bigalloc)."""
    left = geometry.groups * geometry.descriptor_size
    if left > MAX_TABLE:
        raise BadSuperblock(f"{left} bytes of group descriptors are more than are read")
    free = 0
    for offset, room in _pieces(geometry, left):
        length = min(room, left)
        free += _free_of(volume.bytes_at(offset, length), geometry.descriptor_size)
        left -= length
    return free


def _pieces(geometry: Geometry, table: int) -> Iterator[tuple[int, int]]:
    """Byte offset and length of each contiguous piece of the descriptor table."""
    size = geometry.block_size
    blocks = -(-table // size)
    together = blocks if geometry.first_meta is None else min(blocks, geometry.first_meta)
    superblock = 1 if size == 1024 else 0
    step = MAX_READ // size
    for start in range(0, together, step):
        yield (superblock + 1 + start) * size, min(step, together - start) * size
    for block in range(together, blocks):
        yield _meta_block(geometry, block) * size, size


def _meta_block(geometry: Geometry, block: int) -> int:
    """Where descriptor block number `block` is with meta_bg: in the first group it describes."""
    group = block * (geometry.block_size // geometry.descriptor_size)
    skipped = 1 if _has_superblock(geometry, group) else 0
    if geometry.block_size == 1024 and block == 0 and geometry.first_block == 0:
        skipped += 1
    return skipped + geometry.first_block + group * geometry.blocks_per_group


def _has_superblock(geometry: Geometry, group: int) -> bool:
    if group == 0:
        return True
    if geometry.backups is not None:
        return group in geometry.backups
    if group == 1 or not geometry.sparse:
        return True
    return any(_is_power(group, base) for base in (3, 5, 7))


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def _free_of(untrusted_table: bytes, descriptor_size: int) -> int:
    """Slices of an array instead of a loop: an 8 TiB file system has 65536 descriptors."""
    words = array("H", untrusted_table)
    if sys.byteorder == "big":
        words.byteswap()
    free = sum(words[FREE_LOW // 2 :: descriptor_size // 2])
    if descriptor_size > 32:
        free += sum(words[FREE_HIGH // 2 :: descriptor_size // 2]) << 16
    return free

"""JFS: the superblock and the head of its block allocation map.

Source: Linux fs/jfs/jfs_superblock.h (struct jfs_superblock at byte 32768), jfs_filsys.h (the
aggregate inodes at byte 45056), jfs_xtree.h and jfs_dmap.h (struct dbmap_disk); little endian.
"""

from __future__ import annotations

from appliance.agent.filesystem.account import (
    Problem,
    Usage,
    account,
    counted,
    errors_recorded,
    needs_recovery,
)
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume, power_of_two

BLOCK_MAP_INODE = 45056 + 2 * 512
LEAF = 0x02
MOUNTED, DIRTY, LOG_REDO = 1, 2, 4


def read_jfs(volume: Volume) -> Usage:
    """Size of the aggregate without its log; free is the total in the map of blocks."""
    block = volume.block(32768, 512, "little")
    if block.raw(0, 4) != b"JFS1":
        raise BadSuperblock("it does not have the magic number of JFS")
    block_size = power_of_two(block.u32(16), 512, 4096, "the block size")
    hardware_block = power_of_two(block.u32(24), 512, 4096, "the hardware block size")
    problems = _problems(block)
    free = counted(lambda: _free(volume, block_size), problems)
    return account(
        volume,
        block_size=block_size,
        size=block.u64(8) * hardware_block,
        free=None if free is None else free * block_size,
        problems=problems,
    )


def _problems(block: Block) -> list[Problem]:
    problems = []
    if block.u32(40) & MOUNTED:
        problems.append(needs_recovery())
    if block.u32(40) & (DIRTY | LOG_REDO):
        problems.append(errors_recorded())
    return problems


def _free(volume: Volume, block_size: int) -> int:
    """In blocks; the map's first page is where the first extent of its inode starts."""
    inode = volume.block(BLOCK_MAP_INODE, 512, "little")
    if not inode.u8(224 + 16) & LEAF or inode.u16(224 + 18) <= 2:
        raise BadSuperblock("the map of blocks is not where it is expected")
    extent = 224 + 32
    address = inode.u32(extent + 8) >> 24 << 32 | inode.u32(extent + 12)
    return volume.block(address * block_size, 16, "little").u64(8)

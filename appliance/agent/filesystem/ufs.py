"""UFS1 and UFS2 of the BSDs, and their older relatives: the superblock.

Source: FreeBSD sys/ufs/ffs/fs.h (struct fs, SBLOCKSEARCH) and Linux fs/ufs/super.c; byte order of
the machine that made it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from appliance.agent.filesystem.account import (
    Usage,
    account,
    errors_recorded,
    needs_recovery,
    not_clean,
)
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume, power_of_two

OFFSETS = (65536, 8192, 0, 262144)
LENGTH = 1376
UFS1, UFS2 = 0x00011954, 0x19540119
INODES_44BSD = 2
NEEDS_FSCK, JOURNALED, GJOURNAL = 0x04, 0x10, 0x40
SUN_OKAY = 0x7C269D38
"""Solaris: state and time add up to this where all is well."""

Order = Literal["little", "big"]


def read_ufs(volume: Volume) -> Usage:
    """The superblock's account; what is kept back for root counts as free."""
    block = _superblock(volume)
    fragment = power_of_two(block.u32(52), 512, 65536, "the fragment size")
    block_size = power_of_two(block.u32(48), fragment, fragment * 8, "the block size")
    if block.u32(1372) == UFS2:
        size, blocks, fragments = block.u64(1080), block.u64(1016), block.u64(1032)
    else:
        size, blocks, fragments = block.u32(36), block.u32(196), block.u32(204)
    problems = []
    if _is_bsd(block):
        flags = block.u32(1312)
        if not block.u8(209):
            problems.append(needs_recovery() if flags & (JOURNALED | GJOURNAL) else not_clean())
        if flags & NEEDS_FSCK:
            problems.append(errors_recorded("The file system is marked as in need of fsck."))
    return account(
        volume,
        block_size=block_size,
        size=size * fragment,
        free=blocks * block_size + fragments * fragment,
        problems=problems,
    )


def ufs_type(read: Callable[[int, int], bytes], size: int) -> str:
    """The option that tells Linux's driver which of the relatives this is.

    Raises BadSuperblock where there is none.
    """
    block = _superblock(Volume(read, size))
    if block.u32(1372) == UFS2:
        return "ufstype=ufs2"
    if _is_bsd(block):
        return "ufstype=44bsd"
    if _is_big_endian(block):
        return "ufstype=sun"
    is_sun = (block.u32(1352) + block.u32(32)) & 0xFFFFFFFF == SUN_OKAY
    return "ufstype=sunx86" if is_sun else "ufstype=old"


def _superblock(volume: Volume) -> Block:
    orders: tuple[Order, ...] = ("little", "big")
    for offset in OFFSETS:
        if offset + LENGTH > volume.size:
            continue
        untrusted_block = volume.bytes_at(offset, LENGTH)
        for order in orders:
            block = Block(untrusted_block, order)
            if block.u32(1372) in (UFS1, UFS2):
                return block
    raise BadSuperblock("it does not have the magic number of UFS")


def _is_bsd(block: Block) -> bool:
    return block.u32(1372) == UFS2 or block.u32(1324) == INODES_44BSD


def _is_big_endian(block: Block) -> bool:
    return int.from_bytes(block.raw(1372, 4), "big") == UFS1

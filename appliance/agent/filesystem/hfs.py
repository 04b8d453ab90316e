"""HFS, the Mac OS Standard file system.

Source: "Inside Macintosh: Files", chapter 2 (master directory block), and Linux fs/hfs/hfs.h
(struct hfs_mdb at byte 1024); big endian.
"""

from __future__ import annotations

from appliance.agent.filesystem.account import Usage, account, errors_recorded, not_clean
from appliance.agent.filesystem.reading import BadSuperblock, Volume

UNMOUNTED, INCONSISTENT = 1 << 8, 1 << 11


def read_hfs(volume: Volume) -> Usage:
    """Size of the allocation blocks alone; the headers around them belong to none."""
    block = volume.block(1024, 162, "big")
    if block.raw(0, 2) != b"BD":
        raise BadSuperblock("it does not have the magic number of HFS")
    blocks, block_size = block.u16(18), block.u32(20)
    if block_size == 0 or block_size % 512:
        raise BadSuperblock(f"a block of {block_size} bytes is impossible")
    problems = [] if block.u16(10) & UNMOUNTED else [not_clean()]
    if block.u16(10) & INCONSISTENT:
        problems.append(errors_recorded())
    return account(
        volume,
        block_size=block_size,
        size=blocks * block_size,
        free=block.u16(34) * block_size,
        problems=problems,
    )

"""NILFS2: the superblock.

Source: Linux include/uapi/linux/nilfs2_ondisk.h (struct nilfs_super_block at byte 1024, its copy
in the last 4 KiB block; little endian).
"""

from __future__ import annotations

from appliance.agent.filesystem.account import Usage, account, errors_recorded, needs_recovery
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume, shifted

MAGIC = 0x3434
VALID, ERROR = 1, 2


def read_nilfs2(volume: Volume) -> Usage:
    """The superblock's account; free counts whole free segments."""
    block = _superblock(volume)
    block_size = shifted(block.u32(20), 0, 6, "the block size in KiB") * 1024
    problems = [] if block.u16(116) & VALID else [needs_recovery()]
    if block.u16(116) & ERROR:
        problems.append(errors_recorded())
    return account(
        volume,
        block_size=block_size,
        size=block.u64(32),
        free=block.u64(80) * block_size,
        problems=problems,
    )


def _superblock(volume: Volume) -> Block:
    """The one with the later checkpoint, as the kernel chooses; the kernel writes them in turn."""
    copies = (volume.block(at, 512, "little") for at in (1024, (volume.size // 4096 - 1) * 4096))
    valid = [block for block in copies if block.u16(6) == MAGIC]
    if not valid:
        raise BadSuperblock("it does not have the magic number of NILFS2")
    return max(valid, key=lambda block: block.u64(56))

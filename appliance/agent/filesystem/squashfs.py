"""SquashFS 4.

Source: Linux fs/squashfs/squashfs_fs.h (struct squashfs_super_block at byte 0; little endian).
"""

from __future__ import annotations

from appliance.agent.filesystem.account import Usage, account
from appliance.agent.filesystem.reading import KIB, MIB, BadSuperblock, Volume, power_of_two


def read_squashfs(volume: Volume) -> Usage:
    """All bytes of the archive are used; block_size is that of the data before compression."""
    block = volume.block(0, 96, "little")
    if block.raw(0, 4) != b"hsqs" or block.u16(28) != 4:
        raise BadSuperblock("it is not SquashFS 4")
    block_size = power_of_two(block.u32(12), 4 * KIB, MIB, "the block size")
    return account(volume, block_size=block_size, size=block.u64(40), free=0)

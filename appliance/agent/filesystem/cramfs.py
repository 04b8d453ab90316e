"""cramfs.

Source: Linux include/uapi/linux/cramfs_fs.h (struct cramfs_super at byte 0 or 512, in the byte
order of the machine that made it).
"""

from __future__ import annotations

from appliance.agent.filesystem.account import Usage, account, usage_unknown
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume

MAGIC = 0x28CD3D45
BLOCK_SIZE = 4096
FSID_VERSION_2 = 1


def read_cramfs(volume: Volume) -> Usage:
    """All bytes are used; the first version does not tell how many there are."""
    block = _superblock(volume)
    if not block.u32(8) & FSID_VERSION_2:
        problem = usage_unknown("this version does not record its size")
        return Usage(block_size=BLOCK_SIZE, problems=(problem,))
    return account(volume, block_size=BLOCK_SIZE, size=block.u32(4), free=0)


def _superblock(volume: Volume) -> Block:
    for offset in (0, 512):
        untrusted_block = volume.bytes_at(offset, 64)
        for block in (Block(untrusted_block, "little"), Block(untrusted_block, "big")):
            if block.u32(0) == MAGIC:
                return block
    raise BadSuperblock("it does not have the magic number of cramfs")

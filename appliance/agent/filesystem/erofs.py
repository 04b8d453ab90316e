"""EROFS.

Source: Linux fs/erofs/erofs_fs.h (struct erofs_super_block, 128 bytes at byte 1024; little
endian).
"""

from __future__ import annotations

from appliance.agent.filesystem.account import Usage, account
from appliance.agent.filesystem.reading import BadSuperblock, Volume, shifted

INCOMPATIBLE_48BIT = 0x80


def read_erofs(volume: Volume) -> Usage:
    """All blocks are used."""
    block = volume.block(1024, 128, "little")
    if block.u32(0) != 0xE0F5E1E2:
        raise BadSuperblock("it does not have the magic number of EROFS")
    block_size = shifted(block.u8(12), 9, 16, "the block size")
    blocks = block.u32(36)
    if block.u32(80) & INCOMPATIBLE_48BIT:
        blocks |= block.u16(14) << 32
    return account(volume, block_size=block_size, size=blocks * block_size, free=0)

"""ReiserFS 3.5 and 3.6.

Source: Linux fs/reiserfs/reiserfs.h (struct reiserfs_super_block_v1 at byte 65536, in old file
systems at byte 8192; little endian).
"""

from __future__ import annotations

from appliance.agent.filesystem.account import Usage, account, errors_recorded, needs_recovery
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume, power_of_two

OFFSETS = (65536, 8192)
MAGIC = (b"ReIsErFs", b"ReIsEr2F", b"ReIsEr3F")
CLEAN = 1


def read_reiserfs(volume: Volume) -> Usage:
    """The superblock's account; the journal counts as used."""
    block = superblock(volume)
    block_size = power_of_two(block.u16(44), 512, 32768, "the block size")
    problems = [] if block.u16(50) == CLEAN else [needs_recovery()]
    if block.u16(62):
        problems.append(errors_recorded())
    return account(
        volume,
        block_size=block_size,
        size=block.u32(0) * block_size,
        free=block.u32(4) * block_size,
        problems=problems,
    )


def superblock(volume: Volume) -> Block:
    """Where either of the two places has it. Raises BadSuperblock."""
    for offset in OFFSETS:
        if offset + 204 > volume.size:
            continue
        block = volume.block(offset, 204, "little")
        if block.raw(52, 8) in MAGIC:
            return block
    raise BadSuperblock("it does not have the magic number of ReiserFS")

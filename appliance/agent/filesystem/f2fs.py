"""F2FS: the superblock and the newer of its two checkpoints.

Source: Linux include/linux/f2fs_fs.h (struct f2fs_super_block at byte 1024, its copy 4096 bytes
later; struct f2fs_checkpoint) and fs/f2fs/checkpoint.c (validate_checkpoint); little endian.
"""

from __future__ import annotations

import zlib

from appliance.agent.filesystem.account import (
    Problem,
    Usage,
    account,
    counted,
    errors_recorded,
    needs_recovery,
    orphans,
)
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume, shifted

MAGIC = 0xF2F52010
UNMOUNTED, ORPHANS, ERROR, NEEDS_FSCK = 0x01, 0x02, 0x08, 0x10
MAX_PACK_BLOCKS = 2**20


def read_f2fs(volume: Volume) -> Usage:
    """Size of the file system; free is what the checkpoint leaves of the blocks for users.

    So metadata areas and the over-provisioned segments count as used.
    """
    block = _superblock(volume)
    block_size = shifted(block.u32(16), 12, 16, "the block size")
    problems: list[Problem] = []
    free = counted(lambda: _free(_checkpoint(volume, block, block_size), problems), problems)
    return account(
        volume,
        block_size=block_size,
        size=block.u64(36) * block_size,
        free=None if free is None else free * block_size,
        problems=problems,
    )


def _superblock(volume: Volume) -> Block:
    for offset in (1024, 4096 + 1024):
        block = volume.block(offset, 512, "little")
        if block.u32(0) == MAGIC:
            return block
    raise BadSuperblock("it does not have the magic number of F2FS")


def _checkpoint(volume: Volume, block: Block, block_size: int) -> Block:
    start = block.u32(76)
    segment = shifted(block.u32(20), 0, 20, "the number of blocks in a segment")
    packs = [_pack(volume, (start + index * segment) * block_size, block_size) for index in (0, 1)]
    valid = [pack for pack in packs if pack is not None]
    if not valid:
        raise BadSuperblock("it has no valid checkpoint")
    return max(valid, key=lambda pack: pack.u64(0))


def _pack(volume: Volume, offset: int, block_size: int) -> Block | None:
    """A checkpoint is valid if its first and its last block are, and have one version."""
    try:
        first = volume.block(offset, block_size, "little")
        length = first.u32(136)
        if not _checked(first) or not 2 <= length <= MAX_PACK_BLOCKS:
            return None
        last = volume.block(offset + (length - 1) * block_size, block_size, "little")
    except BadSuperblock:
        return None
    return first if _checked(last) and last.u64(0) == first.u64(0) else None


def _checked(block: Block) -> bool:
    """f2fs_crc32 is CRC-32 seeded with the magic number and without the usual inversions."""
    at = block.u32(164)
    if not 168 <= at <= len(block) - 4:
        return False
    checksum = zlib.crc32(block.raw(0, at), MAGIC ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    return checksum == block.u32(at)


def _free(checkpoint: Block, problems: list[Problem]) -> int:
    flags = checkpoint.u32(132)
    if not flags & UNMOUNTED:
        problems.append(needs_recovery())
    if flags & ORPHANS:
        problems.append(orphans())
    if flags & (ERROR | NEEDS_FSCK):
        problems.append(errors_recorded())
    if checkpoint.u64(16) > checkpoint.u64(8):
        raise BadSuperblock("more blocks are in use than there are")
    return checkpoint.u64(8) - checkpoint.u64(16)

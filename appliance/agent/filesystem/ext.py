"""ext2, ext3 and ext4: the superblock, as `tune2fs -l` and `dumpe2fs -h` show it.

Source: Linux Documentation/filesystems/ext4/super.rst and fs/ext4/ext4.h (struct
ext4_super_block, 1024 bytes at byte 1024, little endian); the words are those of e2fsprogs
lib/e2p (ls.c, ps.c, pe.c).
"""

from __future__ import annotations

from appliance.agent.filesystem.account import (
    Problem,
    Usage,
    account,
    counted,
    errors_recorded,
    needs_recovery,
    not_clean,
    orphans,
    usage_unknown,
)
from appliance.agent.filesystem.ext_feature import feature_names
from appliance.agent.filesystem.ext_group import Geometry, free_blocks_of_groups
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume, shifted
from appliance.layer import ExtState

VALID_FS = 0x0001
ERROR_FS = 0x0002
NEEDS_RECOVERY = 1 << 2
IS_64BIT = 1 << 7
ORPHANS_PRESENT = 1 << 16
BIGALLOC = 1 << 9
ORIGINAL_INODE_SIZE = 128
ERRORS_BEHAVIOR = {1: "Continue", 2: "Remount read-only", 3: "Panic"}


def read_ext(volume: Volume) -> Usage:
    """The superblock's account; used and free in bytes.

    The kernel brings the free count of the superblock up to date only now and then. Where the
    file system was in use when it was imaged (needs_recovery, or not clean), free is the sum of
    the free counts of all group descriptors instead, which are closer to the truth though still
    older than the journal. `ext.free_blocks` is always what the superblock holds.
    """
    block = volume.block(1024, 1024, "little")
    if block.u16(0x38) != 0xEF53:
        raise BadSuperblock("it does not have the magic number of ext2")
    ext = _state(block)
    problems = _problems(block, ext)
    try:
        block_size = shifted(block.u32(0x18), 0, 6, "the block size in KiB") * 1024
    except BadSuperblock as error:
        # The rest of the superblock is still evidence.
        return Usage(ext=ext, problems=(*problems, usage_unknown(str(error))))
    free = counted(lambda: _free_blocks(volume, block, ext, block_size), problems)
    return account(
        volume,
        block_size=block_size,
        size=ext.block_count * block_size,
        free=None if free is None else free * block_size,
        problems=problems,
        ext=ext,
    )


def _state(block: Block) -> ExtState:
    is_64bit = bool(block.u32(0x60) & IS_64BIT)
    state = "clean" if block.u16(0x3A) & VALID_FS else "not clean"
    if block.u16(0x3A) & ERROR_FS:
        state += " with errors"
    maximum_mount_count = block.u16(0x36)
    return ExtState(
        state=state,
        errors_behavior=ERRORS_BEHAVIOR.get(block.u16(0x3C), "Unknown (continue)"),
        mount_count=block.u16(0x34),
        maximum_mount_count=maximum_mount_count - (maximum_mount_count >> 15 << 16),
        created=_time(block, 0x108, 0x276),
        last_mounted=_time(block, 0x2C, 0x275),
        last_written=_time(block, 0x30, 0x274),
        last_checked=_time(block, 0x40, 0x277),
        check_interval=block.u32(0x44),
        last_mounted_on=block.raw(0x88, 64).partition(b"\0")[0].decode("utf-8", "replace"),
        features=feature_names(block.u32(0x5C), block.u32(0x60), block.u32(0x64)),
        block_count=block.u32(0x04) | (block.u32(0x150) << 32 if is_64bit else 0),
        free_blocks=block.u32(0x0C) | (block.u32(0x158) << 32 if is_64bit else 0),
        inode_count=block.u32(0x00),
        free_inodes=block.u32(0x10),
        inode_size=block.u16(0x58) if block.u32(0x4C) else ORIGINAL_INODE_SIZE,
        error_count=block.u32(0x194),
    )


def _time(block: Block, low: int, high: int) -> int | None:
    """Seconds since the epoch, 40 bits (ext4_get_tstamp); 0 stands for never."""
    return block.u32(low) | block.u8(high) << 32 or None


def _problems(block: Block, ext: ExtState) -> list[Problem]:
    problems: list[Problem] = []
    if block.u32(0x60) & NEEDS_RECOVERY:
        problems.append(needs_recovery())
    if not block.u16(0x3A) & VALID_FS:
        problems.append(not_clean())
    if block.u16(0x3A) & ERROR_FS or ext.error_count:
        message = f"The file system has recorded errors in itself (error count {ext.error_count})."
        problems.append(errors_recorded(message))
    # The head of the old list, or the mark that the newer file of orphans is not empty.
    if block.u32(0xE8) or block.u32(0x64) & ORPHANS_PRESENT:
        problems.append(orphans())
    return problems


def _free_blocks(volume: Volume, block: Block, ext: ExtState, block_size: int) -> int:
    in_use = block.u32(0x60) & NEEDS_RECOVERY or not block.u16(0x3A) & VALID_FS
    if not in_use:
        return ext.free_blocks
    cluster_blocks = 1
    if block.u32(0x64) & BIGALLOC:
        cluster = shifted(block.u32(0x1C), 0, 19, "the cluster size in KiB") * 1024
        cluster_blocks = max(1, cluster // block_size)
    # Group descriptors count in clusters, the superblock in blocks.
    return cluster_blocks * free_blocks_of_groups(
        volume, Geometry.of(block, block_size, ext.block_count)
    )

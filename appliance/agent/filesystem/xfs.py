"""XFS: the superblock, and the allocation groups where its counts are out of date.

Source: Linux fs/xfs/libxfs/xfs_format.h (struct xfs_dsb at byte 0, struct xfs_agf in the second
sector of each allocation group; big endian).
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
)
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume, power_of_two
from appliance.agent.filesystem.xfs_log import log_is_clean
from appliance.layer import Severity

MAX_GROUPS = 8192
INCOMPATIBLE_NEEDSREPAIR = 1 << 4


def read_xfs(volume: Volume) -> Usage:
    """The data section's account (no realtime section); an internal log counts as used.

    The free count of the superblock is brought up to date only at unmount (lazy counters). Where
    the log is dirty, free is what the kernel starts recovery with: the sum over the allocation
    groups, which is older than the log.
    """
    block = volume.block(0, 512, "big")
    if block.raw(0, 4) != b"XFSB":
        raise BadSuperblock("it does not have the magic number of XFS")
    block_size = power_of_two(block.u32(4), 512, 65536, "the block size")
    problems = _problems(block)
    clean = _log_state(volume, block, block_size, problems)
    free: int | None = block.u64(144)
    if not clean:
        problems.append(needs_recovery())
        free = counted(lambda: _free_in_groups(volume, block, block_size), problems)
    return account(
        volume,
        block_size=block_size,
        size=block.u64(8) * block_size,
        free=None if free is None else free * block_size,
        problems=problems,
    )


def _problems(block: Block) -> list[Problem]:
    problems = []
    if block.u16(100) & 0xF >= 5 and block.u32(216) & INCOMPATIBLE_NEEDSREPAIR:
        problems.append(errors_recorded("The file system is marked as in need of xfs_repair."))
    if block.u8(126):
        problems.append(not_clean())
    return problems


def _log_state(volume: Volume, block: Block, block_size: int, problems: list[Problem]) -> bool:
    """Whether the log is clean, True with a problem where that cannot be seen."""
    start, blocks = block.u64(48), block.u32(96)
    if start == 0:
        message = "The journal is on another device; whether it has been replayed is not known."
        problems.append(Problem(Severity.INFO, "external-journal", message))
        return True
    group_bits = block.u8(124)
    if group_bits > 31:
        raise BadSuperblock(f"an allocation group of 2^{group_bits} blocks is impossible")
    group, in_group = start >> group_bits, start & ((1 << group_bits) - 1)
    offset = (group * block.u32(84) + in_group) * block_size
    try:
        return log_is_clean(volume, offset, blocks * block_size)
    except BadSuperblock as error:
        message = f"The state of the journal is not known: {error}."
        problems.append(Problem(Severity.WARNING, "journal-unreadable", message))
        return True


def _free_in_groups(volume: Volume, block: Block, block_size: int) -> int:
    """In blocks; free extents, the free list and the free space B-trees (as the kernel sums)."""
    group_bytes, groups = block.u32(84) * block_size, block.u32(88)
    sector = power_of_two(block.u16(102), 512, 32768, "the sector size")
    if groups > MAX_GROUPS:
        raise BadSuperblock(f"{groups} allocation groups are more than are read")
    free = 0
    for group in range(groups):
        header = volume.block(group * group_bytes + sector, 64, "big")
        if header.raw(0, 4) != b"XAGF":
            raise BadSuperblock(f"allocation group {group} has no header")
        free += header.u32(48) + header.u32(52) + header.u32(60)
    return free

"""btrfs: the first superblock.

Source: Linux include/uapi/linux/btrfs_tree.h (struct btrfs_super_block, at byte 65536, little
endian).
"""

from __future__ import annotations

from appliance.agent.filesystem.account import (
    Problem,
    Usage,
    account,
    errors_recorded,
    needs_recovery,
)
from appliance.agent.filesystem.reading import KIB, BadSuperblock, Volume, power_of_two
from appliance.layer import Severity

FLAG_ERROR = 1 << 2


def read_btrfs(volume: Volume) -> Usage:
    """Size over all devices; used counts each byte once, however many copies its profile keeps.

    So free = size - used is the raw space: with a profile that duplicates (DUP, RAID1 …) less
    than that can be stored.
    """
    block = volume.block(64 * KIB, 4096, "little")
    if block.raw(64, 8) != b"_BHRfS_M":
        raise BadSuperblock("it does not have the magic number of btrfs")
    size, used, devices = block.u64(112), block.u64(120), block.u64(136)
    problems = []
    if devices > 1:
        message = f"The numbers are those of a file system on {devices} devices together."
        problems.append(Problem(Severity.INFO, "multiple-devices", message))
    if block.u64(96):
        problems.append(needs_recovery())
    if block.u64(56) & FLAG_ERROR:
        problems.append(errors_recorded())
    return account(
        volume,
        block_size=power_of_two(block.u32(144), 512, 65536, "the sector size"),
        size=size,
        free=size - used,
        problems=problems,
        on_volume=block.u64(209),
    )

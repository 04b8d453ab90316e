"""HFS+ and HFSX, the Mac OS Extended file system, also inside of an HFS wrapper.

Source: Apple Technical Note TN1150 and Linux fs/hfsplus/hfsplus_raw.h (struct hfsplus_vh at byte
1024); big endian.
"""

from __future__ import annotations

from appliance.agent.filesystem.account import (
    Usage,
    account,
    errors_recorded,
    needs_recovery,
    not_clean,
)
from appliance.agent.filesystem.reading import BadSuperblock, Volume, power_of_two

UNMOUNTED, INCONSISTENT, JOURNALED = 1 << 8, 1 << 11, 1 << 13


def read_hfsplus(volume: Volume) -> Usage:
    """The volume header's account."""
    block = volume.block(_start(volume) + 1024, 512, "big")
    if block.raw(0, 2) not in (b"H+", b"HX"):
        raise BadSuperblock("it does not have the magic number of HFS+")
    block_size = power_of_two(block.u32(40), 512, 2**31, "the block size")
    attributes = block.u32(4)
    problems = []
    if not attributes & UNMOUNTED:
        problems.append(needs_recovery() if attributes & JOURNALED else not_clean())
    if attributes & INCONSISTENT:
        problems.append(errors_recorded())
    return account(
        volume,
        block_size=block_size,
        size=block.u32(44) * block_size,
        free=block.u32(48) * block_size,
        problems=problems,
    )


def _start(volume: Volume) -> int:
    """Byte offset of the HFS+ volume: 0, or where the HFS wrapper has embedded it."""
    wrapper = volume.block(1024, 162, "big")
    if wrapper.raw(0, 2) != b"BD" or wrapper.raw(124, 2) != b"H+":
        return 0
    return wrapper.u16(28) * 512 + wrapper.u16(126) * wrapper.u32(20)

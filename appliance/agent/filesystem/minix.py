"""Minix file systems, versions 1 to 3.

Source: Linux include/uapi/linux/minix_fs.h (struct minix_super_block and minix3_super_block at
byte 1024) and fs/minix/bitmap.c (minix_count_free_blocks); byte order of the machine that made it.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.agent.filesystem.account import (
    Usage,
    account,
    counted,
    errors_recorded,
    not_clean,
)
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume, power_of_two, shifted

VERSION_1, VERSION_2, VERSION_3 = (0x137F, 0x138F), (0x2468, 0x2478), 0x4D5A
VALID, ERROR = 1, 2


@dataclass(frozen=True, slots=True)
class Layout:
    """`map_block` is where the map of zones starts, in blocks; `state` None if not kept."""

    block_size: int
    zone_size: int
    zones: int
    first_zone: int
    map_block: int
    state: int | None


def read_minix(volume: Volume) -> Usage:
    """Size in zones; free are those that the map of zones does not mark."""
    untrusted_block = volume.bytes_at(1024, 64)
    layout = _layout(Block(untrusted_block, "little")) or _layout(Block(untrusted_block, "big"))
    if layout is None:
        raise BadSuperblock("it does not have the magic number of Minix")
    problems = []
    if layout.state is not None and not layout.state & VALID:
        problems.append(not_clean())
    if layout.state is not None and layout.state & ERROR:
        problems.append(errors_recorded())
    free = counted(lambda: _free(volume, layout), problems)
    return account(
        volume,
        block_size=layout.block_size,
        size=layout.zones * layout.zone_size,
        free=None if free is None else free * layout.zone_size,
        problems=problems,
    )


def _layout(block: Block) -> Layout | None:
    if block.u16(24) == VERSION_3:
        block_size = power_of_two(block.u16(28), 1024, 32768, "the block size")
        maps, first_zone, exponent = block.u16(6), block.u16(10), block.u16(12)
        zones, state = block.u32(20), None
    elif block.u16(16) in VERSION_1 + VERSION_2:
        block_size = 1024
        maps, first_zone, exponent = block.u16(4), block.u16(8), block.u16(10)
        zones = block.u16(2) if block.u16(16) in VERSION_1 else block.u32(20)
        state = block.u16(18)
    else:
        return None
    zone_size = block_size * shifted(exponent, 0, 10, "the number of blocks in a zone")
    return Layout(block_size, zone_size, zones, first_zone, 2 + maps, state)


def _free(volume: Volume, layout: Layout) -> int:
    """Bit 0 of the map stands for no zone and is set, bit 1 for the first data zone."""
    bits = layout.zones - layout.first_zone + 1
    if bits < 1:
        raise BadSuperblock("it has no room for data")
    return bits - volume.set_bits(layout.map_block * layout.block_size, bits)

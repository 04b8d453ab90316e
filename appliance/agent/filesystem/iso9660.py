"""ISO 9660 and High Sierra.

Source: ECMA-119, section 8.4 (primary volume descriptor, from byte 32768 on), and Linux
include/uapi/linux/iso_fs.h; both-endian numbers, of which the little endian half is read.
"""

from __future__ import annotations

from appliance.agent.filesystem.account import Usage, account
from appliance.agent.filesystem.reading import BadSuperblock, Volume, power_of_two

SECTOR = 2048
FIRST = 16
MAX_DESCRIPTORS = 32
PRIMARY, TERMINATOR = 1, 255


def read_iso9660(volume: Volume) -> Usage:
    """Size of the volume space; all of it is used."""
    for index in range(FIRST, FIRST + MAX_DESCRIPTORS):
        block = volume.block(index * SECTOR, SECTOR, "little")
        if block.raw(1, 5) == b"CD001":
            kind, space, block_size = block.u8(0), block.u32(80), block.u16(128)
        elif block.raw(9, 5) == b"CDROM":
            kind, space, block_size = block.u8(8), block.u32(88), block.u16(136)
        else:
            break
        if kind == PRIMARY:
            power_of_two(block_size, 512, SECTOR, "the block size")
            return account(volume, block_size=block_size, size=space * block_size, free=0)
        if kind == TERMINATOR:
            break
    raise BadSuperblock("it has no primary volume descriptor")

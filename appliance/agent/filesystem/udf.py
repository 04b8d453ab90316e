"""UDF: the space tables of the logical volume integrity descriptor.

Source: ECMA-167, 3/7.2 (tag), 3/10.2 (anchor), 3/10.6 and 3/10.10 (logical volume and its
integrity); little endian.
"""

from __future__ import annotations

from collections.abc import Iterator

from appliance.agent.filesystem.account import Usage, account, not_clean, usage_unknown
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume, power_of_two

BLOCK_SIZES = (2048, 512, 1024, 4096)
ANCHOR, LOGICAL_VOLUME, TERMINATING, INTEGRITY = 2, 6, 8, 9
ANCHOR_BLOCK = 256
MAX_DESCRIPTORS = 64
MAX_PARTITIONS = 64
NOT_SPECIFIED = 0xFFFFFFFF


def read_udf(volume: Volume) -> Usage:
    """Size and free over all partitions; the areas around them belong to none.

    A virtual or metadata partition is a view of another one; its table entries are not specified
    (all ones) and left out.
    """
    sector, anchor = _anchor(volume)
    descriptors = _descriptors(volume, sector, anchor.u32(16), anchor.u32(20))
    logical = next((block for tag, block in descriptors if tag == LOGICAL_VOLUME), None)
    if logical is None:
        raise BadSuperblock("it has no logical volume descriptor")
    block_size = power_of_two(logical.u32(212), 512, 32768, "the block size")
    integrity = None
    for tag, block in _descriptors(volume, sector, logical.u32(432), logical.u32(436)):
        integrity = block if tag == INTEGRITY else integrity
    if integrity is None:
        reason = "it has no integrity descriptor"
        return Usage(block_size=block_size, problems=(usage_unknown(reason),))
    problems = [] if integrity.u32(28) else [not_clean()]
    size, free = _space(integrity)
    return account(
        volume,
        block_size=block_size,
        size=size * block_size,
        free=free * block_size,
        problems=problems,
    )


def _anchor(volume: Volume) -> tuple[int, Block]:
    """The sector size, which is recorded nowhere, and the anchor descriptor."""
    for sector in BLOCK_SIZES:
        if (ANCHOR_BLOCK + 1) * sector > volume.size:
            continue
        block = volume.block(ANCHOR_BLOCK * sector, 512, "little")
        if _is_tagged(block) and block.u16(0) == ANCHOR and block.u32(12) == ANCHOR_BLOCK:
            return sector, block
    raise BadSuperblock("it has no anchor volume descriptor")


def _descriptors(
    volume: Volume, sector: int, length: int, start: int
) -> Iterator[tuple[int, Block]]:
    """Tag and bytes of each descriptor of an extent, to its end, a gap or the limit."""
    for index in range(min(length // sector, MAX_DESCRIPTORS)):
        block = volume.block((start + index) * sector, sector, "little")
        if not _is_tagged(block) or block.u16(0) == TERMINATING:
            return
        yield block.u16(0), block


def _is_tagged(block: Block) -> bool:
    """The fifth byte of a tag is the sum of its other fifteen."""
    untrusted_tag = block.raw(0, 16)
    return (sum(untrusted_tag) - untrusted_tag[4]) % 256 == untrusted_tag[4] and any(untrusted_tag)


def _space(integrity: Block) -> tuple[int, int]:
    """Size and free, in blocks."""
    partitions = integrity.u32(72)
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise BadSuperblock(f"{partitions} partitions are impossible")
    size = free = 0
    for index in range(partitions):
        room = integrity.u32(80 + 4 * (partitions + index))
        left = integrity.u32(80 + 4 * index)
        if NOT_SPECIFIED not in (room, left):
            size, free = size + room, free + left
    return size, free

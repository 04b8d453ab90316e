"""Whether the log of an XFS file system ends in an unmount record.

Source: Linux fs/xfs/xfs_log_recover.c (xlog_find_head, xlog_check_unmount_rec) and
fs/xfs/libxfs/xfs_log_format.h; positions are in basic blocks of 512 bytes.
"""

from __future__ import annotations

from appliance.agent.filesystem.reading import KIB, BadSuperblock, Block, Volume

BASIC = 512
RECORD_MAGIC = b"\xfe\xed\xba\xbe"
MAX_LOG = 2**31
"""Bytes; XFS allows no more (XFS_MAX_LOG_BYTES)."""

MAX_RECORD = 512 * KIB
"""How far back from the head the last record may start; a log buffer has at most 256 KiB."""

UNMOUNT_TRANSACTION = 0x20


def log_is_clean(volume: Volume, offset: int, length: int) -> bool:
    """Whether there is nothing to replay in the log of `length` bytes at `offset`.

    The kernel looks around the head for records that were written out of order; here the log is
    clean only if an unmount record ends exactly at the head, so that such a log counts as dirty.
    """
    if not BASIC <= length <= MAX_LOG:
        raise BadSuperblock(f"a log of {length} bytes is impossible")
    total = length // BASIC
    first, last = _cycle(volume, offset, 0), _cycle(volume, offset, total - 1)
    if first == 0:
        return True
    head = total if first == last else _first_with(volume, offset, total, last)
    untrusted_tail = _before(volume, offset, total, head)
    for back in range(BASIC, len(untrusted_tail) + 1, BASIC):
        start = len(untrusted_tail) - back
        if untrusted_tail[start : start + 4] == RECORD_MAGIC:
            return _is_unmount_record(Block(untrusted_tail[start:], "big"))
    return False


def _cycle(volume: Volume, offset: int, index: int) -> int:
    """Each block starts with the number of the pass over the log that wrote it."""
    block = volume.block(offset + index * BASIC, 8, "big")
    return block.u32(4) if block.raw(0, 4) == RECORD_MAGIC else block.u32(0)


def _first_with(volume: Volume, offset: int, total: int, cycle: int) -> int:
    """The first block of the old pass (or never written): where the next record would go."""
    low, high = 0, total - 1
    while high - low > 1:
        middle = (low + high) // 2
        if _cycle(volume, offset, middle) == cycle:
            high = middle
        else:
            low = middle
    return high


def _before(volume: Volume, offset: int, total: int, head: int) -> bytes:
    """Up to MAX_RECORD bytes that end at `head`, around the start of the log if need be."""
    wanted = min(MAX_RECORD // BASIC, total)
    direct = min(wanted, head)
    untrusted_end = volume.bytes_at(offset + (head - direct) * BASIC, direct * BASIC)
    around = wanted - direct
    return volume.bytes_at(offset + (total - around) * BASIC, around * BASIC) + untrusted_end


def _is_unmount_record(record: Block) -> bool:
    """`record` runs from the record's header to the head; it must be all of it."""
    header_blocks = 1
    if record.u32(8) & 2 and record.u32(320) > 32 * KIB:
        header_blocks = -(-record.u32(320) // (32 * KIB))
    data_blocks = -(-record.u32(12) // BASIC)
    if record.u32(40) != 1 or (header_blocks + data_blocks) * BASIC != len(record):
        return False
    return bool(record.u8(header_blocks * BASIC + 9) & UNMOUNT_TRANSACTION)

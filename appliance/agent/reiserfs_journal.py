"""Takes the journal of a ReiserFS out of the kernel's sight, on an overlay.

The kernel does not mount one whose journal wants replaying from a device that refuses writes, and
replays it on any other, whatever the options say. On an overlay without the descriptors of the
transactions there is nothing to replay, and it is as it was found.

Source: Linux fs/reiserfs/reiserfs.h (struct reiserfs_super_block_v1, JOURNAL_DESC_MAGIC) and
journal.c (journal_read).
"""

from __future__ import annotations

import os

from appliance.agent.filesystem.reading import BadSuperblock, Volume
from appliance.agent.filesystem.reiserfs import superblock

DESCRIPTOR = b"ReIsErLB"
MAX_LOG = 256 << 20
PIECE = 1 << 20


def hide_journal(node: str, size: int) -> None:
    """Overwrite the descriptors in the log on that device. Raises BadSuperblock and OSError."""
    fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    try:
        block = superblock(Volume(lambda offset, length: os.pread(fd, length, offset), size))
        block_size = block.u16(44)
        start, length = block.u32(12) * block_size, block.u32(20) * block_size
        if block.u32(16):
            raise BadSuperblock("its journal is on another device")
        if block_size not in (512, 1024, 2048, 4096, 8192) or length > MAX_LOG:
            raise BadSuperblock("its journal is impossible")
        for at in range(start, min(start + length, size), PIECE):
            _hide(fd, at, min(PIECE, start + length - at), block_size)
        os.fsync(fd)
    finally:
        os.close(fd)


def _hide(fd: int, at: int, length: int, block_size: int) -> None:
    untrusted_log = os.pread(fd, length, at)
    mark = block_size - 12
    for block in range(0, len(untrusted_log), block_size):
        if untrusted_log[block + mark : block + mark + len(DESCRIPTOR)] == DESCRIPTOR:
            os.pwrite(fd, bytes(block_size), at + block)

"""Loop devices, which make a block device of a regular file. By ioctl: no process, no name.

Layouts and numbers: <linux/loop.h>.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONFIGURE, _GET_FREE = 0x4C0A, 0x4C82
_READ_ONLY, _AUTOCLEAR = 1, 4
# loop_config: fd, block size; then struct loop_info64: device, inode, rdevice, offset, size limit,
# number, two of encryption, flags, names and keys, two spare; then eight reserved words.
_CONFIG = struct.Struct("=II5Q4I64s64s32s2Q8Q")
_ATTEMPTS = 100


@contextmanager
def loop_device(fd: int, size: int = 0, *, read_only: bool = True) -> Iterator[str]:
    """Yield the node of a block device with the first `size` bytes of the open file `fd`.

    `size` is a multiple of 512, 0 for all of the file. The device is gone when the context ends
    and nobody else has it open. Raises OSError.
    """
    flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0)
    place = (0, 0, 0, 0, size)
    config = _CONFIG.pack(fd, 0, *place, 0, 0, 0, flags, b"", b"", b"", 0, 0, *[0] * 8)
    node, device = _configured(config, os.O_RDONLY if read_only else os.O_RDWR)
    try:
        yield node
    finally:
        os.close(device)


@contextmanager
def read_only_device(path: Path) -> Iterator[str]:
    """The same for the file of that name. Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        with loop_device(file) as node:
            yield node
    finally:
        os.close(file)


def _configured(config: bytes, mode: int) -> tuple[str, int]:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            node = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            device = os.open(node, mode | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else was quicker
                    raise
            else:
                return node, device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device is free")

"""Loop devices: a file of the guest as a block device that refuses writes. See <linux/loop.h>."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_READ_ONLY, _AUTOCLEAR = 1, 4
_ATTEMPTS = 100
_CONFIG = struct.Struct("=II 52x I 176x 64x")
"""loop_config: descriptor, block size, loop_info64 (232 bytes, flags at 52), reserved."""


@contextmanager
def read_only_device(path: Path) -> Iterator[str]:
    """Yield the node of a device with the bytes of the file. Raises OSError.

    It is gone when the context ends and nobody else has it open.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        device, node = _attached(file)
    finally:
        os.close(file)
    try:
        yield node
    finally:
        os.close(device)


def _attached(file: int) -> tuple[int, str]:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            node = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, _CONFIG.pack(file, 0, _READ_ONLY | _AUTOCLEAR))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else was quicker
                    raise
            else:
                return device, node
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device is free")

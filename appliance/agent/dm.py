"""The kernel's device mapper, by its ioctls: a process for each would cost a fifth of a second.

Layouts and numbers: <linux/dm-ioctl.h>; targets: Documentation/admin-guide/device-mapper/.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import count
from pathlib import Path

SECTOR = 512
_HEAD = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
_TARGET = struct.Struct("=QQiI16s")
_CREATE, _REMOVE, _SUSPEND, _LOAD = (0xC138FD00 | number for number in (3, 4, 6, 9))
_READ_ONLY = 1 << 0
_VERSION = (4, 0, 0)
_numbers = count()


class MappingError(Exception):
    """The kernel did not make the device."""


@contextmanager
def mapped(size: int, target: str, parameters: str, *, read_only: bool = True) -> Iterator[str]:
    """Yield the node of a new device of `size` bytes that consists of one `target`.

    Raises MappingError. The device is gone when the context ends, unless something still uses it.
    """
    name = f"forensic{next(_numbers)}"
    with ExitStack() as stack:
        try:
            node = _made(name, _table(size // SECTOR, target, parameters), read_only, stack)
        except OSError as error:
            raise MappingError(f"{target} ({parameters}): {error.strerror}") from error
        yield node


def _made(name: str, table: bytes, read_only: bool, stack: ExitStack) -> str:
    flags = _READ_ONLY if read_only else 0
    minor = _minor(_control(_CREATE, name))
    stack.callback(_remove, name)
    _control(_LOAD, name, flags, table)
    _control(_SUSPEND, name, flags)  # without its flag this command means resume
    return f"/dev/dm-{minor}"


def _table(sectors: int, target: str, parameters: str) -> bytes:
    words = parameters.encode() + b"\0"
    words += bytes(-len(words) % 8)
    return _TARGET.pack(0, sectors, 0, _TARGET.size + len(words), target.encode()) + words


def _control(command: int, name: str, flags: int = 0, data: bytes = b"") -> bytes:
    """One command, the answer's head. Raises OSError."""
    size = _HEAD.size + len(data)
    targets = 1 if data else 0
    head = _HEAD.pack(*_VERSION, size, _HEAD.size, targets, 0, flags, 0, 0, 0, name.encode(), b"")
    buffer = bytearray(head + data)
    fcntl.ioctl(_device(), command, buffer)
    return bytes(buffer[: _HEAD.size])


def _minor(answer: bytes) -> int:
    """From `dev`, which new_encode_dev() of <linux/kdev_t.h> has made."""
    number: int = _HEAD.unpack(answer)[10]
    return (number & 0xFF) | ((number >> 12) & 0xFFF00)


def _remove(name: str) -> None:
    """Whoever has just closed the device may not be through with it yet."""
    for _ in range(25):
        try:
            _control(_REMOVE, name)
        except OSError:
            time.sleep(0.02)
        else:
            return


@cache
def _device() -> int:
    return os.open("/dev/mapper/control", os.O_RDWR | os.O_CLOEXEC)


def node_by_uuid(wanted: str) -> str | None:
    """The node of the device whose uuid is `wanted`, where dashes do not count."""
    return _node("uuid", lambda found: found.replace("-", "") == wanted.replace("-", ""))


def node_by_name(wanted: str) -> str | None:
    """The kernel's own node: without udev nobody makes links in /dev/mapper."""
    return _node("name", lambda found: found == wanted)


def _node(attribute: str, fits: Callable[[str], bool]) -> str | None:
    for path in Path("/sys/block").glob(f"dm-*/dm/{attribute}"):
        if fits(path.read_text().strip()):
            return f"/dev/{path.parent.parent.name}"
    return None

"""The kernel's device mapper, by its ioctls: a process for each would cost a fifth of a second.

Layouts and numbers: <linux/dm-ioctl.h>; targets: Documentation/admin-guide/device-mapper/.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

SECTOR = 512
_HEAD = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
_TARGET = struct.Struct("=QQiI16s")
_CREATE, _REMOVE, _SUSPEND, _LOAD, _STATUS = (0xC138FD00 | number for number in (3, 4, 6, 9, 12))
_READ_ONLY = 1 << 0
_ANSWER = 16384
_VERSION = (4, 0, 0)
_numbers = count()


class MappingError(Exception):
    """The kernel did not make the device."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a device's table: first sector, sectors, target, and what the target is told."""

    start: int
    sectors: int
    target: str
    parameters: str


def mapped(
    size: int, target: str, parameters: str, *, read_only: bool = True
) -> AbstractContextManager[str]:
    """The node of a new device of `size` bytes that consists of one `target`; see mapped_rows."""
    return mapped_rows([Row(0, size // SECTOR, target, parameters)], read_only=read_only)


def composed(
    parts: Sequence[tuple[int, str, str]], *, read_only: bool = True
) -> AbstractContextManager[str]:
    """The same for several targets, one behind the other, as (size, target, parameters)."""
    rows, start = [], 0
    for size, target, parameters in parts:
        rows.append(Row(start, size // SECTOR, target, parameters))
        start += size // SECTOR
    return mapped_rows(rows, read_only=read_only)


@contextmanager
def mapped_rows(rows: Sequence[Row], *, read_only: bool = True) -> Iterator[str]:
    """Yield the node of a new device that consists of these rows.

    Raises MappingError. The device is gone when the context ends, unless something still uses it.
    """
    name = f"forensic{next(_numbers)}"
    with ExitStack() as stack:
        try:
            node = _made(name, rows, read_only, stack)
        except OSError as error:
            words = ", ".join(f"{row.target} ({row.parameters})" for row in rows[:3])
            raise MappingError(f"{words}: {error.strerror}") from error
        yield node


def _made(name: str, rows: Sequence[Row], read_only: bool, stack: ExitStack) -> str:
    flags = _READ_ONLY if read_only else 0
    minor = _minor(_control(_CREATE, name))
    stack.callback(_remove, name)
    _control(_LOAD, name, flags, b"".join(_packed(row) for row in rows), len(rows))
    _control(_SUSPEND, name, flags)  # without its flag this command means resume
    return f"/dev/dm-{minor}"


def _packed(row: Row) -> bytes:
    words = row.parameters.encode() + b"\0"
    words += bytes(-len(words) % 8)
    size = _TARGET.size + len(words)
    return _TARGET.pack(row.start, row.sectors, 0, size, row.target.encode()) + words


def status(node: str) -> bytes:
    """What the targets of a device say about themselves. Raises OSError."""
    number = Path(node).stat().st_rdev
    minor = os.minor(number)
    device = (minor & 0xFF) | (os.major(number) << 8) | ((minor & ~0xFF) << 12)
    head = _HEAD.pack(*_VERSION, _ANSWER, _HEAD.size, 0, 0, 0, 0, 0, device, b"", b"")
    buffer = bytearray(head.ljust(_ANSWER, b"\0"))
    fcntl.ioctl(_device(), _STATUS, buffer)
    return bytes(buffer[_HEAD.size :]).rstrip(b"\0")


def _control(command: int, name: str, flags: int = 0, data: bytes = b"", targets: int = 0) -> bytes:
    """One command, the answer's head. Raises OSError."""
    size = _HEAD.size + len(data)
    head = _HEAD.pack(*_VERSION, size, _HEAD.size, targets, 0, flags, 0, 0, 0, name.encode(), b"")
    buffer = bytearray(head + data)
    fcntl.ioctl(_device(), command, buffer)
    return bytes(buffer[: _HEAD.size])


def _minor(answer: bytes) -> int:
    """From `dev`, which new_encode_dev() of <linux/kdev_t.h> has made."""
    number: int = _HEAD.unpack(answer)[10]
    return (number & 0xFF) | ((number >> 12) & 0xFFF00)


def remove_all(uuid_prefix: str) -> None:
    """Remove the devices whose uuid begins so; those that lie on others go first."""
    for _ in range(25):
        nodes = nodes_by_uuid(uuid_prefix).values()
        if not nodes:
            return
        if not any(_is_removed(_name(node)) for node in nodes):
            time.sleep(0.02)


def _remove(name: str) -> None:
    """Whoever has just closed the device may not be through with it yet."""
    for _ in range(25):
        if _is_removed(name):
            return
        time.sleep(0.02)


def _is_removed(name: str) -> bool:
    try:
        _control(_REMOVE, name)
    except OSError:
        return False
    return True


def _name(node: str) -> str:
    try:
        return Path("/sys/block", Path(node).name, "dm/name").read_text().strip()
    except OSError:
        return ""


@cache
def _device() -> int:
    return os.open("/dev/mapper/control", os.O_RDWR | os.O_CLOEXEC)


def nodes_by_uuid(prefix: str) -> dict[str, str]:
    """Rest of the uuid -> node, of all devices whose uuid begins with `prefix`."""
    found: dict[str, str] = {}
    for path in Path("/sys/block").glob("dm-*/dm/uuid"):
        with suppress(OSError):
            uuid = path.read_text().strip()
            if uuid.startswith(prefix):
                found[uuid.removeprefix(prefix)] = f"/dev/{path.parent.parent.name}"
    return found


def node_by_name(wanted: str) -> str | None:
    """The kernel's own node: without udev nobody makes links in /dev/mapper."""
    for path in Path("/sys/block").glob("dm-*/dm/name"):
        if path.read_text().strip() == wanted:
            return f"/dev/{path.parent.parent.name}"
    return None

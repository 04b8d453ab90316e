"""Where the subvolumes of a mounted btrfs are: its default one, and the path of each.

By the ioctls of <linux/btrfs.h>; structures of <linux/btrfs_tree.h>.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

TOP = 5
"""BTRFS_FS_TREE_OBJECTID: the subvolume that all others are in."""

_SIZE = 4096
_TREE_SEARCH = 0xD0009411
_INO_LOOKUP = 0xD0009412
_ROOT_TREE = 1
_ROOT_TREE_DIR = 6
_DIR_ITEM = 84
_ROOT_BACKREF = 144
_MOST = 2**64 - 1
_KEY = struct.Struct("=7Q4I32x")
_HEAD = struct.Struct("=3Q2I")
_MAX_DEPTH = 32


def path_of(folder: Path, subvolume: int | None) -> str:
    """The path from the top of a subvolume, None for the default one. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        number = _default(fd) if subvolume is None else subvolume
        parts: list[str] = []
        while number != TOP:
            if len(parts) > _MAX_DEPTH:
                raise OSError("the subvolumes are nested too deeply")
            number, part = _place(fd, number)
            parts.append(part)
        return "/" + "/".join(reversed(parts))
    finally:
        os.close(fd)


def _default(fd: int) -> int:
    """The directory item `default` of the root tree; the top where there is none."""
    for _offset, data in _search(fd, _ROOT_TREE_DIR, _DIR_ITEM):
        if len(data) >= 30 and data[30:].startswith(b"default"):
            return int.from_bytes(data[:8], "little")
    return TOP


def _place(fd: int, number: int) -> tuple[int, str]:
    """The subvolume that one is in, and its path in there."""
    for parent, data in _search(fd, number, _ROOT_BACKREF):
        folder, length = int.from_bytes(data[:8], "little"), int.from_bytes(data[16:18], "little")
        buffer = bytearray(struct.pack("=QQ", parent, folder).ljust(_SIZE, b"\0"))
        fcntl.ioctl(fd, _INO_LOOKUP, buffer)
        above = bytes(buffer[16:]).split(b"\0")[0]
        return parent, os.fsdecode(above + data[18 : 18 + length])
    raise OSError(f"there is no subvolume {number}")


def _search(fd: int, number: int, kind: int) -> list[tuple[int, bytes]]:
    """Offset and data of the items of an object in the root tree."""
    key = _KEY.pack(_ROOT_TREE, number, number, 0, _MOST, 0, _MOST, kind, kind, 16, 0)
    buffer = bytearray(key.ljust(_SIZE, b"\0"))
    fcntl.ioctl(fd, _TREE_SEARCH, buffer)
    count = _KEY.unpack_from(buffer)[9]
    found: list[tuple[int, bytes]] = []
    at = _KEY.size
    for _ in range(min(count, 16)):
        if at + _HEAD.size > _SIZE:
            break
        _transaction, _object, offset, _kind, length = _HEAD.unpack_from(buffer, at)
        at += _HEAD.size
        found.append((offset, bytes(buffer[at : at + length])))
        at += length
    return found

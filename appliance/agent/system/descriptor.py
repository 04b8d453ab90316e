"""Descriptors of what is below a mounted root, one name at a time, and what can be done with them.

Only directories and regular files are opened for reading; a FIFO would wait for ever, and a device
is the guest's own. Flags: open(2).
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from itertools import islice

MAX_NAMES = 65536
"""Entries of one folder that are looked at."""

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


class RootError(Exception):
    """Something below the root cannot be had; the text says why, without the path."""


class Missing(RootError):
    """There is nothing of that name."""


class Refused(RootError):
    """It is not what may be read: a device, a FIFO, a folder in place of a file, a link's loop."""


class Unreadable(RootError):
    """The kernel could not read it: the file system is damaged there."""


@dataclass(frozen=True, slots=True)
class File:
    """An open regular file; `size` in bytes, `changed` its mtime in seconds since the epoch."""

    fd: int
    size: int
    changed: int

    def read(self, length: int, offset: int = 0) -> bytes:
        """Up to `length` bytes at `offset`; short at the end. Raises Unreadable."""
        parts: list[bytes] = []
        try:
            while length > 0 and (part := os.pread(self.fd, min(length, 1 << 20), offset)):
                parts.append(part)
                offset += len(part)
                length -= len(part)
        except OSError as error:
            raise Unreadable(error.strerror) from error
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Listing:
    """Names in a folder, sorted (bytes that are not UTF-8 as surrogates, as os.fsdecode makes
    them); `cut` where there are more."""

    names: list[str]
    cut: bool


def open_path(name: str, folder: int | None) -> int:
    """An O_PATH descriptor of what has that name in a folder; a link is not followed."""
    try:
        return os.open(name, _PATH, dir_fd=folder)
    except OSError as error:
        if error.errno in _ABSENT:
            raise Missing("it is not there") from error
        raise Unreadable(error.strerror) from error
    except ValueError as error:  # a NUL, or a character that no name can have
        raise Missing("it is not there") from error


def reopened(fd: int, flags: int) -> int:
    """What an O_PATH descriptor stands for, opened for reading: the same thing, not its name."""
    try:
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Unreadable(error.strerror) from error


def facts_of(fd: int) -> os.stat_result:
    """fstat(2). Raises Unreadable."""
    try:
        return os.fstat(fd)
    except OSError as error:
        raise Unreadable(error.strerror) from error


def is_link(fd: int) -> bool:
    """Whether it is a symbolic link."""
    return stat.S_ISLNK(facts_of(fd).st_mode)


def link_target(fd: int) -> str:
    """What the symbolic link itself says."""
    try:
        return os.readlink("", dir_fd=fd)
    except OSError as error:
        raise Unreadable(error.strerror) from error


def names_in(fd: int, limit: int) -> Listing:
    """The names in a folder. Raises Unreadable."""
    folder = reopened(fd, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(folder) as entries:
            names = [each.name for each in islice(entries, limit + 1)]
    except OSError as error:
        raise Unreadable(error.strerror) from error
    finally:
        os.close(folder)
    return Listing(sorted(names[:limit]), len(names) > limit)


def kind_of(facts: os.stat_result) -> str:
    """What it is, in words, where it is no regular file."""
    for test, name in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(facts.st_mode):
            return name
    return "a device"

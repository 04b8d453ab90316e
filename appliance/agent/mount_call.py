"""mount(2) and umount2(2): a process for each would cost a fifth of a second."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from appliance.agent import kernel_log

# <linux/mount.h>
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_NOATIME = 1, 2, 4, 8, 1024
_FLAGS = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME
_MS_REMOUNT, _MS_BIND = 32, 4096
_MNT_DETACH = 2


class MountError(Exception):
    """It cannot be mounted, or there is no driver for it."""


@contextmanager
def attached(node: str, driver: str, options: str) -> Iterator[Path]:
    """Mount a device read-only, without what in it could act.

    Raises MountError with the kernel's own words for why not.
    """
    folder = Path(tempfile.mkdtemp(prefix="mount", dir="/run"))
    with kernel_log.listening() as log:
        try:
            _call("mount", node.encode(), bytes(folder), driver.encode(), _FLAGS, options.encode())
        except OSError as error:
            folder.rmdir()
            raise MountError(f"{driver}: {log.words() or error.strerror}") from error
    try:
        yield folder
    finally:
        unmount(folder)


def restrict(folder: Path) -> None:
    """Give what a program has mounted the same limits. Raises MountError."""
    flags = _FLAGS | _MS_REMOUNT | _MS_BIND
    try:
        _call("mount", b"none", bytes(folder), b"none", flags, b"")
    except OSError as error:
        raise MountError(f"it cannot be kept from being written to: {error.strerror}") from error


def unmount(folder: Path) -> None:
    """Also where a file in it is still open; then it goes with the last of them.

    The folder goes too. Nothing happens where nothing is mounted on it.
    """
    try:
        _call("umount2", bytes(folder), 0)
    except OSError:
        with suppress(OSError):
            _call("umount2", bytes(folder), _MNT_DETACH)
    folder.rmdir()


def _call(function: str, *arguments: bytes | int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    values = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    if getattr(libc, function)(*values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

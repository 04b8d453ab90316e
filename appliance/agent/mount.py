"""Mounts file systems: read-only, without what in them could act, and by default as found.

Options: mount(8) and Documentation/filesystems/ of Linux 6.12.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.agent.dm import MappingError
from appliance.agent.overlay import overlay
from appliance.agent.slice import with_node
from appliance.agent.volume import Volume

RECOVERED = "recovered"
"""The view in which journals are replayed; otherwise a file system is shown as it was found."""

# <linux/mount.h>
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_NOATIME = 1, 2, 4, 8, 1024
_FLAGS = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME
_MNT_DETACH = 2


class MountError(Exception):
    """The kernel does not mount it, or has no driver for it."""


@dataclass(frozen=True, slots=True)
class Driver:
    """How the kernel calls a type, and the options that it is mounted with.

    `unreplayed` keeps it from replaying its journal; None where it has none that it would replay
    on a device that refuses writes.
    """

    name: str
    options: str = ""
    unreplayed: str | None = None


_NAMES = "iocharset=utf8"
DRIVERS = {
    "ext2": Driver("ext4"),
    "ext3": Driver("ext4", unreplayed="noload"),
    "ext4": Driver("ext4", unreplayed="noload"),
    "xfs": Driver("xfs", "nouuid", "norecovery"),
    "btrfs": Driver("btrfs", unreplayed="rescue=nologreplay"),
    "ntfs": Driver("ntfs3", f"{_NAMES},umask=0277"),
    "vfat": Driver("vfat", f"{_NAMES},umask=0277"),
    "exfat": Driver("exfat", f"{_NAMES},umask=0277"),
    "f2fs": Driver("f2fs", unreplayed="norecovery"),
    "hfs": Driver("hfs", "umask=0277"),
    "hfsplus": Driver("hfsplus", "umask=0277"),
    "jfs": Driver("jfs", _NAMES),
    "reiserfs": Driver("reiserfs", unreplayed="nolog"),
    "nilfs2": Driver("nilfs2", unreplayed="norecovery"),
    "iso9660": Driver("iso9660", f"{_NAMES},mode=0400,dmode=0500"),
    "udf": Driver("udf", f"{_NAMES},umask=0277"),
    "squashfs": Driver("squashfs"),
    "erofs": Driver("erofs"),
    "bcachefs": Driver("bcachefs", unreplayed="norecovery"),
    "minix": Driver("minix"),
}
"""By libblkid's TYPE."""


@contextmanager
def mounted(volume: Volume, blkid_type: str, view: str) -> Iterator[Path]:
    """Yield the folder where the file system of that type on the volume can be read.

    Raises MountError.
    """
    driver = DRIVERS.get(blkid_type)
    if driver is None:
        raise MountError(f"there is no driver for {blkid_type}")
    with ExitStack() as stack:
        try:
            node = with_node(volume, stack).node or ""
            if view == RECOVERED:
                node = stack.enter_context(overlay(node))
        except MappingError as error:
            raise MountError(str(error)) from error
        options = [driver.options] if driver.options else []
        if view != RECOVERED and driver.unreplayed:
            options.append(driver.unreplayed)
        yield stack.enter_context(attached(node, driver.name, ",".join(options)))


@contextmanager
def attached(node: str, driver: str, options: str) -> Iterator[Path]:
    """Mount a device with mount(2): a process for it would cost a fifth of a second.

    Raises MountError.
    """
    folder = Path(tempfile.mkdtemp(prefix="mount", dir="/run"))
    try:
        _call("mount", node.encode(), bytes(folder), driver.encode(), _FLAGS, options.encode())
    except OSError as error:
        folder.rmdir()
        raise MountError(f"{driver}: {error.strerror}") from error
    try:
        yield folder
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    """Also where a file in it is still open; then it goes with the last of them."""
    try:
        _call("umount2", bytes(folder), 0)
    except OSError:
        _call("umount2", bytes(folder), _MNT_DETACH)
    folder.rmdir()


def _call(function: str, *arguments: bytes | int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    values = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    if getattr(libc, function)(*values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

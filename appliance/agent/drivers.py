"""How each type of file system is mounted: the driver and its options.

Options: mount(8), ntfs-3g(8), and Documentation/filesystems/ of Linux 6.12; what each does to a
file system whose journal wants replaying is shown by tests/guest/test_mount.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from appliance.agent.filesystem.ufs import ufs_type
from appliance.agent.reiserfs_journal import hide_journal
from appliance.agent.volume import Volume

Found = Callable[[Volume], str]


@dataclass(frozen=True, slots=True)
class Driver:
    """How the kernel calls a type, and the options that it is mounted with.

    `unreplayed` keeps it from replaying its journal; None where it has none that it would replay
    on a device that refuses writes. `replays` says whether it replays one where it may write.
    `found` adds an option that depends on what is there. `hide` takes the journal out of sight, on
    an overlay of so many bytes, where the kernel refuses to leave it alone. `program` mounts it
    in user space: as the only way, or as the second one where the kernel refuses.
    """

    name: str | None
    options: str = ""
    unreplayed: str | None = None
    replays: bool = False
    found: Found | None = None
    hide: Callable[[str, int], None] | None = None
    program: Callable[[Volume], list[str]] | None = None


_NAMES = "iocharset=utf8"
_EXT = Driver("ext4", unreplayed="noload", replays=True)


def _btrfs_part(volume: Volume) -> str:
    """Without it the kernel shows what the file system calls its default subvolume."""
    return f"subvolid={volume.subvolume.id if volume.subvolume else 5}"


def _fsapfsmount(volume: Volume) -> list[str]:
    return ["fsapfsmount", "-f", str(volume.subvolume.id) if volume.subvolume else "all"]


def _ntfs_3g(_: Volume) -> list[str]:
    return ["ntfs-3g", "-o", "ro,norecover,nosuid,nodev,noexec,noatime"]


DRIVERS = {
    "apfs": Driver(None, program=_fsapfsmount),
    "bcachefs": Driver("bcachefs", unreplayed="norecovery,nochanges", replays=True),
    "btrfs": Driver("btrfs", unreplayed="rescue=nologreplay", replays=True, found=_btrfs_part),
    "erofs": Driver("erofs"),
    "exfat": Driver("exfat", f"{_NAMES},umask=0277"),
    "ext2": Driver("ext4"),
    "ext3": _EXT,
    "ext4": _EXT,
    "f2fs": Driver("f2fs", unreplayed="norecovery", replays=True),
    "hfs": Driver("hfs", f"umask=0277,{_NAMES}"),
    "hfsplus": Driver("hfsplus", "umask=0277,nls=utf8"),
    "iso9660": Driver("iso9660", f"{_NAMES},mode=0400,dmode=0500"),
    "jfs": Driver("jfs", _NAMES),
    "minix": Driver("minix"),
    "nilfs2": Driver("nilfs2", unreplayed="norecovery", replays=True),
    "ntfs": Driver("ntfs3", f"{_NAMES},umask=0277", replays=True, program=_ntfs_3g),
    "reiserfs": Driver("reiserfs", replays=True, hide=hide_journal),
    "squashfs": Driver("squashfs"),
    "udf": Driver("udf", f"{_NAMES},umask=0277"),
    "ufs": Driver("ufs", found=lambda volume: ufs_type(volume.read, volume.size)),
    "vfat": Driver("vfat", f"{_NAMES},umask=0277"),
    "xfs": Driver("xfs", "nouuid", unreplayed="norecovery", replays=True),
}
"""By libblkid's TYPE."""

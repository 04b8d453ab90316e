"""Which reader knows which type of file system."""

from __future__ import annotations

from collections.abc import Callable

from appliance.agent.filesystem.account import Usage, damaged
from appliance.agent.filesystem.apfs import read_apfs
from appliance.agent.filesystem.btrfs import read_btrfs
from appliance.agent.filesystem.cramfs import read_cramfs
from appliance.agent.filesystem.erofs import read_erofs
from appliance.agent.filesystem.exfat import read_exfat
from appliance.agent.filesystem.ext import read_ext
from appliance.agent.filesystem.f2fs import read_f2fs
from appliance.agent.filesystem.hfs import read_hfs
from appliance.agent.filesystem.hfsplus import read_hfsplus
from appliance.agent.filesystem.iso9660 import read_iso9660
from appliance.agent.filesystem.jfs import read_jfs
from appliance.agent.filesystem.minix import read_minix
from appliance.agent.filesystem.nilfs2 import read_nilfs2
from appliance.agent.filesystem.ntfs import read_ntfs
from appliance.agent.filesystem.reading import BadSuperblock, Volume
from appliance.agent.filesystem.reiserfs import read_reiserfs
from appliance.agent.filesystem.squashfs import read_squashfs
from appliance.agent.filesystem.swap import read_swap
from appliance.agent.filesystem.udf import read_udf
from appliance.agent.filesystem.ufs import read_ufs
from appliance.agent.filesystem.vfat import read_vfat
from appliance.agent.filesystem.xfs import read_xfs

READERS: dict[str, Callable[[Volume], Usage]] = {
    "apfs": read_apfs,
    "btrfs": read_btrfs,
    "cramfs": read_cramfs,
    "erofs": read_erofs,
    "exfat": read_exfat,
    "ext2": read_ext,
    "ext3": read_ext,
    "ext4": read_ext,
    "ext4dev": read_ext,
    "f2fs": read_f2fs,
    "hfs": read_hfs,
    "hfsplus": read_hfsplus,
    "iso9660": read_iso9660,
    "jfs": read_jfs,
    "minix": read_minix,
    "nilfs2": read_nilfs2,
    "ntfs": read_ntfs,
    "reiserfs": read_reiserfs,
    "squashfs": read_squashfs,
    "swap": read_swap,
    "swsuspend": read_swap,
    "udf": read_udf,
    "ufs": read_ufs,
    "vfat": read_vfat,
    "xfs": read_xfs,
}
"""From libblkid's TYPE to what reads its account. A new type is added here and nowhere else."""


def read_usage(
    blkid_type: str, read: Callable[[int, int], bytes], volume_size: int
) -> Usage | None:
    """What the file system of this type on a volume of `volume_size` bytes says about itself.

    `read(offset, length)` returns up to `length` bytes of the volume; an OSError from it passes
    through. None means that this type keeps no account that is read here. Nothing is mounted and
    nothing is executed, and what is read is bounded (see reading.py).
    """
    reader = READERS.get(blkid_type)
    if reader is None:
        return None
    try:
        return reader(Volume(read, volume_size))
    except BadSuperblock as error:
        return damaged(error)

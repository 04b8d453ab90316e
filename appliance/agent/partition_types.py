"""Usual names of partition types. The same number means different things in different tables."""

from __future__ import annotations

# MBR: https://www.win.tue.nl/~aeb/partitions/partition_types-1.html; GPT: the UAPI Group's
# Discoverable Partitions Specification, Microsoft's PARTITION_INFORMATION_GPT, FreeBSD's gpart(8).
TYPE_NAMES = {
    "0x01": "FAT12", "0x04": "FAT16 <32M", "0x05": "Extended", "0x06": "FAT16",
    "0x07": "NTFS/exFAT/HPFS", "0x0b": "FAT32", "0x0c": "FAT32 LBA", "0x0e": "FAT16 LBA",
    "0x0f": "Extended LBA", "0x27": "Windows recovery", "0x41": "PReP boot",
    "0x42": "Windows dynamic disk", "0x63": "UnixWare", "0x81": "Minix", "0x82": "Linux swap",
    "0x83": "Linux", "0x85": "Linux extended", "0x8e": "Linux LVM", "0xa5": "FreeBSD",
    "0xa6": "OpenBSD", "0xa8": "Darwin UFS", "0xa9": "NetBSD", "0xab": "Darwin boot",
    "0xaf": "HFS+", "0xbf": "Solaris", "0xda": "Data without file system",
    "0xee": "GPT protective", "0xef": "EFI system", "0xfb": "VMware VMFS", "0xfd": "Linux RAID",
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system",
    "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b": "PReP boot",
    "e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved",
    "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "Microsoft basic data",
    "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3": "Windows dynamic disk metadata",
    "af9b60a0-1431-4f62-bc68-3311714a69ad": "Windows dynamic disk",
    "de94bba4-06d1-4d40-a16a-bfd50179d6ac": "Windows recovery",
    "0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux filesystem",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "Linux root (x86-64)",
    "933ac7e1-2eb4-4f13-b844-0e14e2aef915": "Linux home",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172": "Linux extended boot",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
    "e6d6d379-f507-44c2-a23c-238f2a3df928": "Linux LVM",
    "a19d880f-05fc-4d3b-a006-743f0f84911e": "Linux RAID",
    "ca7d7ccb-63ed-4c53-861c-1742536059cc": "Linux LUKS",
    "48465300-0000-11aa-aa11-00306543ecac": "Apple HFS/HFS+",
    "7c3457ef-0000-11aa-aa11-00306543ecac": "Apple APFS",
    "53746f72-6167-11aa-aa11-00306543ecac": "Apple Core Storage",
    "83bd6b9d-7f41-11dc-be0b-001560b84f0f": "FreeBSD boot",
    "516e7cb4-6ecf-11d6-8ff8-00022d09712b": "FreeBSD disklabel",
    "516e7cb5-6ecf-11d6-8ff8-00022d09712b": "FreeBSD swap",
    "516e7cb6-6ecf-11d6-8ff8-00022d09712b": "FreeBSD UFS",
    "516e7cba-6ecf-11d6-8ff8-00022d09712b": "FreeBSD ZFS",
}  # fmt: skip
"""For an MBR and a GPT, whose types cannot be mistaken for each other."""

# <sys/disklabel.h>: what FreeBSD, NetBSD and OpenBSD agree on, then what they do not.
_BSD = {
    "0x01": "BSD swap", "0x02": "Unix V6", "0x03": "Unix V7", "0x04": "System V",
    "0x05": "4.1BSD", "0x06": "Unix V8", "0x07": "4.2BSD (UFS)", "0x08": "FAT",
    "0x09": "4.4BSD LFS", "0x0b": "HPFS", "0x0c": "ISO 9660", "0x0d": "BSD boot",
}  # fmt: skip
_FREEBSD = _BSD | {"0x0e": "Vinum", "0x0f": "RAID", "0x1b": "ZFS"}
_OTHER_BSD = _BSD | {
    "0x0e": "Amiga FFS", "0x0f": "HFS", "0x11": "ext2", "0x12": "NTFS", "0x13": "BSD RAID",
}  # fmt: skip

# The tags of Solaris (<sys/vtoc.h>) and those that Linux adds on SPARC.
_SUN = {
    "0x01": "Solaris boot", "0x02": "Solaris root", "0x03": "Solaris swap", "0x04": "Solaris usr",
    "0x05": "Whole disk", "0x06": "Solaris stand", "0x07": "Solaris var", "0x08": "Solaris home",
    "0x09": "Solaris alternate sectors", "0x0a": "Solaris cache", "0x0b": "Solaris reserved",
    "0x82": "Linux swap", "0x83": "Linux", "0x8e": "Linux LVM", "0xfd": "Linux RAID",
}  # fmt: skip

# <sys/dvh.h> of IRIX, and those that Linux adds.
_SGI = {
    "0x00": "SGI volume header", "0x01": "SGI track replacements",
    "0x02": "SGI sector replacements", "0x03": "SGI raw", "0x04": "SGI BSD", "0x05": "SGI System V",
    "0x06": "SGI entire volume", "0x07": "SGI EFS", "0x08": "SGI logical volume",
    "0x09": "SGI raw logical volume", "0x0a": "SGI XFS", "0x0b": "SGI XFS log", "0x0c": "SGI XLV",
    "0x0d": "SGI XVM", "0x82": "Linux swap", "0x83": "Linux", "0x8e": "Linux LVM",
    "0xfd": "Linux RAID",
}  # fmt: skip

# Inside Macintosh: Devices, table 3-2; Apple's Technical Note TN1189; pdisk(8).
_APPLE = {
    "apple_partition_map": "Apple partition map", "apple_driver": "Apple driver",
    "apple_driver43": "Apple SCSI driver", "apple_driver43_cd": "Apple CD driver",
    "apple_driver_ata": "Apple ATA driver", "apple_driver_atapi": "Apple ATAPI driver",
    "apple_driver_iokit": "Apple IOKit driver", "apple_fwdriver": "Apple FireWire driver",
    "apple_patches": "Apple patches", "apple_free": "Apple free space",
    "apple_void": "Apple free space", "apple_scratch": "Apple free space",
    "apple_boot": "Apple boot", "apple_bootstrap": "Apple boot (New World)",
    "apple_loader": "Apple loader", "apple_hfs": "Apple HFS/HFS+", "apple_hfsx": "Apple HFSX",
    "apple_mfs": "Apple MFS", "apple_prodos": "Apple ProDOS", "apple_ufs": "Apple UFS",
    "apple_apfs": "Apple APFS", "apple_raid": "Apple RAID",
    "apple_unix_svr2": "A/UX, Linux or NetBSD",
}  # fmt: skip

NAMES_BY_TABLE = {
    "bsd": _BSD, "freebsd": _FREEBSD, "netbsd": _OTHER_BSD, "openbsd": _OTHER_BSD, "sun": _SUN,
    "solaris": _SUN, "sgi": _SGI, "mac": _APPLE,
}  # fmt: skip
"""By libblkid's PTTYPE. Types are in small letters."""

WITHOUT_CONTENT = {
    "PReP boot", "Data without file system", "BIOS boot", "Microsoft reserved", "FreeBSD boot",
    "BSD boot", "Solaris boot", "Solaris alternate sectors",
    "SGI volume header", "SGI track replacements", "SGI sector replacements",
    "Apple partition map", "Apple driver", "Apple SCSI driver", "Apple CD driver",
    "Apple ATA driver", "Apple ATAPI driver", "Apple IOKit driver", "Apple FireWire driver",
    "Apple patches", "Apple free space", "Apple loader",
}  # fmt: skip
"""Names of types that hold boot code or nothing by definition: no file system is missed there."""

_WITH_WHOLE_DISK = {"bsd", "freebsd", "netbsd", "openbsd", "sun", "solaris", "sgi"}
_WHOLE_DISK = {("sun", "0x05"), ("solaris", "0x05"), ("sgi", "0x06")}


def type_name(table: str, kind: str) -> str | None:
    """The usual name of a type in a table of libblkid's PTTYPE `table`."""
    names = NAMES_BY_TABLE.get(table)
    return (TYPE_NAMES if names is None else names).get(kind.lower())


def is_whole_disk(table: str, kind: str) -> bool:
    """Whether a row of this type stands for everything that the table is for."""
    return (table, kind) in _WHOLE_DISK


def may_have_whole_disk(table: str) -> bool:
    """Whether tables of this kind have a row for the whole by custom (slice c), of any type."""
    return table in _WITH_WHOLE_DISK

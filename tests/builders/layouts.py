"""Small disks with known layouts. Each function builds in a folder and returns what is there."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.expected import Expected, Layout
from tests.builders.ext4 import Entry, make_ext4
from tests.builders.filesystems import (
    GREETING,
    GREETING_NAME,
    make_btrfs,
    make_exfat,
    make_ntfs,
    make_swap,
    make_vfat,
    make_xfs,
)
from tests.builders.layout_group import two_disks_one_group
from tests.builders.layout_hostile import hostile_names
from tests.builders.sparse import make_sparse

__all__ = [
    "LAYOUTS",
    "beyond_end",
    "blank",
    "gpt_mixed",
    "hostile_names",
    "mbr_logical",
    "two_disks_one_group",
    "whole_disk_ext4",
]

FILE = (GREETING_NAME, GREETING)
ENTRIES = (Entry(GREETING_NAME, GREETING),)
PART = MIB // SECTOR
"""Sectors in a MiB."""

EFI_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
BIOS_BOOT_TYPE = "21686148-6449-6E6F-744E-656564454649"
LINUX_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
BASIC_DATA_TYPE = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"

EXT4_UUID = "e4000000-0000-4000-8000-000000000001"
SWAP_UUID = "5a000000-0000-4000-8000-000000000002"
XFS_UUID = "f5000000-0000-4000-8000-000000000003"
BTRFS_UUID = "b7000000-0000-4000-8000-000000000004"
NTFS = "0011223344556677"
GPT_DISK = "d15c0000-0000-4000-8000-000000000000"
GPT_PART = "9a470000-0000-4000-8000-%012d"


def mbr_logical(folder: Path) -> Layout:
    """MBR, 80 MiB: ext4, vfat, an extended partition with swap and xfs in it, and gaps.

    MiB: 1–17 p1, 20–36 p2, 40–72 extended, in it 41–49 p5 and 52–68 p6; rest to 80 unused.
    """
    ext4 = make_ext4(folder / "p1", 16 * MIB, "first", EXT4_UUID, ENTRIES)
    vfat = make_vfat(folder / "p2", 16 * MIB, "SECOND", "1a2b3c4d")
    swap = make_swap(folder / "p5", 8 * MIB, "fifth", SWAP_UUID)
    xfs = make_xfs(folder / "p6", 16 * MIB, "sixth", XFS_UUID)
    partitions = [
        Partition(1 * PART, 16 * PART, "83", ext4, bootable=True),
        Partition(20 * PART, 16 * PART, "c", vfat),
        Partition(40 * PART, 32 * PART, "5"),
        Partition(41 * PART, 8 * PART, "82", swap),
        Partition(52 * PART, 16 * PART, "83", xfs),
    ]
    disk = make_disk(folder / "disk.raw", 80 * MIB, "dos", partitions, "0x12ab34cd")
    expected = (
        Expected("disk0", "disk", 83886080, table="dos", table_uuid="12ab34cd"),
        partition(1, 1048576, 16777216, "ext4", "first", EXT4_UUID, bootable=True),
        partition(2, 20971520, 16777216, "vfat", "SECOND", "1A2B-3C4D"),
        Expected("disk0/p3", "partition", 33554432, 41943040, extended=True),
        partition(5, 42991616, 8388608, "swap", "fifth", SWAP_UUID),
        partition(6, 54525952, 16777216, "xfs", "sixth", XFS_UUID),
    )
    files = dict.fromkeys(("disk0/p1", "disk0/p2", "disk0/p6"), FILE)
    return Layout((disk,), expected, {"disk0": 24 * MIB}, files)


def gpt_mixed(folder: Path) -> Layout:
    """GPT, 132 MiB: EFI, BIOS boot, ext4, btrfs, NTFS and exFAT, without a hole between them.

    MiB: 1–17 p1, 17–18 p2, 18–34 p3, 34–98 p4, 98–114 p5, 114–130 p6; rest to 132 unused.
    """
    rows = [
        (1, 16, EFI_TYPE, "EFI System", make_vfat(folder / "p1", 16 * MIB, "ESP", "e5b00001")),
        (17, 1, BIOS_BOOT_TYPE, "BIOS boot", None),
        (18, 16, LINUX_TYPE, "root", make_ext4(folder / "p3", 16 * MIB, "r", EXT4_UUID, ENTRIES)),
        (34, 64, LINUX_TYPE, "data", make_btrfs(folder / "p4", 64 * MIB, "pool", BTRFS_UUID)),
        (98, 16, BASIC_DATA_TYPE, "Windows Übung", make_ntfs(folder / "p5", 16 * MIB, "W", NTFS)),
        (114, 16, BASIC_DATA_TYPE, "card", make_exfat(folder / "p6", 16 * MIB, "CARD", "0ca4d001")),
    ]
    partitions = [
        Partition(start * PART, size * PART, kind, image, name=name, uuid=GPT_PART % number)
        for number, (start, size, kind, name, image) in enumerate(rows, start=1)
    ]
    disk = make_disk(folder / "disk.raw", 132 * MIB, "gpt", partitions, GPT_DISK)
    expected = (
        Expected("disk0", "disk", 138412032, table="gpt", table_uuid=GPT_DISK),
        partition(1, 1048576, 16777216, "vfat", "ESP", "E5B0-0001", name="EFI System"),
        partition(2, 17825792, 1048576, name="BIOS boot"),
        partition(3, 18874368, 16777216, "ext4", "r", EXT4_UUID, name="root"),
        partition(4, 35651584, 67108864, "btrfs", "pool", BTRFS_UUID, name="data"),
        partition(5, 102760448, 16777216, "ntfs", "W", NTFS, name="Windows Übung"),
        partition(6, 119537664, 16777216, "exfat", "CARD", "0CA4-D001", name="card"),
    )
    files = dict.fromkeys(("disk0/p1", "disk0/p3", "disk0/p4", "disk0/p5"), FILE)
    return Layout((disk,), expected, {"disk0": 3 * MIB}, files)


def whole_disk_ext4(folder: Path) -> Layout:
    """32 MiB of ext4 with no partition table."""
    disk = make_ext4(folder / "disk.raw", 32 * MIB, "whole", EXT4_UUID, ENTRIES)
    layer = Expected("disk0", "disk", 33554432, content="ext4", label="whole", uuid=EXT4_UUID)
    return Layout((disk,), (layer,), files={"disk0": FILE})


def blank(folder: Path) -> Layout:
    """64 MiB of zeros."""
    disk = make_sparse(folder / "disk.raw", 64 * MIB)
    return Layout((disk,), (Expected("disk0", "disk", 67108864),))


def beyond_end(folder: Path) -> Layout:
    """MBR, 32 MiB, cut off inside partition 2, whose ext4 is as large as the table says.

    MiB: 1–5 p1, 8–64 p2, of which 8–32 are there.
    """
    vfat = make_vfat(folder / "p1", 4 * MIB, "INSIDE", "00c0ffee")
    ext4 = make_ext4(folder / "p2", 56 * MIB, "cut", EXT4_UUID, ENTRIES)
    partitions = [
        Partition(1 * PART, 4 * PART, "6", vfat),
        Partition(8 * PART, 56 * PART, "83", ext4),
    ]
    disk = make_disk(folder / "disk.raw", 64 * MIB, "dos", partitions, "0x0be70000")
    os.truncate(disk, 32 * MIB)
    cut = Expected(
        "disk0/p2",
        "partition",
        58720256,
        8388608,
        present=25165824,
        content="ext4",
        label="cut",
        uuid=EXT4_UUID,
    )
    expected = (
        Expected("disk0", "disk", 33554432, table="dos", table_uuid="0be70000"),
        partition(1, 1048576, 4194304, "vfat", "INSIDE", "00C0-FFEE"),
        cut,
    )
    return Layout((disk,), expected, {"disk0": 4 * MIB}, {"disk0/p1": FILE})


def partition(
    number: int,
    offset: int,
    size: int,
    content: str | None = None,
    label: str | None = None,
    uuid: str | None = None,
    name: str | None = None,
    bootable: bool = False,
) -> Expected:
    """A partition of disk0; one with a name is of the GPT and has the UUID of its number."""
    return Expected(
        f"disk0/p{number}",
        "partition",
        size,
        offset,
        content=content,
        label=label,
        uuid=uuid,
        name=name,
        identity=GPT_PART % number if name is not None else None,
        bootable=bootable,
    )


LAYOUTS: dict[str, Callable[[Path], Layout]] = {
    "mbr_logical": mbr_logical,
    "gpt_mixed": gpt_mixed,
    "whole_disk_ext4": whole_disk_ext4,
    "two_disks_one_group": two_disks_one_group,
    "blank": blank,
    "beyond_end": beyond_end,
    "hostile_names": hostile_names,
}

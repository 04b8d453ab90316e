"""Disk images inside of file systems inside of disk images."""

from __future__ import annotations

from pathlib import Path

from tests.builders.command import run
from tests.builders.disk import MIB, SECTOR, Partition, make_disk
from tests.builders.ext4 import Entry, make_ext4
from tests.builders.filesystems import make_swap
from tests.builders.luks import make_luks
from tests.builders.lvm import PhysicalVolume, Volume, make_group

OUTER_UUID = "e4000000-0000-4000-8000-00000000b001"
INNER_UUID = "e4000000-0000-4000-8000-00000000b002"
INNER_LABEL = "innermost"
BOTTOM_UUID = "e4000000-0000-4000-8000-00000000b003"
SWAP_UUID = "5a000000-0000-4000-8000-00000000b004"
BOTTOM_SIZE = 2 * MIB
"""The virtual size of a qcow2 that is a file in the innermost file system."""

INNER_GROUP = "guestvg"
OUTER_GROUP = "lvg1"


def group_on_a_disk(folder: Path, name: str, group: str, file_system: Path) -> Path:
    """A raw disk with an MBR: 1 MiB of swap, then a group with `file_system` in `lvroot`."""
    size = file_system.stat().st_size + 6 * MIB
    volume = PhysicalVolume(folder / f"{name}.pv", size)
    made = [Volume("lvroot", image=file_system, size=file_system.stat().st_size)]
    make_group(group, [volume], made, extent_size=MIB)
    swap = make_swap(folder / f"{name}.swap", MIB, "swap", SWAP_UUID)
    rows = [
        Partition(MIB // SECTOR, MIB // SECTOR, "82", swap),
        Partition(2 * MIB // SECTOR, size // SECTOR, "8e", volume.path),
    ]
    return make_disk(folder / f"{name}.raw", size + 3 * MIB, "dos", rows, "0x0000b00c")


def as_qcow2(raw: Path) -> Path:
    """The same disk as a qcow2."""
    target = raw.with_suffix(".qcow2")
    run("qemu-img", "convert", "-O", "qcow2", raw, target)
    return target


def inner_disk(folder: Path, group: str = INNER_GROUP) -> Path:
    """MBR, LVM, ext4 with one file that is a qcow2."""
    lowest = make_ext4(folder / "bottom.ext4", BOTTOM_SIZE, "bottom", BOTTOM_UUID)
    bottom = Entry("bottom.qcow2", as_qcow2(lowest).read_bytes())
    inner = make_ext4(folder / "inner.ext4", 8 * MIB, INNER_LABEL, INNER_UUID, [bottom])
    return as_qcow2(group_on_a_disk(folder, "inner", group, inner))


def deep(folder: Path, word: bytes) -> tuple[Path, Path]:
    """Partition → LUKS2 → LVM → ext4 → qcow2 → MBR → LVM → ext4; and the same without the qcow2."""
    disks = []
    image = Entry("images/os43.qcow2", inner_disk(folder).read_bytes())
    for name, entries in (("deep", [Entry("images"), image]), ("shallow", [Entry("images")])):
        outer = make_ext4(folder / f"{name}.ext4", 24 * MIB, "outer", OUTER_UUID, entries)
        volume = PhysicalVolume(folder / f"{name}.pv", 32 * MIB)
        make_group(OUTER_GROUP, [volume], [Volume("lvroot", image=outer, size=24 * MIB)])
        luks = folder / f"{name}.luks"
        make_luks(luks, volume.path, word, 2)
        size = luks.stat().st_size
        rows = [Partition(MIB // SECTOR, size // SECTOR, "83", luks)]
        disks.append(make_disk(folder / f"{name}.raw", MIB + size, "dos", rows, "0x0000b00d"))
    return disks[0], disks[1]

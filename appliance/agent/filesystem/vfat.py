"""FAT12, FAT16 and FAT32.

Source: Microsoft's "FAT: General Overview of On-Disk Format" 1.03, and Linux
fs/fat/inode.c for what counts as which; little endian.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.agent.filesystem.account import (
    Problem,
    Usage,
    account,
    counted,
    errors_recorded,
    not_clean,
)
from appliance.agent.filesystem.fat_table import TableShape, count_free
from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume, power_of_two

MAX_FAT12 = 4084
STATE_DIRTY = 0x01
EXTENDED = (0x28, 0x29)
UNKNOWN = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Layout:
    """What the boot sector says; bytes, except `sectors` and `clusters`."""

    sector: int
    sectors: int
    cluster: int
    clusters: int
    table: int
    bits: int


def read_vfat(volume: Volume) -> Usage:
    """Size from the boot sector; free from the FSInfo sector of a clean FAT32, else counted.

    FSInfo is a hint that other systems may leave stale, so it is not believed on a volume that
    was not unmounted cleanly, nor when it says more than there is.
    """
    boot = volume.block(0, 512, "little")
    layout = _layout(boot)
    problems = _problems(volume, boot, layout)
    hint = None if problems else _hint(volume, boot, layout)
    free = hint if hint is not None else counted(lambda: _count(volume, layout), problems)
    return account(
        volume,
        block_size=layout.cluster,
        size=layout.sectors * layout.sector,
        free=None if free is None else free * layout.cluster,
        problems=problems,
    )


def _layout(boot: Block) -> Layout:
    sector = power_of_two(boot.u16(11), 512, 4096, "the sector size")
    cluster = power_of_two(boot.u8(13), 1, 128, "the number of sectors in a cluster") * sector
    table_sectors, reserved = boot.u16(22) or boot.u32(36), boot.u16(14)
    if not table_sectors or not reserved or not boot.u8(16):
        raise BadSuperblock("it has no file allocation table")
    root_sectors = -(-boot.u16(17) * 32 // sector)
    sectors = boot.u16(19) or boot.u32(32)
    data_sectors = sectors - reserved - boot.u8(16) * table_sectors - root_sectors
    clusters = data_sectors * sector // cluster
    if clusters < 1:
        raise BadSuperblock("it has no room for data")
    bits = 12 if clusters <= MAX_FAT12 else 16
    if not boot.u16(22):
        bits = 32
    # Like the kernel: clusters that the table has no entry for do not exist.
    clusters = min(clusters, table_sectors * sector * 8 // bits - 2)
    return Layout(sector, sectors, cluster, clusters, reserved * sector, bits)


def _problems(volume: Volume, boot: Block, layout: Layout) -> list[Problem]:
    """Linux marks a mounted volume in the boot sector, Windows in the second entry of the FAT."""
    state = 65 if layout.bits == 32 else 37
    # The byte is there only where the signature that follows says so (not with DOS before 4.0).
    dirty = boot.u8(state) & STATE_DIRTY and boot.u8(state + 1) in EXTENDED
    error = False
    if layout.bits > 12:
        entry = volume.block(layout.table, 8, "little")
        second = entry.u32(4) if layout.bits == 32 else entry.u16(2)
        top = layout.bits - 4 if layout.bits == 32 else layout.bits
        dirty = dirty or not second >> (top - 1) & 1
        error = not second >> (top - 2) & 1
    problems = [not_clean()] if dirty else []
    if error:
        message = "Errors while reading or writing the disk were recorded in the file system."
        problems.append(errors_recorded(message))
    return problems


def _hint(volume: Volume, boot: Block, layout: Layout) -> int | None:
    if layout.bits != 32 or not boot.u16(48):
        return None
    try:
        info = volume.block(boot.u16(48) * layout.sector, 512, "little")
    except BadSuperblock:
        return None
    if info.raw(0, 4) != b"RRaA" or info.raw(484, 4) != b"rrAa":
        return None
    free = info.u32(488)
    return free if free != UNKNOWN and free <= layout.clusters else None


def _count(volume: Volume, layout: Layout) -> int:
    return count_free(volume, TableShape(layout.table, layout.bits, layout.clusters))
